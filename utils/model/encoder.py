"""From audio to embedding: the only path, used by all scripts."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.decode import read_blocks
from utils.audio.detector import NoSpeechError, SpeechListener
from utils.audio.recording import BLOCK_S, Recording
from utils.audio.waveform import SAMPLE_RATE, describe_defect
from utils.errors import AudioError, ModelError
from utils.model.header import DEFAULT_MODELS, ModelHeader, read_header
from utils.model.onnx import load_onnx_network
from utils.processors import num_processors
from utils.verification.calibration import Calibration
from utils.verification.cohort import Cohort
from utils.workers import map_ahead

Network = Callable[[FloatArray], FloatArray]
"""From a stretch of speech, `(num_samples,)`, to its unit embedding, `(embedding_size,)`."""

MIN_SPEECH_S = 0.4
"""Seconds of speech that an embedding needs at least: about two syllables."""

WINDOW_S = 10.0
"""Seconds of speech that go through the network at once: bounds the memory to about 200 MB."""


class SpeakerEncoder:
    """Turns recordings into unit-length embeddings whose cosine tells whether the speaker is one.

    Silence is cut out, what is left goes through the network in windows of about 10 s, and their
    embeddings are averaged by the speech in them; an hour takes no more memory than a minute.

    Attributes:
        header: What the model file says of itself: path, identity, metadata, thresholds.
        num_threads: Processor threads in use.
    """

    def __init__(
        self, model: ModelHeader | str | Path | None = None, num_threads: int | None = None
    ) -> None:
        """Loads a model.

        Args:
            model: A `.keras` file of train.py or an `.onnx` file of export.py, or the header that
                was read of it; `None` for the shipped model. An `.onnx` file needs neither Keras
                nor TensorFlow.
            num_threads: Processor threads to use, `None` for one a processor that may be used.

        Raises:
            ModelError: If the file is missing, damaged, or not a model of this toolkit.
        """
        self.header = model if isinstance(model, ModelHeader) else read_header(model)
        if self.is_calibrated:
            _ = self.calibration  # Damaged thresholds are told now.
        self.num_threads = num_threads or num_processors()
        self._embed_window = _load_network(self.header, self.num_threads)

    def __reduce__(self) -> tuple[type["SpeakerEncoder"], tuple[str, int]]:
        """Makes another process load the same file."""
        return type(self), (self.model_path, self.num_threads)

    @property
    def model_path(self) -> str:
        """The model file."""
        return self.header.path

    @property
    def model_id(self) -> str:
        """SHA-256 of the file; embeddings of other files cannot be compared with these."""
        return self.header.model_id

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""
        return self.header.embedding_size

    @property
    def is_calibrated(self) -> bool:
        """Whether the file holds thresholds."""
        return self.header.is_calibrated

    @property
    def cohort(self) -> Cohort | None:
        """People whose scores normalise all others, if the header asks for AS-norm."""
        return self.header.cohort

    @property
    def calibration(self) -> Calibration:
        """Thresholds and probabilities stored with the model.

        Raises:
            ModelError: If there are none, as in a checkpoint of a training without a test list.
        """
        return self.header.calibration

    @property
    def threshold(self) -> float:
        """Score that at most 5 % of strangers should reach, in any group of people alike."""
        return self.calibration.threshold

    @property
    def strict_threshold(self) -> float:
        """Score that at most 0.3 % of strangers should reach, in any group of people alike."""
        return self.calibration.strict_threshold

    def probability(
        self, score: float, speech_s: tuple[float | None, float | None] | None = None
    ) -> float:
        """Returns how probable it is that a score comes from one speaker, in [0, 1].

        Same and different speakers are taken as equally probable beforehand.

        Args:
            score: The cosine of two embeddings.
            speech_s: Seconds of speech in both recordings; None where it is not known.
        """
        return self.calibration.probability(score, speech_s)

    def embed_waveform(
        self, recording: Recording | FloatArray, source: str = "recording"
    ) -> FloatArray:
        """Embeds a recording that is held in memory.

        Args:
            recording: A recording, or the waveform of one: shape `(num_samples,)`, 16 kHz mono.
            source: What to call a waveform in an error.

        Returns:
            Unit length, shape `(embedding_size,)`.

        Raises:
            AudioError: If it is empty, silent, not finite, or holds too little speech or none.
        """
        if not isinstance(recording, Recording):
            recording = Recording(recording, source)
        defect = describe_defect(recording.waveform)
        if defect is not None:
            raise AudioError(f"{recording.source}: {defect}; record it again")
        return self._embed_blocks(
            recording.blocks(), recording.source, lambda: recording.missing_speech
        )

    def embed_file(self, path: str | Path) -> FloatArray:
        """Embeds a recording of any length, in bounded memory.

        Returns:
            Unit length, shape `(embedding_size,)`.

        Raises:
            AudioError: If the file is missing, damaged, silent, or holds too little speech or none.
            ModelError: If the network's numbers are not finite.
        """
        return self.embed_and_measure(path)[0]

    def embed_and_measure(self, path: str | Path) -> tuple[FloatArray, float]:
        """Returns what `embed_file` does, and the seconds in which somebody speaks."""
        listener = SpeechListener()
        rest = (Recording(block, str(path)) for block in read_blocks(path, BLOCK_S))
        start = list(islice(rest, 2))
        if len(start) < 2:
            whole = start[0] if start else Recording(np.empty(0, np.float32), str(path))
            return self.embed_waveform(whole), whole.speech_s
        speech_s: list[float] = []

        def blocks() -> Iterator[Recording]:
            for block in chain(start, rest):
                listener.hear(block.steady)
                speech_s.append(block.speech_s)
                yield block

        embedding = self._embed_blocks(blocks(), str(path), lambda: listener.missing_speech)
        return embedding, sum(speech_s)

    def embed_files(
        self,
        paths: Iterable[str | Path],
        *,
        num_workers: int | None = None,
        on_error: str = "raise",
    ) -> Iterator[tuple[int, FloatArray | AudioError]]:
        """Embeds many recordings on all cores, in order.

        Args:
            paths: The recordings.
            num_workers: Recordings at a time; default: one for each thread.
            on_error: "raise", or "skip" to yield the error of a recording in its place.

        Yields:
            `(index, embedding)`, or `(index, error)` for a recording that cannot be used.

        Raises:
            AudioError: As `embed_file`, with `on_error="raise"`.
        """
        workers = num_workers or self.num_threads

        def embed(path: str | Path) -> FloatArray | AudioError:
            try:
                return self.embed_file(path)
            except AudioError as error:
                return error

        with ThreadPoolExecutor(workers) as pool:
            for index, result in enumerate(map_ahead(pool, embed, paths, 2 * workers)):
                if isinstance(result, AudioError) and on_error == "raise":
                    raise result
                yield index, result

    def embed_speech(self, speech: FloatArray) -> FloatArray:
        """Embeds a stretch that is known to be speech, as it is: nothing is cut or refused.

        Args:
            speech: Shape `(num_samples,)`, 16 kHz, at most about 10 s.

        Returns:
            Unit length, shape `(embedding_size,)`.
        """
        return self._embed_window(speech)

    def _embed_blocks(
        self, blocks: Iterable[Recording], source: str, missing_speech: Callable[[], str | None]
    ) -> FloatArray:
        """Embeds a recording that comes in blocks; the last argument is asked after them."""
        total = np.zeros(self.embedding_size)
        num_samples = 0
        for window in _windows(block.speech for block in blocks):
            num_samples += len(window)
            total += len(window) * self._embed_window(window)
        seconds = num_samples / SAMPLE_RATE
        if seconds < MIN_SPEECH_S:
            raise AudioError(
                f"{source}: {seconds:.2f} s of speech found, expected at least "
                f"{MIN_SPEECH_S:.2f} s; speak longer or closer to the microphone"
            )
        sound = missing_speech()
        if sound is not None:
            raise NoSpeechError(source, sound)
        length = float(np.linalg.norm(total))
        if not np.isfinite(length):
            raise ModelError(
                f"{self.model_path}: its embedding of {source} is not finite, the file is damaged; "
                "restore it"
            )
        return np.asarray(total / max(length, 1e-9), dtype=np.float32)


def load_shipped_model() -> Callable[[FloatArray], FloatArray]:
    """Loads the shipped model on one thread, from the toolkit's folder wherever it is called.

    Returns:
        Its function from a waveform, of a voice or any other sound, to the embedding.

    Raises:
        ModelError: If the file is missing.
    """
    path = Path(__file__).resolve().parents[2] / f"{DEFAULT_MODELS[0]}.onnx"
    encoder = SpeakerEncoder(path, 1)

    def embed(waveform: FloatArray) -> FloatArray:
        try:
            return encoder.embed_waveform(waveform)
        except AudioError:  # Single words and whispers are data too; they are compared whole.
            total = sum(len(part) * encoder._embed_window(part) for part in _windows([waveform]))
            return np.asarray(total / max(float(np.linalg.norm(total)), 1e-9), dtype=np.float32)

    return embed


def _windows(blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """Yields a stream of speech in stretches of 10 s; what remains, up to 20 s, in halves."""
    size = round(WINDOW_S * SAMPLE_RATE)
    pending = np.empty(0, dtype=np.float32)
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) >= 2 * size:
            yield pending[:size]
            pending = pending[size:]
    if len(pending) > size:
        half = len(pending) // 2
        yield pending[:half]
        pending = pending[half:]
    if len(pending):
        yield pending


def _load_network(header: ModelHeader, num_threads: int) -> Network:
    """Returns a function from a stretch of speech, `(num_samples,)`, to its unit embedding."""
    load: Any = load_onnx_network
    if not header.is_onnx:
        # Imported here: it reads archives with more than an .onnx model needs.
        from utils.model.keras import load_keras_network as load
    network: Network = load(header.path, num_threads)
    return network

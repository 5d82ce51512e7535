"""The formats of export.py: writing, running and verifying each against the original.

A file is written under a temporary name, run on real recordings, and renamed only if it gives the
embeddings of the Keras model.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from utils.arrays import FloatArray
from utils.audio.activity import remove_silence
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE
from utils.corpus.lists import read_data_list
from utils.errors import AudioError, DataListError, ModelError, VoiceprintError
from utils.export.onnx import write_onnx
from utils.export.runners import Embed, load_saved_model, load_tflite
from utils.files import atomic_path
from utils.model.encoder import MIN_SPEECH_S
from utils.model.header import read_header
from utils.model.keras import load_keras_network
from utils.model.onnx import METADATA_NAME, load_onnx_network
from utils.verification.evaluation import Clips, distinct_labels, embed_clips
from utils.verification.metrics import ErrorCurve
from utils.verification.report import name_defects
from utils.verification.scoring import score_all_pairs

MAX_SPEECH_S = 10.0
"""Seconds of speech to compare per recording: one window of SpeakerEncoder."""

SHORT_S = 1.0
"""Seconds of the short pieces to compare too: the graph must repeat them to fill a crop."""

NUM_SHORT = 8
"""Recordings to compare a short piece of."""

LATENCY_S = 3.0
"""Seconds of audio for timing one embedding."""

NUM_RANGES = 100
"""Most recordings for calibrating the ranges of the 8-bit ONNX file, spread over the list."""

SAVED_MODEL_FILE = "saved_model.pb"


@dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        suffix: Appended to the model's name.
        least_cosine: Lowest cosine between its embeddings and the original's to keep the file.
        write: Writes it; called with `(model_path, path, paths)`, the paths being recordings.
        load: Returns the function from speech to embedding, from `(path, num_threads)`.
    """

    suffix: str
    least_cosine: float
    write: Callable[[str, Path, Sequence[str]], None]
    load: Callable[[Path, int], Embed]


@dataclass(frozen=True)
class Result:
    """Measurements of a model in one format.

    Attributes:
        path: The file, or the folder of a SavedModel.
        num_bytes: Its size.
        cosine: Lowest cosine between its embeddings and the original's.
        latency_s: Median for 3 s of audio.
        eer: Equal error rate on the data list, `None` without a list.
    """

    path: Path
    num_bytes: int
    cosine: float
    latency_s: float
    eer: float | None


def _write_onnx(model_path: str, path: Path, paths: Sequence[str]) -> None:
    write_onnx(model_path, path)


def _write_onnx_int8(model_path: str, path: Path, paths: Sequence[str]) -> None:
    from utils.export.onnx_int8 import write_quantized_onnx

    step = -(-len(paths) // NUM_RANGES)
    write_quantized_onnx(model_path, path, (_speech(file) for file in paths[::step]))


def _write_saved_model(model_path: str, path: Path, paths: Sequence[str]) -> None:
    from utils.export.tensorflow import write_saved_model

    write_saved_model(model_path, path)


def _write_tflite(kind: str, model_path: str, path: Path, paths: Sequence[str]) -> None:
    from utils.export.tensorflow import write_tflite

    write_tflite(model_path, path, kind)


FORMATS = {
    "onnx": Format(".onnx", 0.9999, _write_onnx, load_onnx_network),
    "onnx_int8": Format(".int8.onnx", 0.99, _write_onnx_int8, load_onnx_network),
    "tflite_float16": Format(
        "_float16.tflite", 0.9999, partial(_write_tflite, "float16"), load_tflite
    ),
    "tflite_int8": Format("_int8.tflite", 0.999, partial(_write_tflite, "int8"), load_tflite),
    "savedmodel": Format("_savedmodel", 0.9999, _write_saved_model, load_saved_model),
}
"""All formats by their name in --formats; add a format with one line here."""

DEFAULT_FORMATS = [name for name in FORMATS if name != "onnx_int8"]
"""The default of export.py: 8-bit ONNX requires a list of speech for its ranges."""


class Comparison:
    """The original's embeddings of real recordings, to compare each format with.

    Attributes:
        result: Measurements of the original.
    """

    def __init__(
        self,
        model_path: str,
        paths: Sequence[str],
        labels: Mapping[str, int] | None = None,
        num_threads: int = 1,
    ) -> None:
        """Embeds the recordings with the original.

        Args:
            model_path: A `.keras` file of this toolkit.
            paths: The recordings, all different; unusable ones are reported and left out.
            labels: Label of each path, for equal error rates.
            num_threads: Processor threads to use.

        Raises:
            ModelError: If the model cannot be loaded.
            AudioError: If no recording is usable.
            DataListError: If labels are given and the usable recordings form no trials.
        """
        self.model_path = model_path
        self.num_threads = num_threads
        self._labels = labels
        embed = load_keras_network(model_path, num_threads)
        clips = self._embed_all("keras", embed, paths)
        name_defects(clips)
        self._clips = replace(clips, defects={})
        first = list(clips.rows)[:NUM_SHORT]
        self._pieces = [_speech(path)[: round(SHORT_S * SAMPLE_RATE)] for path in first]
        self._short_embeddings = [embed(piece) for piece in self._pieces]
        if labels is not None:
            _check_labels([labels[path] for path in self._clips.rows])
        self.result = self.check(Path(model_path), embed)

    def export(self, name: str, output_dir: str | Path) -> Result:
        """Writes the model in one of `FORMATS`, and keeps it if it matches the original.

        Raises:
            ModelError: If an embedding differs, or the format does not support the model.
            VoiceprintError: If a package is missing, the file can't be written, or another folder
                has its name.
        """
        form = FORMATS[name]
        path = Path(output_dir) / (Path(self.model_path).stem + form.suffix)
        place = _atomic_folder if name == "savedmodel" else atomic_path
        try:
            with place(path) as temporary:
                form.write(self.model_path, temporary, list(self._clips.rows))
                embed = form.load(temporary, self.num_threads)
                result = self.check(temporary, embed, name, form.least_cosine)
        except ImportError as error:
            raise VoiceprintError(
                f"{path}: the package {error.name} is missing, expected it for {name}; "
                "pip install -r requirements.txt, or leave it out of --formats"
            ) from error
        except OSError as error:
            raise VoiceprintError(
                f"{path}: can't be written ({error.strerror or error}), expected a folder with "
                "room; choose another --output_dir"
            ) from error
        return replace(result, path=path)

    def check(
        self, path: Path, embed: Embed, name: str = "keras", least_cosine: float = -1.0
    ) -> Result:
        """Compares a function from speech to embedding with the original.

        Raises:
            ModelError: If a cosine is below `least_cosine` or not a number.
        """
        cosines = [
            _cosine(embed(piece), expected)
            for piece, expected in zip(self._pieces, self._short_embeddings, strict=True)
        ]
        clips = self._clips
        if name != "keras":
            clips = self._embed_all(name, embed, list(self._clips.rows))
            cosines += map(_cosine, clips.embeddings, self._clips.embeddings)
        worst = float(np.min(cosines))
        if not worst >= least_cosine:
            raise ModelError(
                f"{name}: its worst embedding has a cosine of {worst:.6f} to that of "
                f"{self.model_path}, expected at least {least_cosine:g}; it was not kept, "
                f"leave {name} out of --formats"
            )
        eer = None
        if self._labels is not None:
            labels = [self._labels[path] for path in clips.rows]
            curve = ErrorCurve.from_histogram(score_all_pairs(clips.embeddings, labels))
            eer = curve.equal_error_rate()[0]
        return Result(path, _num_bytes(path), worst, _latency_s(embed), eer)

    def _embed_all(self, name: str, embed: Embed, paths: Sequence[str]) -> Clips:
        """Embeds recordings, with a progress bar if they come from a list."""
        hidden = self._labels is None
        with tqdm(total=len(paths), desc=name, disable=hidden, leave=False) as bar:
            return embed_clips(_Encoder(embed), paths, progress=bar.update)


class _Encoder:
    """Adapts a function from speech to embedding to the evaluation's interface."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    def embed_files(
        self, paths: Sequence[str | Path], *, on_error: Any = "skip"
    ) -> Iterator[tuple[int, FloatArray | AudioError]]:
        """Yields position and embedding, or the error, in order."""
        for position, path in enumerate(paths):
            try:
                yield position, self._embed(_speech(path))
            except AudioError as error:
                yield position, error


def check_model_path(path: str) -> None:
    """Checks early that a file can be exported.

    Raises:
        ModelError: If it is missing, of another kind, or not a model of this toolkit.
    """
    suffix = Path(path).suffix
    if suffix != ".keras" and Path(path).exists():
        raise ModelError(
            f"{path}: received a {suffix or 'nameless'} file, expected the .keras file that "
            "train.py wrote; an exported model cannot be exported again"
        )
    read_header(path)


def find_recordings(list_path: str | None, folder: str = "audio") -> tuple[list[str], Any]:
    """Returns the recordings to compare with, and the label of each if there is a list.

    Args:
        list_path: A data list; `None` for the wav files of `folder`.
        folder: The samples that come with the toolkit.

    Raises:
        DataListError: If the list has another format, or there is no recording.
    """
    if list_path is not None:
        labels = distinct_labels(read_data_list(list_path))
        _check_labels(list(labels.values()))
        return list(labels), labels
    paths = sorted(path.as_posix() for path in Path(folder).glob("*.wav"))
    if not paths:
        raise DataListError(
            f"{folder}: no .wav files to compare with, expected recordings of speech; run it in "
            "the toolkit's folder, or give --list_path"
        )
    return paths, None


def describe(result: Result, num_threads: int) -> str:
    """Returns the line that export.py prints for a format."""
    threads = "1 thread" if num_threads == 1 else f"{num_threads} threads"
    eer = "" if result.eer is None else f", EER {100 * result.eer:.3f} %"
    return (
        f"{result.path.as_posix()}: {result.num_bytes / 1e6:.1f} MB, worst cosine "
        f"{result.cosine:.6f}, {LATENCY_S:g} s in {1000 * result.latency_s:.0f} ms on "
        f"{threads}{eer}"
    )


def _check_labels(labels: Sequence[int]) -> None:
    """Raises DataListError unless the labels form target and non-target trials."""
    num_speakers = len(set(labels))
    if not 2 <= num_speakers < len(labels):
        raise DataListError(
            f"{len(labels)} clips of {num_speakers} speakers, expected two speakers or more, one "
            "of them with two clips or more"
        )


def _speech(path: str | Path) -> FloatArray:
    """Returns the first 10 s of speech of a recording.

    Raises:
        AudioError: If it cannot be read or holds too little speech.
    """
    speech = remove_silence(load_audio(path))[: round(MAX_SPEECH_S * SAMPLE_RATE)]
    if len(speech) < MIN_SPEECH_S * SAMPLE_RATE:
        raise AudioError(
            f"{path}: {len(speech) / SAMPLE_RATE:.2f} s of speech found, expected at least "
            f"{MIN_SPEECH_S:.2f} s"
        )
    return speech


def _cosine(first: FloatArray, second: FloatArray) -> float:
    """Returns the cosine of two embeddings, NaN if one is not finite."""
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def _latency_s(embed: Embed) -> float:
    """Returns the median seconds for one embedding."""
    noise = np.random.default_rng(0).normal(0, 0.1, round(LATENCY_S * SAMPLE_RATE))
    waveform = noise.astype(np.float32)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        embed(waveform)
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))  # the first two warm up


def _num_bytes(path: Path) -> int:
    """Returns the size of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@contextlib.contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` when the block ends, as `atomic_path` does.

    An older SavedModel of this name is moved aside first and removed last; a process killed
    between the two renames leaves none rather than half of one.

    Raises:
        VoiceprintError: If `path` exists and is not a SavedModel of this toolkit.
    """
    if path.exists() and not all(
        (path / name).is_file() for name in (SAVED_MODEL_FILE, METADATA_NAME)
    ):
        raise VoiceprintError(
            f"{path}: is there already and not a SavedModel of export.py; move it away, or choose "
            "another --output_dir"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    temporary, old = (path.with_name(f".{path.name}.{mark}.{end}") for end in ("tmp", "old.tmp"))
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as opened:
                    os.fsync(opened.fileno())
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

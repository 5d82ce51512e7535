"""Embeddings of many recordings, by workers on one machine or many, resumably.

Workers return what they found; the driver appends it to a journal beside the output. A run that was
killed repeats only the tasks that were under way.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from utils.audio.activity import remove_silence
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE
from utils.corpus.embedding_file import (
    EmbeddingFile,
    StoredEmbedding,
    pack,
    sha256_of,
    stamp_of,
    unpack,
)
from utils.crops.augment import change_speed
from utils.engine.engine import Engine
from utils.errors import AudioError, ModelError, VoiceprintError
from utils.locks import only_process
from utils.model.encoder import SpeakerEncoder
from utils.model.header import ModelHeader, read_header
from utils.verification.conditions import embed_cuts

MIN_PARALLEL_CLIPS = 32
"""Fewer take less time than starting processes (about 1 s)."""

SHORTEST_S = 0.75
"""Seconds of speech that a teacher needs: fewer say too little about the voice."""

LONGEST_S = 10.0
"""Seconds from the start of an utterance that a teacher hears."""

RECORD = struct.Struct("<4sQ")
"""Begins a record of the journal: a mark, and the bytes that follow."""

MARK = b"VPJ1"

NUM_TOGETHER = 16
"""Results of a record of the journal: as many as a worker gets at once."""


@dataclass(frozen=True)
class EmbeddingTask:
    """What a worker does with each recording.

    Attributes:
        model_path: The model, where the workers find it.
        model_id: Its identity; a worker whose file is of another model refuses.
        cuts: Whether to embed 3 s and 1 s of speech too, for calibration.
        speeds: For a teacher: embed the start of each recording at these speeds, nothing else.
    """

    model_path: str
    model_id: str
    cuts: bool = False
    speeds: tuple[float, ...] = ()

    def __call__(self, path: str) -> StoredEmbedding | str:
        """Embeds a recording; returns in a line why it can't be used.

        Raises:
            ModelError: If the model is missing here, or another one.
        """
        encoder = _encoder(self.model_path, self.model_id)
        stamp = stamp_of(path)
        try:
            if self.speeds:
                entry = _embed_speeds(encoder, path, self.speeds)
            else:
                embedding, speech_s = encoder.embed_and_measure(path)
                entry = StoredEmbedding((), "", embedding, speech_s)
            if self.cuts:
                with contextlib.suppress(AudioError):  # Usable, but not under every condition.
                    entry.cuts = embed_cuts(encoder, path)
        except AudioError as error:
            return str(error)
        entry.sha256 = sha256_of(path)
        if stamp is None or stamp != stamp_of(path):
            return f"{path}: changed while it was read; embed it again"
        entry.stamp = stamp
        return entry

    def holds(self, entry: StoredEmbedding) -> bool:
        """Returns whether what is known of a recording is all that this task finds."""
        return bool(entry.cuts) or not (self.cuts or self.speeds)

    @property
    def key(self) -> str:
        """What the results depend on, beside the recordings."""
        return f"{self.model_id} cuts {self.cuts} speeds {list(self.speeds)}"


@dataclass
class Embedded:
    """Recordings that were embedded, by path, and why others could not be."""

    entries: dict[str, StoredEmbedding] = field(default_factory=dict)
    defects: dict[str, str] = field(default_factory=dict)


def embed_all(
    engine: Engine,
    task: EmbeddingTask,
    paths: Sequence[str],
    output: str | Path,
    progress: Callable[[int], object] = lambda num_done: None,
) -> Embedded:
    """Embeds recordings; what a run before had done is taken from its journal.

    Args:
        engine: Where the tasks run.
        task: What is done with each.
        paths: Audio files, all different.
        output: The file that the caller will write; the journal lies beside it until then.
        progress: Called with the number of recordings done since the last call.

    Raises:
        VoiceprintError: If another process is at the same output, or the journal can't be written;
            ModelError if a worker has another model.
    """
    journal = journal_path(output)
    found = Embedded()
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("ab+") as file, only_process(file, output):
            wanted = set(paths)
            for path, entry in _read_journal(file, task.key):
                if path in wanted and entry.stamp == stamp_of(path):
                    found.entries[path] = entry
            progress(len(found.entries))
            todo = [path for path in paths if path not in found.entries]
            news: dict[str, StoredEmbedding] = {}
            results = engine.map(task, todo, _crashed)
            try:
                for path, result in zip(todo, results, strict=True):
                    if isinstance(result, str):
                        found.defects[path] = result
                    else:
                        news[path] = found.entries[path] = result
                    if len(news) == NUM_TOGETHER:
                        _append(file, task.key, news)
                    progress(1)
            finally:
                _append(file, task.key, news)
    except OSError as error:
        raise VoiceprintError(f"{journal}: can't be written ({error.strerror})") from error
    return found


def journal_path(output: str | Path) -> Path:
    """Returns where results are kept until the output is written."""
    output = Path(output)
    return output.with_name(f"{output.name}.journal")


def _append(file: BinaryIO, key: str, entries: dict[str, StoredEmbedding]) -> None:
    """Writes a record of the journal, and empties what it was made of."""
    if entries:
        data = pack(EmbeddingFile(key, entries))
        file.write(RECORD.pack(MARK, len(data)) + data)
        file.flush()
        entries.clear()


def _read_journal(file: BinaryIO, key: str) -> Iterator[tuple[str, StoredEmbedding]]:
    """Yields the results of earlier runs of a task; what a kill cut off is removed."""
    file.seek(0)
    end = 0
    while len(start := file.read(RECORD.size)) == RECORD.size:
        mark, size = RECORD.unpack(start)
        data = file.read(size)
        if mark != MARK or len(data) < size:
            break
        try:
            content = unpack(data)
        except Exception:  # Damaged bytes make the readers raise almost anything.
            break
        end = file.tell()
        if content.model_id == key:
            yield from content.entries.items()
    file.seek(end)
    file.truncate()


def _crashed(path: str) -> str:
    return f"{path}: damaged audio: the decoder crashed"


def _embed_speeds(encoder: SpeakerEncoder, path: str, speeds: Sequence[float]) -> StoredEmbedding:
    """Returns the embeddings of an utterance at some speeds.

    Raises:
        AudioError: If it cannot be read or holds too little speech.
    """
    speech = remove_silence(load_audio(path, duration_s=LONGEST_S))
    seconds = len(speech) / SAMPLE_RATE
    if seconds < SHORTEST_S:
        raise AudioError(f"{path}: {seconds:.2f} s of speech, expected at least {SHORTEST_S} s")
    rows = [encoder.embed_waveform(change_speed(speech, speed), source=path) for speed in speeds]
    cuts = {str(speed): (row, seconds) for speed, row in zip(speeds, rows, strict=True)}
    return StoredEmbedding((), "", rows[0], seconds, cuts)


@functools.lru_cache(maxsize=1)
def _encoder(model_path: str, model_id: str) -> SpeakerEncoder:
    """Returns the model of this process, on one thread: more would round otherwise."""
    header = read_header(model_path)
    check_model(header, model_id)
    return SpeakerEncoder(header, 1)


def check_model(header: ModelHeader, model_id: str) -> None:
    """Raises ModelError if a model file is not the one that is meant."""
    if header.model_id != model_id:
        raise ModelError(
            f"{os.path.abspath(header.path)} is the model {header.model_id[:12]}, "  # noqa: PTH100
            f"expected {model_id[:12]} as the driver has; copy the model file again"
        )

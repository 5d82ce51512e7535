"""The file of embeddings: an npz archive or a Parquet file with a row for each recording.

It is a list, too: embed.py writes who speaks in each recording, so that a file is evaluated,
calibrated on and enrolled from without the recordings.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.corpus.lists import LabelledClip
from utils.errors import DataListError, VoiceprintError
from utils.parquet import MARK, from_parquet, to_parquet

PARQUET = ".parquet"

SUFFIXES = (".npz", PARQUET)

ABOUT = ("model_id", "cut")
"""Arrays that are no columns: they say something about the whole file."""

UNKNOWN = -1
"""Fills up what is not known of a stamp: no file has it."""

Stamp = tuple[int, ...]
"""What changes when a file does: size in bytes, times of change in ns, inode."""

Cut = tuple[FloatArray, float]
"""The embedding of a part of a recording, `(embedding_size,)`, and its seconds of speech."""


@dataclass
class StoredEmbedding:
    """What is known of one recording.

    Attributes:
        stamp: Of the file when it was embedded; shorter in files of earlier versions.
        sha256: Of its content; "" in files of earlier versions.
        embedding: Shape `(embedding_size,)`; NaN if only cuts are known.
        speech_s: Seconds in which somebody speaks, NaN if it is not known.
        cuts: Parts of the recording by their name, for calibration.
        clip: What its list says of it.
    """

    stamp: Stamp
    sha256: str
    embedding: FloatArray
    speech_s: float = float("nan")
    cuts: dict[str, Cut] = field(default_factory=dict)
    clip: LabelledClip | None = None

    @property
    def has_embedding(self) -> bool:
        """Whether all of the recording is embedded, and not only cuts."""
        return bool(np.isfinite(self.embedding).all())


@dataclass(frozen=True)
class EmbeddingFile:
    """The content of a file: embeddings by the path of the recording, all of one model."""

    model_id: str
    entries: dict[str, StoredEmbedding]


def is_embedding_file(path: str | Path) -> bool:
    """Returns whether a list is a file of embeddings, by its suffix."""
    return Path(path).suffix.lower() in SUFFIXES


def read_embedding_file(path: str | Path) -> EmbeddingFile:
    """Reads a file of embeddings.

    Raises:
        DataListError: If it is missing or no such file.
    """
    try:
        return unpack(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise DataListError(
            f"{path}: no such file of embeddings, expected one that embed.py wrote"
        ) from error
    except VoiceprintError:
        raise
    except Exception as error:
        # Damaged bytes make the zip and NumPy readers raise almost anything.
        raise DataListError(
            f"{path}: not a file of embeddings that embed.py wrote; write it again"
        ) from error


def pack(content: EmbeddingFile, suffix: str = "") -> bytes:
    """Returns the bytes of a file; the same content gives the same bytes.

    It is an npz archive, or Parquet if its name ends so. The arrays are `path` `(num_clips,)`,
    `embedding` `(num_clips, embedding_size)` float32, `stamp` `(num_clips, 4)`, `sha256` and
    `model_id`. Where it is known: `speech_s`; `cut` `(num_cuts,)`, `cut_embedding`
    `(num_clips, num_cuts, embedding_size)` and `cut_speech_s`; `label`, `speaker`, `corpus`, `sex`,
    `language` and `seconds` of each recording.
    """
    entries = list(content.entries.values())
    arrays: dict[str, Any] = {
        "path": np.array(list(content.entries)),
        "stamp": np.array(
            [(*entry.stamp, *[UNKNOWN] * (4 - len(entry.stamp))) for entry in entries], np.int64
        ),
        "sha256": np.array([entry.sha256 for entry in entries]),
        "embedding": np.stack([entry.embedding for entry in entries]),
        "model_id": np.array(content.model_id),
    }
    speech_s = np.array([entry.speech_s for entry in entries], np.float32)
    if np.isfinite(speech_s).any():
        arrays["speech_s"] = speech_s
    arrays |= _pack_cuts(entries)
    clips = [entry.clip for entry in entries if entry.clip is not None]
    if len(clips) == len(entries):
        arrays["label"] = np.array([clip.label for clip in clips], np.int64)
        for name in ("speaker", "corpus", "sex", "language"):
            arrays[name] = np.array([getattr(clip, name) for clip in clips])
        seconds = [np.nan if clip.seconds is None else clip.seconds for clip in clips]
        arrays["seconds"] = np.array(seconds)
    if suffix.lower() == PARQUET:
        return to_parquet(arrays, ABOUT)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _pack_cuts(entries: list[StoredEmbedding]) -> dict[str, Any]:
    """Returns the arrays of the cuts; NaN where a recording lacks one."""
    names = list(dict.fromkeys(name for entry in entries for name in entry.cuts))
    if not names:
        return {}
    size = len(next(cut[0] for entry in entries for cut in entry.cuts.values()))
    none = (np.full(size, np.nan, np.float32), np.nan)
    cuts = [[entry.cuts.get(name, none) for name in names] for entry in entries]
    return {
        "cut": np.array(names),
        "cut_embedding": np.array([[cut[0] for cut in row] for row in cuts], np.float32),
        "cut_speech_s": np.array([[cut[1] for cut in row] for row in cuts]),
    }


def unpack(data: bytes) -> EmbeddingFile:
    """Returns the content of a file; anything but its bytes raises almost anything."""
    arrays: dict[str, npt.NDArray[Any]]
    if data.startswith(MARK):
        arrays = from_parquet(data, ABOUT)
    else:
        # From memory: NumPy leaves a damaged file open.
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    names, stamps = arrays["path"], np.asarray(arrays["stamp"], np.int64)
    embeddings = np.asarray(arrays["embedding"], np.float32)
    count = len(names)
    if embeddings.ndim != 2 or stamps.ndim != 2 or count != len(stamps):
        raise ValueError(f"stamps {stamps.shape}, embeddings {embeddings.shape}")
    hashes = arrays.get("sha256", np.full(count, ""))
    speech_s = np.asarray(arrays.get("speech_s", np.full(count, np.nan)), np.float64)
    rows = zip(names, stamps.tolist(), hashes, embeddings, speech_s.tolist(), strict=True)
    entries = {
        str(name): StoredEmbedding(tuple(stamp), str(sha256), embedding, seconds)
        for name, stamp, sha256, embedding, seconds in rows
    }
    _add_cuts(list(entries.values()), arrays)
    _add_clips(entries, arrays)
    return EmbeddingFile(str(arrays["model_id"]), entries)


def _add_cuts(entries: list[StoredEmbedding], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Gives the recordings their cuts, if there are any."""
    names = [str(name) for name in arrays.get("cut", ())]
    for column, name in enumerate(names):
        parts = np.asarray(arrays["cut_embedding"][:, column], np.float32)
        speech_s = arrays["cut_speech_s"][:, column].tolist()
        for entry, part, seconds in zip(entries, parts, speech_s, strict=True):
            if np.isfinite(part).all():
                entry.cuts[name] = (part, seconds)


def _add_clips(entries: dict[str, StoredEmbedding], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Gives the recordings what their list says, if it is there."""
    if "label" not in arrays:
        return
    names = ("label", "speaker", "corpus", "sex", "language", "seconds")
    columns = [arrays[name].tolist() for name in names]
    for (path, entry), row in zip(entries.items(), zip(*columns, strict=True), strict=True):
        label, speaker, corpus, sex, language, seconds = row
        known = None if np.isnan(seconds) else seconds
        entry.clip = LabelledClip(path, label, corpus, sex, language, known, speaker)


def stamp_of(path: str | Path) -> Stamp | None:
    """Returns size, times and inode of a file, or None if it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def sha256_of(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content in hexadecimal; nothing if it cannot be read."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return ""

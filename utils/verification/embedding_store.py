"""A file of the embeddings of recordings, so that they need not be computed again.

eval.py keeps those of a list's clips in one, and voices/folder.py those of its recordings.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.errors import VoiceprintError
from utils.files import write_bytes_atomically

Stamp = tuple[int, ...]
"""What changes when a file does: size in bytes, times of change in ns, inode."""


@dataclass
class _Entry:
    """What is known of one recording; files of earlier versions hold no content's hash."""

    stamp: Stamp
    sha256: str
    embedding: FloatArray


class EmbeddingStore:
    """Embeddings of recordings by one model.

    The file is an npz archive: `path` `(num_clips,)`, `embedding` `(num_clips, embedding_size)`
    float32 as the model gave it, `stamp` `(num_clips, 4)` and `sha256` `(num_clips,)` of each
    recording, and `model_id`. It serves as a teacher file too. An embedding counts as long as the
    stamp of its recording is the same, or else the content (a copied, restored or touched file).

    Attributes:
        is_of_other_model: Whether the file held embeddings of another model; saving drops them.
    """

    def __init__(self, path: str | Path, model_id: str, *, is_cache: bool = False) -> None:
        """Reads the file if there is one; a cache is not read before `load`.

        Args:
            path: The npz file.
            model_id: Identity of the model in use. Empty takes the file's, to drop entries.
            is_cache: Recordings lie in the file's folder and are named relative to it, so that
                both can be moved. A file that cannot be read or written is as good as none.

        Raises:
            VoiceprintError: If it is no cache, and the file is there and is no embedding store, or
                its folder can't be made.
        """
        self.path = Path(path)
        self.model_id = model_id
        self.is_of_other_model = False
        self._is_cache = is_cache
        self._entries: dict[str, _Entry] = {}
        self._asked: dict[str, Stamp | None] = {}
        self._is_changed = False
        self._read_stamp: Stamp | None = None
        if is_cache:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VoiceprintError(f"{path}: can't be written ({error.strerror})") from error
        self.load()

    def load(self) -> None:
        """Reads the file, unless it is the one that was read or written last."""
        stamp = _stamp(self.path)
        if stamp is None or stamp == self._read_stamp:
            return
        self._read_stamp = stamp
        try:
            self._read()
            self._is_changed = False
        except Exception as error:
            # Damaged bytes make the zip and NumPy readers raise almost anything.
            if not self._is_cache:
                raise VoiceprintError(
                    f"{self.path}: not a file of embeddings that eval.py wrote; it is left as it "
                    "is, give another name"
                ) from error
            # A cache is made again, so that nothing of a foreign file stays behind.
            self._is_changed = True

    def _read(self) -> None:
        """Takes the entries of the file if they are of the model in use."""
        # From memory: NumPy leaves a damaged file open.
        with np.load(io.BytesIO(self.path.read_bytes()), allow_pickle=False) as archive:
            stored_id = str(archive["model_id"])
            names, stamps = archive["path"], np.asarray(archive["stamp"], np.int64)
            embeddings = np.asarray(archive["embedding"], np.float32)
            hashes = archive["sha256"] if "sha256" in archive else [""] * len(names)
        if embeddings.ndim != 2 or stamps.ndim != 2 or len(names) != len(stamps):
            raise ValueError(f"stamps {stamps.shape}, embeddings {embeddings.shape}")
        lengths = np.linalg.norm(embeddings, axis=1)
        if self._is_cache and not np.allclose(lengths, 1.0, atol=1e-3):
            raise ValueError("expected embeddings of unit length")
        self.is_of_other_model = self.model_id not in ("", stored_id)
        if self.is_of_other_model:
            if self._is_cache:
                raise ValueError("embeddings of another model")
            return
        self.model_id = stored_id
        rows = zip(names, stamps.tolist(), hashes, embeddings, strict=True)
        self._entries = {
            str(name): _Entry(tuple(stamp), str(sha256), embedding)
            for name, stamp, sha256, embedding in rows
        }

    def get(self, recording: str | Path) -> FloatArray | None:
        """Returns the embedding of a recording as it is now, shape `(embedding_size,)`, or None."""
        key = self._key(recording)
        stamp = self._asked[key] = _stamp(recording)
        entry = self._entries.get(key)
        if entry is None or stamp is None:
            return None
        if stamp == entry.stamp:
            return entry.embedding
        # Stamps of earlier versions are shorter: size and time of change.
        if stamp[: len(entry.stamp)] != entry.stamp and (
            stamp[0] != entry.stamp[0] or _sha256(recording) != entry.sha256
        ):
            return None
        entry.stamp = stamp
        self._is_changed = True
        return entry.embedding

    def put(self, recording: str | Path, embedding: FloatArray) -> None:
        """Sets the embedding of a recording, shape `(embedding_size,)`.

        It is that of the recording as `get` found it, if it was asked; nothing is kept if the
        recording is gone or another one since.
        """
        key = self._key(recording)
        stamp = self._asked[key] if key in self._asked else _stamp(recording)
        sha256 = _sha256(recording)
        if stamp is None or stamp != _stamp(recording):
            return
        self._entries[key] = _Entry(stamp, sha256, np.asarray(embedding, np.float32))
        self._is_changed = True

    def keep_only(self, recordings: Iterable[str | Path]) -> None:
        """Drops the embeddings of all other recordings."""
        self._drop(self._entries.keys() - set(map(self._key, recordings)))

    def drop(self, recordings: Iterable[str | Path]) -> None:
        """Drops the embeddings of these recordings."""
        self._drop(self._entries.keys() & set(map(self._key, recordings)))

    def save(self) -> None:
        """Writes the file in one step, if anything has changed; a cache of nothing is removed.

        Raises:
            VoiceprintError: If it is no cache, and the place can't be written to.
        """
        if not self._is_changed:
            return
        try:
            if self._entries:
                write_bytes_atomically(self.path, self._packed())
            elif self._is_cache:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            # The recordings are the truth: without a cache the next start is slower, nothing else.
            if not self._is_cache:
                raise VoiceprintError(
                    f"{self.path}: can't be written ({error.strerror})"
                ) from error
        self._read_stamp = _stamp(self.path)
        self._is_changed = False

    def _packed(self) -> bytes:
        """Returns the content of the file."""
        entries = list(self._entries.values())
        # What an earlier version wrote and nobody asked for since: -1 is no file's.
        stamps = [(*entry.stamp, *[-1] * (4 - len(entry.stamp))) for entry in entries]
        buffer = io.BytesIO()
        np.savez(
            buffer,
            path=np.array(list(self._entries)),
            stamp=np.array(stamps, np.int64),
            sha256=np.array([entry.sha256 for entry in entries]),
            embedding=np.stack([entry.embedding for entry in entries]),
            model_id=np.array(self.model_id),
        )
        return buffer.getvalue()

    def _drop(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            del self._entries[key]
            self._is_changed = True

    def _key(self, recording: str | Path) -> str:
        # Strings: paths of pathlib take ten times as long, and there may be many thousands.
        name = os.fspath(recording)
        if not self._is_cache:
            return name
        return name.removeprefix(f"{self.path.parent}{os.sep}").replace(os.sep, "/")


def _stamp(path: str | Path) -> Stamp | None:
    """Returns size, times and inode of a file, or None if it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content in hexadecimal; nothing if it cannot be read."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return ""

"""A file of embeddings that need not be computed again, for the recordings of one folder."""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.files import atomic_path

CACHE_NAME = ".embeddings.npz"
"""Name of the cache file in its folder; hidden, and safe to remove."""


@dataclass
class _Entry:
    """What is known of one recording."""

    stamp: list[int]
    sha256: str
    embedding: FloatArray


class EmbeddingCache:
    """Embeddings of recordings by one model, kept in one file.

    An entry counts as long as size, times and inode of its recording are the same, or else its
    content is (copied, restored or touched files). A cache of another model, a damaged one and
    one that cannot be read are the same as none.
    """

    def __init__(self, path: str | Path, model_id: str) -> None:
        """Opens a cache; nothing is read before `load`.

        Args:
            path: The cache file; keys are paths relative to its folder.
            model_id: Which model the embeddings come from. Empty takes whatever model the file
                has, in order to remove entries.
        """
        self.path = Path(path)
        self.model_id = model_id
        self._entries: dict[str, _Entry] = {}
        self._is_changed = False
        self._read_stamp: list[int] | None = None

    def load(self) -> None:
        """Reads the file unless it is the one that was read or written last."""
        stamp = file_stamp(self.path)
        if stamp is None or stamp == self._read_stamp:
            return
        self._read_stamp = stamp
        try:
            self._entries = self._read()
            self._is_changed = False
        except Exception:
            # Damaged bytes make the zip and NumPy readers raise almost anything. Whatever it is,
            # the file can be made again, and is, so that nothing of a foreign one stays behind.
            self._is_changed = True

    def _read(self) -> dict[str, _Entry]:
        """Returns the entries of the file, or raises whatever tells that it is of no use."""
        # From memory: NumPy leaves a damaged file open.
        with np.load(io.BytesIO(self.path.read_bytes()), allow_pickle=False) as file:
            index = json.loads(str(file["index"]))
            embeddings = np.asarray(file["embeddings"], dtype=np.float32)
        if self.model_id not in ("", index["model_id"]):
            raise ValueError("the cache of another model")
        lengths = np.linalg.norm(embeddings, axis=1)
        if embeddings.ndim != 2 or not np.allclose(lengths, 1.0, atol=1e-3):
            raise ValueError(f"expected unit-length embeddings, received {embeddings.shape}")
        self.model_id = str(index["model_id"])
        return {
            str(name): _Entry([int(number) for number in stamp], str(sha256), embedding)
            for (name, stamp, sha256), embedding in zip(index["entries"], embeddings, strict=True)
        }

    def save(self) -> None:
        """Writes the file in one step if anything changed; a folder that refuses keeps none."""
        if not self._is_changed:
            return
        entries = [[name, entry.stamp, entry.sha256] for name, entry in self._entries.items()]
        index = json.dumps({"model_id": self.model_id, "entries": entries})
        embeddings = [entry.embedding for entry in self._entries.values()]
        # The recordings are the truth: without a cache the next start is slower, nothing else.
        with contextlib.suppress(OSError):
            if not entries:
                self.path.unlink(missing_ok=True)
            else:
                with atomic_path(self.path) as temporary:
                    np.savez(temporary, index=np.array(index), embeddings=np.stack(embeddings))
        self._read_stamp = file_stamp(self.path)
        self._is_changed = False

    def get(self, recording: Path) -> FloatArray | None:
        """Returns the embedding of a recording as it is now, shape `(embedding_size,)`, or None."""
        entry = self._entries.get(self._key(recording))
        if entry is None:
            return None
        stamp = file_stamp(recording)
        if stamp is None:
            return None
        if stamp != entry.stamp:
            if stamp[0] != entry.stamp[0] or _sha256(recording) != entry.sha256:
                return None
            entry.stamp = stamp
            self._is_changed = True
        return entry.embedding

    def put(self, recording: Path, embedding: FloatArray, stamp: list[int] | None) -> None:
        """Sets the embedding of a recording.

        Args:
            recording: A file under the cache's folder.
            embedding: Unit length, shape `(embedding_size,)`.
            stamp: The recording's `file_stamp` from before it was embedded. If the file is gone
                or another one since, nothing is kept.
        """
        sha256 = _sha256(recording)
        if stamp is None or stamp != file_stamp(recording):
            return
        entry = _Entry(stamp, sha256, np.asarray(embedding, np.float32))
        self._entries[self._key(recording)] = entry
        self._is_changed = True

    def keep_only(self, recordings: Iterable[Path]) -> None:
        """Forgets the embeddings of all other recordings."""
        self._forget(self._entries.keys() - {self._key(path) for path in recordings})

    def remove(self, recordings: Iterable[Path]) -> None:
        """Forgets the embeddings of these recordings."""
        self._forget(self._entries.keys() & {self._key(path) for path in recordings})

    def _forget(self, names: Iterable[str]) -> None:
        for name in list(names):
            del self._entries[name]
            self._is_changed = True

    def _key(self, recording: Path) -> str:
        return recording.relative_to(self.path.parent).as_posix()


def file_stamp(path: Path) -> list[int] | None:
    """Returns what changes when a file does: size, times in ns, inode; None without the file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content in hexadecimal."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""

"""A file of the embeddings of a list's clips, to score the list again or to teach another model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.errors import VoiceprintError
from utils.files import write_bytes_atomically

Stamp = tuple[int, int]


class EmbeddingStore:
    """A file of embeddings, so that a list is scored again without reading its audio again.

    The file is an npz archive: `path` `(num_clips,)` as in the lists, `embedding`
    `(num_clips, embedding_size)` float32 as the model gave it, `stamp` `(num_clips, 2)` with size
    in bytes and time of change in ns of each audio file, and `model_id`. Embeddings of another
    model and of changed audio files are not reused. It serves as a teacher file too.

    Attributes:
        is_of_other_model: Whether the file held embeddings of another model; saving drops them.
    """

    def __init__(self, path: str | Path, model_id: str) -> None:
        """Reads the file if there is one.

        Args:
            path: The npz file.
            model_id: Identity of the model in use.

        Raises:
            VoiceprintError: If the file is there and is no embedding store, or its folder can't be
                made.
        """
        self.path = Path(path)
        self.model_id = model_id
        self.is_of_other_model = False
        self._entries: dict[str, tuple[Stamp, FloatArray]] = {}
        self._stamps: dict[str, Stamp | None] = {}
        if self.path.exists():
            self._read()
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VoiceprintError(f"{path}: can't be written ({error.strerror})") from error

    def _read(self) -> None:
        """Takes the entries of the file if they are of the model in use."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                stored_id = str(archive["model_id"])
                names, stamps = archive["path"], np.asarray(archive["stamp"], np.int64)
                embeddings = np.asarray(archive["embedding"], np.float32)
            if embeddings.ndim != 2 or stamps.shape != (len(embeddings), 2):
                raise ValueError(f"stamps {stamps.shape}, embeddings {embeddings.shape}")
            entries = zip(names, stamps, embeddings, strict=True)
            stored = {
                str(name): ((int(size), int(changed_ns)), embedding)
                for name, (size, changed_ns), embedding in entries
            }
        except Exception as error:
            # Whatever is wrong with it: somebody else's file must not be overwritten.
            raise VoiceprintError(
                f"{self.path}: not a file of embeddings that eval.py wrote; it is left as it is, "
                "give another name"
            ) from error
        self.is_of_other_model = stored_id != self.model_id
        if not self.is_of_other_model:
            self._entries = stored

    def get(self, path: str) -> FloatArray | None:
        """Returns the embedding of an audio file, or None if it is unknown or has changed."""
        self._stamps[path] = _stamp(path)
        stamp, embedding = self._entries.get(path, (None, None))
        return embedding if stamp is not None and stamp == self._stamps[path] else None

    def put(self, path: str, embedding: FloatArray) -> None:
        """Sets the embedding of an audio file, as the file was when `get` was asked for it."""
        stamp = self._stamps.get(path)
        if stamp is not None:
            self._entries[path] = stamp, embedding

    def save(self) -> None:
        """Writes the file in one step.

        Raises:
            VoiceprintError: If the place can't be written to.
        """
        if not self._entries:
            return
        buffer = io.BytesIO()
        np.savez(
            buffer,
            path=np.array(list(self._entries)),
            stamp=np.array([stamp for stamp, _ in self._entries.values()], np.int64),
            embedding=np.stack([embedding for _, embedding in self._entries.values()]),
            model_id=np.array(self.model_id),
        )
        try:
            write_bytes_atomically(self.path, buffer.getvalue())
        except OSError as error:
            raise VoiceprintError(f"{self.path}: can't be written ({error.strerror})") from error


def _stamp(path: str) -> Stamp | None:
    """Returns size in bytes and time of change in ns of a file, or None if it is not there."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns

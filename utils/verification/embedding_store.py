"""Embeddings of recordings by one model, so that they need not be computed again.

eval.py and embed.py keep those of a list's clips, and voices/folder.py those of its recordings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.corpus.embedding_file import (
    Cut,
    EmbeddingFile,
    Stamp,
    StoredEmbedding,
    is_embedding_file,
    pack,
    sha256_of,
    stamp_of,
    unpack,
)
from utils.errors import DataListError, VoiceprintError
from utils.files import write_bytes_atomically


class EmbeddingStore:
    """Embeddings of recordings by one model.

    The file is that of `utils.corpus.embedding_file`. It serves as a teacher file too. An embedding
    counts as long as the stamp of its recording is the same, or else the content (a copied,
    restored or touched file).

    Attributes:
        is_source: Whether it is a list itself: its recordings need not be there, and nothing is
            written.
        is_of_other_model: Whether the file held embeddings of another model; saving drops them.
    """

    def __init__(self, path: str | Path, model_id: str, *, is_cache: bool = False) -> None:
        """Reads the file if there is one; a cache is not read before `load`.

        Args:
            path: The file, npz or Parquet.
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
        self.is_source = False
        self._entries: dict[str, StoredEmbedding] = {}
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

    @classmethod
    def of_source(cls, source: str | Path, model_id: str) -> EmbeddingStore | None:
        """Returns the embeddings of a list that is a file of them, None for any other list.

        Its recordings need not be there.

        Raises:
            DataListError: If they are of another model.
        """
        if not is_embedding_file(source):
            return None
        store = cls(source, model_id)
        store.is_source = True
        if store.is_of_other_model:
            raise DataListError(
                f"{source}: embeddings of another model, expected those of {model_id[:12]}; run "
                "embed.py with this model, or give --model_path"
            )
        return store

    def load(self) -> None:
        """Reads the file, unless it is the one that was read or written last."""
        stamp = stamp_of(self.path)
        if stamp is None or stamp == self._read_stamp:
            return
        self._read_stamp = stamp
        try:
            self._read()
            self._is_changed = False
        except VoiceprintError:
            raise
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
        content = unpack(self.path.read_bytes())
        rows = [entry.embedding for entry in content.entries.values()]
        if self._is_cache and not np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-3):
            raise ValueError("expected embeddings of unit length")
        self.is_of_other_model = self.model_id not in ("", content.model_id)
        if self.is_of_other_model:
            if self._is_cache:
                raise ValueError("embeddings of another model")
            return
        self.model_id = content.model_id
        self._entries = content.entries

    @property
    def num_recordings(self) -> int:
        """How many recordings are embedded."""
        return len(self._entries)

    @property
    def has_cuts(self) -> bool:
        """Whether parts of any recording are embedded."""
        return any(entry.cuts for entry in self._entries.values())

    def get(self, recording: str | Path) -> FloatArray | None:
        """Returns the embedding of a recording as it is now, shape `(embedding_size,)`, or None."""
        entry = self.find(recording)
        return entry.embedding if entry is not None and entry.has_embedding else None

    def find(self, recording: str | Path) -> StoredEmbedding | None:
        """Returns all that is known of a recording as it is now, or None."""
        key = self._key(recording)
        if self.is_source:
            return self._entries.get(key)
        stamp = self._asked[key] = stamp_of(recording)
        entry = self._entries.get(key)
        if entry is None or stamp is None:
            return None
        if stamp == entry.stamp:
            return entry
        # Stamps of earlier versions are shorter: size and time of change.
        if stamp[: len(entry.stamp)] != entry.stamp and (
            stamp[0] != entry.stamp[0] or sha256_of(recording) != entry.sha256
        ):
            return None
        entry.stamp = stamp
        self._is_changed = True
        return entry

    def put(self, recording: str | Path, embedding: FloatArray) -> None:
        """Sets the embedding of a recording, shape `(embedding_size,)`.

        It is that of the recording as `get` found it, if it was asked; nothing is kept if the
        recording is gone or another one since.
        """
        entry = self._new_entry(recording, np.asarray(embedding, np.float32))
        if entry is not None:
            self.insert(recording, entry)

    def put_cuts(self, recording: str | Path, cuts: dict[str, Cut]) -> None:
        """Sets the embeddings of parts of a recording, as `put` does that of all of it."""
        known = self.find(recording)
        if known is None:
            size = len(next(iter(cuts.values()))[0])
            known = self._new_entry(recording, np.full(size, np.nan, np.float32))
        if known is not None:
            known.cuts = known.cuts | cuts
            self.insert(recording, known)

    def insert(self, recording: str | Path, entry: StoredEmbedding) -> None:
        """Sets all that is known of a recording."""
        self._entries[self._key(recording)] = entry
        self._is_changed = True

    def _new_entry(self, recording: str | Path, embedding: FloatArray) -> StoredEmbedding | None:
        """Returns an entry for a recording, None if it is not the one that was asked for."""
        key = self._key(recording)
        stamp = self._asked[key] if key in self._asked else stamp_of(recording)
        sha256 = sha256_of(recording)
        if stamp is None or stamp != stamp_of(recording):
            return None
        return StoredEmbedding(stamp, sha256, embedding)

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
        if not self._is_changed or self.is_source:
            return
        try:
            if self._entries:
                content = pack(EmbeddingFile(self.model_id, self._entries), self.path.suffix)
                write_bytes_atomically(self.path, content)
            elif self._is_cache:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            # The recordings are the truth: without a cache the next start is slower, nothing else.
            if not self._is_cache:
                raise VoiceprintError(
                    f"{self.path}: can't be written ({error.strerror})"
                ) from error
        self._read_stamp = stamp_of(self.path)
        self._is_changed = False

    def put_in_order(self, recordings: Iterable[str | Path]) -> None:
        """Drops all other recordings, and sorts the entries by the order of these."""
        order = {self._key(recording): None for recording in recordings}
        sorted_entries = {key: self._entries[key] for key in order if key in self._entries}
        if list(sorted_entries) != list(self._entries):
            self._entries = sorted_entries
            self._is_changed = True

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

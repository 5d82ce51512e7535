"""The voice database: who is enrolled in `audio_db/`, and whose voice a recording is.

One speaker is `NAME.wav`, any number of recordings in `NAME/`, or both; the files are the truth.
Embeddings are kept in one hidden cache file and computed again only for files that changed or for
another model. Everything is written under a hidden temporary name and renamed, so that a process
killed at any moment leaves each recording whole or absent, and an enrolled voice enrolled.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.waveform import write_wav
from utils.errors import AudioError, DatabaseError, FileBlockedError
from utils.speaker_names import AUDIO_SUFFIXES, MAX_NAME_BYTES, clean_name, fold_name
from voices.cache import CACHE_NAME, EmbeddingCache, file_stamp
from voices.store import Encoder, Voiceprints

__all__ = [
    "DATABASE_VARIABLE",
    "MAX_NAME_BYTES",
    "VoiceprintDatabase",
    "Voiceprints",
    "choose_target",
    "clean_name",
    "open_database",
    "public_name",
]

DATABASE_VARIABLE = "VOICEPRINT_DATABASE"
"""Environment variable with a database's address: a command line could be read by others."""

LEFTOVER_AGE_S = 3600.0
"""Seconds. A hidden temporary file older than this belongs to a killed process and is removed."""

PROGRESS_MIN_FILES = 20
"""Embedding fewer files than this is done before a progress bar would help."""


def open_database(
    target: str | Path, encoder: Any = None, *, keep_audio: bool = False, create: bool = True
) -> Voiceprints:
    """Opens a voice database by its address.

    Args:
        target: `sqlite:///PATH`, `postgresql://USER:PASSWORD@HOST/DATABASE`, or a folder of
            recordings. The key of an encrypted database is read from the environment.
        encoder: The speaker model. Without one, listing and deleting work.
        keep_audio: Whether an SQL database stores the sound too; a folder always does.
        create: Make an SQL database that is missing; a folder is made when it is needed.

    Raises:
        DatabaseError: If an SQL database cannot be opened, or its packages are not installed.
    """
    if "://" not in str(target):
        return VoiceprintDatabase(target, encoder)
    # SQLAlchemy takes 0.3 s to import: those who use a folder do not wait for it.
    try:
        from voices.sql.cipher import read_key
        from voices.sql.store import SqlVoiceprintDatabase
    except ModuleNotFoundError as error:
        raise DatabaseError(
            f"{public_name(str(target))} needs the package {error.name}; "
            "pip install -r requirements-service.txt"
        ) from error
    options: dict[str, Any] = {"key": read_key(), "keep_audio": keep_audio, "create": create}
    return SqlVoiceprintDatabase(str(target), encoder, **options)


def choose_target(database: str | None, audio_db: str | None) -> tuple[str, str]:
    """Returns the voice database that the options --database and --audio_db mean.

    Args:
        database: An address or a folder.
        audio_db: A folder; without both the environment is asked, and then "audio_db" is taken.

    Returns:
        The target for `open_database`, and the same without user, password and options.
    """
    target = database or audio_db or os.environ.get(DATABASE_VARIABLE) or "audio_db"
    return target, public_name(target)


def public_name(target: str) -> str:
    """Returns the address of a database without user, password and options; a folder as it is."""
    if "://" not in target or target.startswith("sqlite"):
        return target
    # By hand: a password may hold / ? # or [, which urlsplit takes for the end of the host.
    return re.sub("://([^/?@]*|[^:/?@]*:.*)@", "://", target).partition("?")[0]


class VoiceprintDatabase:
    """The enrolled speakers of a folder; its only reader and writer.

    Attributes:
        rejected: `(path, reason)` of recordings that `load` could not use.
    """

    def __init__(self, folder: str | Path, encoder: Encoder | None = None) -> None:
        """Opens a database; nothing is read before it is asked for.

        Args:
            folder: Where the recordings are; made at the first enrolment.
            encoder: The speaker model. Without one, listing and deleting work.
        """
        self.folder = Path(folder)
        self.rejected: list[tuple[Path, str]] = []
        self._encoder = encoder
        self._cache = EmbeddingCache(self.folder / CACHE_NAME, encoder.model_id if encoder else "")
        self._embeddings: dict[str, FloatArray] = {}

    def load(self) -> list[str]:
        """Reads all recordings, as far as possible from the cache, and returns the speakers.

        Recordings that cannot be used are collected in `rejected`; a speaker without any usable
        one is left out.

        Returns:
            Names in alphabetical order.

        Raises:
            DatabaseError: If the folder cannot be read.
        """
        encoder = self._require_encoder()
        self.rejected = []
        self.remove_leftovers()
        speakers = self._scan()
        paths = [path for recordings in speakers.values() for path in recordings]
        self._cache.load()
        missing = [path for path in paths if self._cache.get(path) is None]
        # Stamped before they are read: a file that changes meanwhile is read again next time.
        stamps = [file_stamp(path) for path in missing]
        for index, result in self._embed(encoder, missing):
            if isinstance(result, AudioError):
                self.rejected.append((missing[index], str(result)))
            else:
                self._cache.put(missing[index], result, stamps[index])
        self._cache.keep_only(paths)
        self._cache.save()
        self._embeddings = {}
        for name, recordings in speakers.items():
            self._update_speaker(name, recordings)
        return list(self._embeddings)

    def names(self) -> list[str]:
        """Returns the enrolled speakers in alphabetical order, from the folder alone."""
        return list(self._scan())

    def recordings(self, name: str) -> list[Path]:
        """Returns the recordings of a speaker, `NAME.wav` first; empty if nobody has the name."""
        found = self.find(name)
        return self._scan()[found] if found else []

    def find(self, name: str) -> str | None:
        """Returns the enrolled name that equals `name`, else one that differs in case, else None.

        Many file systems cannot keep "Tom" and "tom" apart, so neither does the database.

        Raises:
            DatabaseError: If `name` cannot be a name.
        """
        name = clean_name(name)
        names = self.names()
        if name in names:
            return name
        return next((other for other in names if fold_name(other) == fold_name(name)), None)

    def add(self, name: str, *waveforms: FloatArray) -> list[Path]:
        """Enrols a speaker, or adds recordings to an enrolled one.

        Args:
            name: Any name that `clean_name` accepts.
            *waveforms: Shape `(num_samples,)` each, 16 kHz.

        Returns:
            The new files: `NAME.wav` for a new speaker's first recording, else in `NAME/`.

        Raises:
            AudioError: If a recording has too little speech; nothing is written then.
            DatabaseError: If the name is unusable or the folder cannot be written.
        """
        found = self.find(name)
        return self._store(found or clean_name(name), waveforms, is_first=found is None)

    def replace(self, name: str, *waveforms: FloatArray) -> list[Path]:
        """Puts new recordings in the place of all recordings of an enrolled speaker.

        The old ones are removed only when the new ones are on the disk.

        Args, Returns, Raises: As `add`; DatabaseError also if nobody has the name.
        """
        found = self._require(name)
        old = self.recordings(found)
        new = self._store(found, waveforms, is_first=True)
        # Two spellings can be one file, where the file system ignores case or normal form.
        obsolete = [path for path in old if not any(path.samefile(other) for other in new)]
        self.discard(obsolete)
        self._update_speaker(found, new)
        return new

    def discard(self, recordings: Sequence[Path]) -> None:
        """Removes these recordings and nothing else; a folder that gets empty goes too.

        Raises:
            DatabaseError: If a file cannot be removed.
        """
        tops = {self.folder / path.relative_to(self.folder).parts[0] for path in recordings}
        # The cache goes first: no voiceprint outlives its owner's recordings.
        self.forget_embeddings(recordings)
        self._remove(list(recordings))
        folders = [path for top in tops for path in (top, *top.rglob("*")) if path.is_dir()]
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError):  # not empty: something else is in it
                folder.rmdir()

    def forget_embeddings(self, recordings: Sequence[Path]) -> None:
        """Removes the embeddings of these recordings from the cache; the files stay."""
        self._cache.load()
        self._cache.remove(recordings)
        self._cache.save()

    def delete(self, name: str) -> list[Path]:
        """Removes a speaker: embeddings, recordings, and the folder with all that is in it.

        Returns:
            The files and folders that were removed.

        Raises:
            DatabaseError: If nobody has the name, or a file cannot be removed.
        """
        found = self._require(name)
        files = self._files(found)
        self._embeddings.pop(found, None)
        # The cache goes first: if the process dies in between, the speaker is still listed and
        # can be deleted again, and no voiceprint outlives its owner's recordings.
        self._cache.load()
        self._cache.remove(self._scan()[found])
        self._cache.save()
        return self._remove(files)

    def remove_leftovers(self) -> None:
        """Removes the temporary files of processes that were killed, never those in use."""
        oldest = time.time() - LEFTOVER_AGE_S
        for pattern in (".*.tmp.*", "*/.*.tmp.*"):
            for path in self.folder.glob(pattern):
                try:
                    if path.is_file() and path.stat().st_mtime < oldest:
                        path.unlink()
                except OSError:
                    # Another process may have removed it; a read-only folder keeps it.
                    continue

    def rank(self, embedding: FloatArray) -> list[tuple[str, float]]:
        """Compares an embedding with all speakers that `load` and `add` gave.

        Args:
            embedding: Unit length, shape `(embedding_size,)`.

        Returns:
            `(name, score)`, the best first; the score is the cosine in [-1, 1] to the speaker's
            normalised mean embedding.

        Raises:
            DatabaseError: If nobody is enrolled.
        """
        if not self._embeddings:
            raise DatabaseError(f"nobody is enrolled in {self.folder}; enrol a speaker first")
        names = list(self._embeddings)
        scores = np.clip(np.stack([self._embeddings[name] for name in names]) @ embedding, -1, 1)
        return [(names[index], float(scores[index])) for index in np.argsort(-scores)]

    def _embed(
        self, encoder: Encoder, paths: list[Path]
    ) -> Iterator[tuple[int, FloatArray | AudioError]]:
        """Embeds files, with a progress bar on stderr if there are many."""
        from tqdm import tqdm

        is_short = len(paths) < PROGRESS_MIN_FILES
        results = encoder.embed_files(paths, on_error="skip")
        yield from tqdm(results, total=len(paths), disable=is_short, unit="file")

    def _store(self, name: str, waveforms: Sequence[FloatArray], *, is_first: bool) -> list[Path]:
        """Embeds recordings, writes them, and takes both into the memory and the cache."""
        encoder = self._require_encoder()
        embeddings = [encoder.embed_waveform(waveform, source=name) for waveform in waveforms]
        stem = f"{datetime.now():%Y%m%d-%H%M%S-%f}"
        paths = [self.folder / name / f"{stem}-{i}.wav" for i in range(1, len(waveforms) + 1)]
        if is_first:
            paths[0] = self.folder / f"{name}.wav"
        self._cache.load()
        for path, waveform, embedding in zip(paths, waveforms, embeddings, strict=True):
            try:
                write_wav(path, waveform)
            except OSError as error:
                raise DatabaseError(f"{path}: cannot be written ({error.strerror})") from error
            self._cache.put(path, embedding, file_stamp(path))
        self._cache.save()
        self._update_speaker(name, self._scan().get(name, paths))
        return paths

    def _update_speaker(self, name: str, recordings: list[Path]) -> None:
        """Sets a speaker's embedding to the normalised mean of the recordings that have one."""
        found = [self._cache.get(path) for path in recordings]
        usable = [embedding for embedding in found if embedding is not None]
        if not usable:
            self._embeddings.pop(name, None)
            return
        mean = np.mean(usable, axis=0)
        # Opposite embeddings could cancel out; the floor keeps the division defined.
        self._embeddings[name] = (mean / max(float(np.linalg.norm(mean)), 1e-6)).astype(np.float32)

    def _scan(self) -> dict[str, list[Path]]:
        """Returns name -> recordings, both sorted. Files with unusable names go to `rejected`."""
        self.rejected = [entry for entry in self.rejected if entry[0].exists()]
        speakers: dict[str, list[Path]] = {}
        for entry in _entries(self.folder):
            if entry.suffix.lower() in AUDIO_SUFFIXES and entry.is_file():
                stem, recordings = entry.stem, [entry]
            elif entry.is_dir():
                stem = entry.name
                recordings = [
                    path
                    for path in _entries(entry)
                    if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()
                ]
            else:
                continue
            if not recordings:
                continue
            try:
                speakers.setdefault(clean_name(stem), []).extend(recordings)
            except DatabaseError as error:
                if all(path != entry for path, _ in self.rejected):
                    self.rejected.append((entry, str(error)))
        # Files stand before folders: the first recording is NAME.wav.
        return {
            name: sorted(speakers[name], key=lambda path: (len(path.parts), path.name))
            for name in sorted(speakers)
        }

    def _files(self, name: str) -> list[Path]:
        """Returns the recordings beside the folder and the folders of a speaker."""
        files = {path if path.parent == self.folder else path.parent for path in self._scan()[name]}
        return sorted(files, key=lambda path: (path.is_dir(), path.name))

    def _remove(self, entries: list[Path]) -> list[Path]:
        """Removes files, and folders with their content; returns all that went."""
        removed: list[Path] = []
        try:
            for entry in entries:
                if entry.is_dir() and not entry.is_symlink():
                    removed += [path for path in sorted(entry.rglob("*")) if not path.is_dir()]
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
                removed.append(entry)
        except OSError as error:
            raise FileBlockedError(
                f"{error.filename}: cannot be removed ({error.strerror})"
            ) from error
        return removed

    def _require(self, name: str) -> str:
        """Returns the enrolled name, or raises DatabaseError."""
        found = self.find(name)
        if found is None:
            raise DatabaseError(
                f"nobody named {clean_name(name)} in {self.folder} "
                f"({len(self.names())} enrolled); list the names"
            )
        return found

    def _require_encoder(self) -> Encoder:
        """Returns the speaker model; its absence is a programmer's mistake."""
        if self._encoder is None:
            raise ValueError("this VoiceprintDatabase was opened without an encoder")
        return self._encoder


def _entries(folder: Path) -> list[Path]:
    """Returns the visible entries of a folder, sorted; none if there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DatabaseError(f"{folder}: cannot be read ({error.strerror})") from error

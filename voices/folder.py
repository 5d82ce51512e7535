"""The store of voices in a folder, `audio_db/`: recordings that anybody can see, play and copy.

One speaker is `NAME.wav`, any number of recordings in `NAME/`, or both; the files are the truth.
Embeddings are kept in one hidden cache file and computed again only for files that changed or for
another model. Everything is written under a hidden temporary name and renamed, so that a process
killed at any moment leaves each recording whole or absent, and an enrolled voice enrolled.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.audio.fidelity import encode_faithfully
from utils.audio.suffixes import AUDIO_SUFFIXES
from utils.errors import AudioError, DatabaseError, FileBlockedError
from utils.files import write_bytes_atomically
from utils.speaker_names import clean_name, fold_name, look_alikes, report_spellings
from utils.verification.embedding import Encoder, mean_embedding, scores_to_all
from utils.verification.embedding_store import EmbeddingStore

CACHE_NAME = ".embeddings.npz"
"""Name of the cache of embeddings in the folder; hidden, and safe to remove."""

LEFTOVER_AGE_S = 3600.0
"""Seconds. A hidden temporary file older than this belongs to a killed process and is removed."""

PROGRESS_MIN_FILES = 20
"""Embedding fewer files than this is done before a progress bar would help."""

COMPANIONS = ("README", "voiceprints.sqlite3")
"""How the names of files begin that belong in the folder and are no recordings: the service's
database is there by default."""

PASSED_OVER = (
    "not a recording by its name; rename it to .wav, .flac, .mp3 or what it is, or move it"
)

Recordings = dict[str, list[Path]]
"""Name -> recordings, `NAME.wav` first."""


class FolderVoiceStore:
    """The enrolled speakers of a folder, a `VoiceStore`; its only reader and writer.

    The folder is scanned once an operation, so that many thousands of speakers can be in it.
    """

    def __init__(self, folder: str | Path, encoder: Encoder | None = None) -> None:
        """Opens a store; nothing is read before it is asked for.

        Args:
            folder: Where the recordings are; made at the first enrolment.
            encoder: The speaker model. Without one, listing and deleting work.
        """
        self.folder = Path(folder)
        self._encoder = encoder
        model_id = encoder.model_id if encoder else ""
        self._cache = EmbeddingStore(self.folder / CACHE_NAME, model_id, is_cache=True)
        self._embeddings: dict[str, FloatArray] = {}
        self._unnamed: list[tuple[Path, str]] = []
        self._spellings: dict[str, set[str]] = {}
        self._unusable: list[tuple[Path, str]] = []

    @property
    def rejected(self) -> list[tuple[Path, str]]:
        """`(path, reason)` of entries without a usable name, and of what `load` could not use."""
        return [*self._unnamed, *(entry for entry in self._unusable if entry[0].exists())]

    def load(self) -> list[str]:
        """Reads all recordings, as far as possible from the cache, and returns the speakers.

        Recordings that cannot be used are collected in `rejected`; a speaker without any usable
        one is left out. Names written in several ways ("Tom", "Tom ") are one speaker, and are
        reported on stderr.

        Returns:
            Names in alphabetical order.

        Raises:
            DatabaseError: If the folder cannot be read.
        """
        encoder = self._require_encoder()
        self.remove_leftovers()
        speakers = self.all_recordings()
        report_spellings(str(self.folder), self._spellings)
        paths = [path for recordings in speakers.values() for path in recordings]
        self._cache.load()
        found = {path: self._cache.get(path) for path in paths}
        missing = [path for path, embedding in found.items() if embedding is None]
        self._unusable = []
        for index, result in self._embed(encoder, missing):
            if isinstance(result, AudioError):
                self._unusable.append((missing[index], str(result)))
            else:
                self._cache.put(missing[index], result)
                found[missing[index]] = self._cache.get(missing[index])
        self._cache.keep_only(paths)
        self._cache.save()
        self._embeddings = {}
        for name, recordings in speakers.items():
            self._set_embedding(name, [found[path] for path in recordings])
        return list(self._embeddings)

    def names(self) -> list[str]:
        """Returns the enrolled speakers in alphabetical order, from the folder alone."""
        return list(self.all_recordings())

    def all_recordings(self) -> Recordings:
        """Scans the folder: name -> recordings, `NAME.wav` first, in alphabetical order.

        Raises:
            DatabaseError: If the folder cannot be read.
        """
        self._unnamed, self._spellings = [], {}
        speakers: Recordings = {}
        for entry in _visible(self.folder):
            if _is_recording(entry):
                stem, recordings = Path(entry.name).stem, [Path(entry.path)]
            elif entry.is_dir():
                stem, recordings = entry.name, _recordings_in(entry.path)
            else:
                if not entry.name.startswith(COMPANIONS):
                    self._unnamed.append((Path(entry.path), PASSED_OVER))
                continue
            if not recordings:
                continue
            try:
                name = clean_name(stem)
                speakers.setdefault(name, []).extend(recordings)
                self._spellings.setdefault(name, set()).add(stem)
            except DatabaseError as error:
                self._unnamed.append((Path(entry.path), str(error)))
        # Files stand before folders: the first recording is NAME.wav.
        return {
            name: sorted(speakers[name], key=lambda path: (path.parent != self.folder, path.name))
            for name in sorted(speakers)
        }

    def recordings(self, name: str) -> list[Path]:
        """Returns the recordings of a speaker, `NAME.wav` first; none if nobody has the name."""
        speakers = self.all_recordings()
        found = _spelling(speakers, name)
        return speakers[found] if found else []

    def look_alikes(self, name: str) -> list[str]:
        """Returns the enrolled names that look like a name, and are other people's."""
        return look_alikes(name, self.names())

    def enrolled_name(self, name: str) -> str | None:
        """Returns the enrolled name that equals `name`, else one that differs in case, else None.

        Many file systems cannot keep "Tom" and "tom" apart, so neither does the store.

        Raises:
            DatabaseError: If `name` cannot be a name.
        """
        return _spelling(self.all_recordings(), name)

    def add(self, name: str, *waveforms: FloatArray) -> list[Path]:
        """Enrols a speaker, or adds recordings to an enrolled one.

        Args:
            name: Any name that `clean_name` accepts.
            *waveforms: Shape `(num_samples,)` each, 16 kHz.

        Returns:
            The new files: `NAME.wav` for a new speaker's first recording, else in `NAME/`.

        Raises:
            AudioError: If a recording has too little speech, or cannot be stored so that it gives
                the same embedding; nothing is written then.
            DatabaseError: If the name is unusable or the folder cannot be written.
        """
        speakers = self.all_recordings()
        found = _spelling(speakers, name)
        new = self._write(found or clean_name(name), waveforms, is_first=found is None)
        if found is None:
            found = clean_name(name)
        self._update_speaker(found, [*speakers.get(found, []), *new])
        return new

    def replace(self, name: str, *waveforms: FloatArray) -> list[Path]:
        """Puts new recordings in the place of all recordings of an enrolled speaker.

        The old ones are removed only when the new ones are on the disk.

        Args, Returns, Raises: As `add`; DatabaseError also if nobody has the name.
        """
        found, old = self._require(name)
        new = self._write(found, waveforms, is_first=True)
        # Two spellings can be one file, where the file system ignores case or normal form.
        self.discard([path for path in old if not any(path.samefile(other) for other in new)])
        self._update_speaker(found, new)
        return new

    def discard(self, recordings: Sequence[Path], *, whole_folders: bool = False) -> None:
        """Removes recordings; a folder that gets empty goes too.

        Args:
            recordings: Files of this store.
            whole_folders: Whether a folder goes with all that is in it, a killed writer's part of a
                voice for one, if none but these recordings are in it.

        Raises:
            DatabaseError: If a file cannot be removed.
        """
        folders = {path.parent for path in recordings} - {self.folder}
        chosen = set(recordings)
        entries = list(recordings)
        if whole_folders:
            entries += [folder for folder in folders if set(_recordings_in(folder)) <= chosen]
        self._remove(entries, recordings)
        for folder in folders:
            with contextlib.suppress(OSError):  # not empty: something else is in it
                folder.rmdir()

    def delete(self, name: str) -> list[Path]:
        """Removes a speaker: embeddings, recordings, and the folder with all that is in it.

        Returns:
            The files and folders that were removed.

        Raises:
            DatabaseError: If nobody has the name, or a file cannot be removed.
        """
        found, recordings = self._require(name)
        self._embeddings.pop(found, None)
        files = {path if path.parent == self.folder else path.parent for path in recordings}
        return self._remove(sorted(files, key=lambda path: (path.is_dir(), path.name)), recordings)

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
            `(name, score)`, the best first; the score is that of the speaker's normalised mean
            embedding, in [-1, 1]: the cosine, or AS-norm if the model is used with it.

        Raises:
            DatabaseError: If nobody is enrolled.
        """
        if not self._embeddings:
            raise DatabaseError(f"nobody is enrolled in {self.folder}; enrol a speaker first")
        names = list(self._embeddings)
        enrolled = np.stack([self._embeddings[name] for name in names])
        scores = scores_to_all(self._require_encoder(), embedding, enrolled)
        return [(names[index], float(scores[index])) for index in np.argsort(-scores)]

    def _embed(
        self, encoder: Encoder, paths: list[Path]
    ) -> Iterator[tuple[int, FloatArray | AudioError]]:
        """Embeds files, with a progress bar on stderr if there are many."""
        from tqdm import tqdm

        is_short = len(paths) < PROGRESS_MIN_FILES
        results = encoder.embed_files(paths, on_error="skip")
        yield from tqdm(results, total=len(paths), disable=is_short, unit="file")

    def _write(self, name: str, waveforms: Sequence[FloatArray], *, is_first: bool) -> list[Path]:
        """Embeds recordings, and writes them and the cache."""
        encoder = self._require_encoder()
        embeddings = [encoder.embed_waveform(waveform, source=name) for waveform in waveforms]
        stem = f"{datetime.now():%Y%m%d-%H%M%S-%f}"
        paths = [self.folder / name / f"{stem}-{i}.wav" for i in range(1, len(waveforms) + 1)]
        if is_first:
            paths[0] = self.folder / f"{name}.wav"
        self._cache.load()
        contents = [
            encode_faithfully(waveform, embedding, encoder.embed_waveform)
            for waveform, embedding in zip(waveforms, embeddings, strict=True)
        ]
        for path, content, embedding in zip(paths, contents, embeddings, strict=True):
            try:
                write_bytes_atomically(path, content)
            except OSError as error:
                raise DatabaseError(f"{path}: cannot be written ({error.strerror})") from error
            self._cache.drop([path])
            self._cache.put(path, embedding)
        self._cache.save()
        return paths

    def _update_speaker(self, name: str, recordings: list[Path]) -> None:
        """Takes a speaker's recordings that have an embedding into the comparison."""
        self._set_embedding(name, [self._cache.get(path) for path in recordings])

    def _set_embedding(self, name: str, embeddings: Sequence[FloatArray | None]) -> None:
        """Sets a speaker's embedding to the mean of those that are known."""
        usable = [embedding for embedding in embeddings if embedding is not None]
        self._embeddings.pop(name, None)
        if usable:
            self._embeddings[name] = mean_embedding(usable)

    def _remove(self, entries: Sequence[Path], recordings: Sequence[Path]) -> list[Path]:
        """Removes files, and folders with their content; returns all that went."""
        # The cache goes first: if the process dies in between, the speaker is still listed and can
        # be deleted again, and no voiceprint outlives its owner's recordings.
        self._cache.load()
        self._cache.drop(recordings)
        self._cache.save()
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

    def _require(self, name: str) -> tuple[str, list[Path]]:
        """Returns the enrolled name and the recordings, or raises DatabaseError."""
        speakers = self.all_recordings()
        found = _spelling(speakers, name)
        if found is None:
            raise DatabaseError(
                f"nobody named {clean_name(name)} in {self.folder} "
                f"({len(speakers)} enrolled); list the names"
            )
        return found, speakers[found]

    def _require_encoder(self) -> Encoder:
        """Returns the speaker model; its absence is a programmer's mistake."""
        if self._encoder is None:
            raise ValueError("this FolderVoiceStore was opened without an encoder")
        return self._encoder


def _recordings_in(folder: str | Path) -> list[Path]:
    """Returns the recordings that lie in a folder, sorted."""
    return [Path(entry.path) for entry in _visible(folder) if _is_recording(entry)]


def _is_recording(entry: os.DirEntry[str]) -> bool:
    """Tells whether an entry of a folder is a file that counts as a recording."""
    return entry.name.lower().endswith(tuple(AUDIO_SUFFIXES)) and entry.is_file()


def _spelling(speakers: Recordings, name: str) -> str | None:
    """Returns the enrolled spelling of a name, exact if possible, None if nobody has it."""
    name = clean_name(name)
    if name in speakers:
        return name
    folded = fold_name(name)
    return next((other for other in speakers if fold_name(other) == folded), None)


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """Returns the visible entries of a folder, sorted; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        # A link to nowhere is nothing; one in a circle would be an error at every question.
        visible = [e for e in visible if not e.is_symlink() or Path(e.path).exists()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DatabaseError(f"{folder}: cannot be read ({error.strerror})") from error
    return sorted(visible, key=lambda entry: entry.name)

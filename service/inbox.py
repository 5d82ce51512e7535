"""audio_db/ as the service's inbox: what lies in it at the start is enrolled.

The database is the truth. It remembers place and content of each enrolled file, so that none is
enrolled twice and the deletion of a speaker removes the files too. A file that has changed takes
the place of its recording. Nothing else is kept in step: who is renamed or whose files vanish stays
as the database has it.
"""

import copy
import dataclasses
import json
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.audio.decode import load_audio
from utils.errors import AudioError, DamagedVoiceError, FileBlockedError
from utils.speaker_names import fold_name
from utils.verification.embedding import Encoder
from voices.folder import FolderVoiceStore
from voices.inbox_sound import find_sound, place_of, printable, sha256_of
from voices.sql.audio import encode_flac
from voices.sql.inbox import InboxFile
from voices.sql.other_models import SoundFiles
from voices.sql.records import IfExists, NewRecording, Removal, Speaker
from voices.sql.requests import Errand
from voices.sql.store import SqlVoiceStore

EARLIER_RECORD = ".service.json"
"""Where an earlier version noted what it had enrolled; read once, and removed."""


class _File(NamedTuple):
    """A file of the folder: whose it is by its name, where it lies, and the content's hash."""

    name: str
    path: Path
    place: str
    sha256: str


_NewFile = tuple[_File, str]
"""A file to be enrolled, and the id of the recording in whose place it comes, or ""."""


class Inbox:
    """A folder of recordings beside a database; for one process at a time.

    Attributes:
        rejected: `(path, reason)` of files that could not be enrolled or removed at the start.
        recording_ids: Recordings of the database whose sound is in a file.
    """

    def __init__(self, folder: str | Path, database: SqlVoiceStore, encoder: Encoder) -> None:
        """Opens the folder; nothing is read before it is asked for."""
        self.rejected: list[tuple[str, str]] = []
        self.recording_ids: set[str] = set()
        self._database = database
        self._enrolled = database.inbox_files
        self._encoder = encoder
        self._folder = FolderVoiceStore(folder)
        self._lock = threading.Lock()

    def enrol_files(self) -> list[str]:
        """Finishes deletions, reads every file, and enrols those that are new or have changed.

        Returns:
            Names of the speakers who got recordings.

        Raises:
            DatabaseError: If the folder or the database fails.
        """
        self.rejected = []
        self._folder.remove_leftovers()
        for name in self._enrolled.begun_deletions():
            try:
                self.remove(name)
            except FileBlockedError as error:
                self.rejected.append((name, str(error)))
        files = self._read_folder()
        known = {row.path: row for row in self._enrolled.all()} or self._earlier_record(files)
        by_content = {row.sha256: row for row in known.values()}
        rows = {}
        for file in files:
            row = known.get(file.place)
            if row is None or row.sha256 != file.sha256:
                row = by_content.get(file.sha256)  # copied, renamed or moved
            if row is not None:
                rows[file.place] = dataclasses.replace(row, path=file.place)
        living = {row.recording_id for row in rows.values()}
        others = {place: row for place, row in known.items() if row.recording_id not in living}
        if others | rows != known or (self._folder.folder / EARLIER_RECORD).exists():
            self._enrolled.write((others | rows).values())
            (self._folder.folder / EARLIER_RECORD).unlink(missing_ok=True)
        new: dict[str, list[_NewFile]] = {}
        for file in files:
            if file.place not in rows:
                old = others.get(file.place)
                name = file.name if old is None else old.speaker
                new.setdefault(name, []).append((file, old.recording_id if old else ""))
        changed = [name for name, theirs in new.items() if self._enrol(name, theirs)]
        self.recording_ids = {row.recording_id for row in self._enrolled.all()}
        return sorted(changed)

    def enrol(
        self,
        name: str,
        recordings: Sequence[NewRecording],
        *,
        if_exists: IfExists = "error",
        **limits: Any,
    ) -> Speaker:
        """Enrols recordings as the database does; the files of those that they replace go first.

        Raises:
            DatabaseError: As the database does, or if a file cannot be removed.
        """
        with self._lock:
            if if_exists == "replace":
                old = {recording.id for recording in self._database.recordings(name)}
                self._folder.discard(self._files_of(old))
            return self._database.enrol(name, recordings, if_exists=if_exists, **limits)

    def on(self, errand: Errand) -> "Inbox":
        """Returns the same inbox whose changes carry a line of the audit log."""
        other = copy.copy(self)
        other._database = self._database.on(errand)
        return other

    def remove(self, name: str) -> Removal:
        """Removes a speaker: the files first, the database's rows last.

        Whatever ends the process in between, the next start finishes it.

        Returns:
            What went, the files too.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            DatabaseError: If a file cannot be removed; the speaker stays until it can.
        """
        with self._lock:
            speaker = self._database.speaker(name)
            files = self._files_of({each.id for each in speaker.recordings}, speaker.name)
            if files:
                self._enrolled.begin_deletion(speaker.name)
                self._folder.discard(files, whole_folders=True)
            removal = self._database.remove(speaker.name)
        # Where the folder is on this machine is no client's business.
        paths = [
            printable(f"{self._folder.folder.name}/{place_of(self._folder, path)}")
            for path in files
        ]
        return dataclasses.replace(removal, files=(*removal.files, *sorted(paths)))

    def remove_recording(self, name: str, recording_id: str) -> Speaker:
        """Removes a recording, and before it its file, if it has one.

        Raises:
            UnknownSpeakerError: If the speaker or the recording is gone meanwhile.
            OnlyRecordingError: If it is the only one by now; its file stays.
            DatabaseError: If the file cannot be removed.
        """
        with self._lock:
            ids = {recording.id for recording in self._database.recordings(name)}
            if len(ids) > 1:
                self._folder.discard(self._files_of(ids & {recording_id}))
            return self._database.remove_recording(name, recording_id)

    def read_recording(self, recording_id: str) -> bytes | None:
        """Returns the sound of a recording that has a file, as FLAC."""
        for path in self._files_of({recording_id}):
            try:
                return encode_flac(load_audio(path))
            except AudioError:
                continue
        return None

    def find_sound(self) -> SoundFiles:
        """Returns what reads the files of recordings, by the recordings' ids."""
        return find_sound(self._folder.folder, self._enrolled)

    def _read_folder(self) -> list[_File]:
        """Reads all files; those that cannot be read or have no usable name are rejected."""
        files = []
        for name, paths in self._folder.all_recordings().items():
            for path in paths:
                try:
                    files.append(_File(name, path, place_of(self._folder, path), sha256_of(path)))
                except OSError as error:
                    self.rejected.append((str(path), f"cannot be read ({error.strerror})"))
        self.rejected += [(str(path), reason) for path, reason in self._folder.rejected]
        return files

    def _earlier_record(self, files: list[_File]) -> dict[str, InboxFile]:
        """Returns which files an earlier version of the service noted, in the folder itself."""
        try:
            record = json.loads((self._folder.folder / EARLIER_RECORD).read_bytes())
            noted = {
                (place, *entry[:2]): entry[2]
                for taken in record.values()
                if isinstance(taken, dict)
                for entries in taken.values()
                for place, entry in entries.items()
            }
        except (OSError, ValueError, TypeError, AttributeError, IndexError):
            return {}
        enrolled = self._database.all_recordings()
        speaker_of = {each.id: name for name, theirs in enrolled.items() for each in theirs}
        rows = {}
        for file in files:
            status = file.path.stat()
            id_ = noted.get((file.place, status.st_size, status.st_mtime_ns))
            if id_ in speaker_of:
                rows[file.place] = InboxFile(file.place, file.sha256, id_, speaker_of[id_])
        return rows

    def _enrol(self, name: str, files: list[_NewFile]) -> bool:
        """Embeds files and adds them to a speaker; tells whether one of them could be used."""
        new, old = {}, set()
        for file, replaced in files:
            try:
                waveform = load_audio(file.path)
                embedding = self._encoder.embed_waveform(waveform, source=str(file.path))
            except AudioError as error:
                self.rejected.append((str(file.path), str(error)))
                continue
            old.add(replaced)
            new[file.path] = NewRecording.of(
                waveform, embedding, None, inbox_path=file.place, inbox_sha256=file.sha256
            )
        if not new:
            return False
        try:
            self._database.enrol(name, list(new.values()), if_exists="add", instead_of=old)
        except DamagedVoiceError as error:
            # One speaker's damage keeps no service from starting; the files wait.
            self.rejected += [(str(path), f"enrol {name} again: {error}") for path in new]
            return False
        return True

    def _files_of(self, recording_ids: Collection[str], name: str | None = None) -> list[Path]:
        """Returns the files of recordings, as far as their content is still what was enrolled.

        Args:
            recording_ids: Ids in the database.
            name: With a name, all files of that name too, unless they are of others' recordings.
        """
        if not recording_ids:
            return []
        known = {row.path: row for row in self._enrolled.all()}
        found = []
        for spelling, paths in self._folder.all_recordings().items():
            is_named = name is not None and fold_name(spelling) == fold_name(name)
            for path in paths:
                row = known.get(place_of(self._folder, path))
                if row is None or row.recording_id not in recording_ids:
                    is_theirs = row is None and is_named
                else:
                    is_theirs = is_named or sha256_of(path) == row.sha256
                if is_theirs:
                    found.append(path)
        return found

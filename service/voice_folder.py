"""The voices of infer_recognition.py's folder, taken over into the service's database.

They are embedded once; their sound stays in its files. What the service does to a speaker, it does
to these files too. Whatever kills the process in between, its next start finds what was being done:
renaming, replacement and deletion are noted as an intent before, to be finished or undone, and
files are taken over under ids that are noted before.
"""

import contextlib
import dataclasses
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from service.folder_record import (
    OLD_LABEL,
    PENDING,
    FolderRecord,
    printable,
    spellings,
    stamp_of,
)
from utils.audio.activity import speech_seconds
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import (
    AudioError,
    DamagedVoiceError,
    DatabaseError,
    FileBlockedError,
    SpeakerExistsError,
    UnknownSpeakerError,
)
from utils.speaker_names import fold_name
from voices.folder import VoiceprintDatabase
from voices.sql.records import IfExists, NewRecording, Removal, Speaker
from voices.sql.store import SqlVoiceprintDatabase


class VoiceFolder:
    """A folder of voices beside a database.

    Attributes:
        rejected: `(path, reason)` of files that could not be taken over.
    """

    def __init__(self, folder: str | Path, database: SqlVoiceprintDatabase, encoder: Any) -> None:
        """Opens the folder; nothing is read before it is asked for.

        Args:
            folder: The `--audio_db` of infer_recognition.py.
            database: Where its voices go.
            encoder: The speaker model.
        """
        self.folder = Path(folder)
        self.rejected: list[tuple[str, str]] = []
        self._database = database
        self._encoder = encoder
        self._files = VoiceprintDatabase(self.folder, encoder)
        self._record = FolderRecord(self.folder, database.name)
        self._lock = threading.Lock()

    @property
    def recording_ids(self) -> set[str]:
        """Recordings of the database whose sound is in a file of the folder."""
        return self._record.recording_ids

    def take_over(self) -> list[str]:
        """Brings the database up to date with the folder.

        New and changed files are embedded; recordings whose files are gone are removed. What
        cannot be used is collected in `rejected`.

        Returns:
            Names of the speakers that changed.

        Raises:
            DatabaseError: If the folder or the database fails.
        """
        self.rejected = self._record.defects()
        self._files.remove_leftovers()
        self._record.adopt(self._database.recording_owners)
        stuck = self._settle_intents(is_start=True)
        taken = {name: self._settle(name, files) for name, files in self._record.read().items()}
        present = {
            name: {self._label(path): path for path in self._files.recordings(name)}
            for name in self._files.names()
            if fold_name(name) not in stuck
        }
        fresh: dict[str, dict[str, Path]] = {}
        gone = [name for name in set(taken) - set(present) if fold_name(name) not in stuck]
        stale = {name: list(taken[name].values()) for name in gone}
        for name, paths in present.items():
            known = taken.get(name, {})
            if self._database.find(name) is None:
                known = {}
            stamps = {label: stamp_of(path) for label, path in paths.items()}
            new = {k: p for k, p in paths.items() if known.get(k, [])[:2] != stamps[k]}
            old = {label: known[label] for label in known if label not in paths or label in new}
            if not new and not old:
                continue
            fresh[name], stale[name] = new, list(old.values())
            taken[name] = {label: known[label] for label in known if label not in old}
            taken[name] |= {OLD_LABEL.format(entry[2]): entry for entry in old.values()}
            taken[name] |= {k: [*stamps[k], uuid.uuid4().hex, PENDING] for k in new}
        if stale:
            self._record.write(taken)
        changed = {name for name in fresh if fresh[name]}
        for name, entries in stale.items():
            self._enrol(name, fresh.get(name, {}), taken[name], entries)
            if self._remove(name, [entry[2] for entry in entries]):
                changed.add(name)
            for label in [label for label, entry in taken[name].items() if entry in entries]:
                del taken[name][label]
        self._record.write(taken)
        return sorted(changed)

    def enrol(
        self,
        name: str,
        recordings: Sequence[NewRecording],
        *,
        if_exists: IfExists = "error",
        **limits: Any,
    ) -> Speaker:
        """Enrols recordings as the database does; the files of those that they replace go too.

        Raises:
            DatabaseError: As the database does, or if a file cannot be removed.
        """
        if if_exists != "replace":
            return self._database.enrol(name, recordings, if_exists=if_exists, **limits)
        new = [dataclasses.replace(each, id=uuid.uuid4().hex) for each in recordings]
        with self._changing(name):
            # Files that only the scripts know so far wait for the next start.
            is_known = self._database.find(name) is not None
            if is_known and (files := self._contents(name)):
                self._intend("replace", name, [str(each.id) for each in new], files)
            return self._database.enrol(name, new, if_exists="replace", **limits)

    def remove(self, name: str) -> Removal:
        """Removes a speaker from the database, and the files, which the answer names too.

        If an earlier removal has left files, these are what is removed.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            DatabaseError: If a file cannot be removed.
        """
        removed = self._record.left_of(name)
        with self._changing(name, is_removal=True):
            if removed and self._database.find(name) is None:
                removal = Removal(0, 0, ())
            else:
                ids = [recording.id for recording in self._database.speaker(name).recordings]
                if files := self._contents(name):
                    self._intend("delete", name, ids, files)
                removed += files
                removal = self._database.remove(name)
        # Where the folder is on this machine is no client's business.
        paths = [printable(f"{self.folder.name}/{label}") for label in sorted(set(removed))]
        return dataclasses.replace(removal, files=(*removal.files, *paths))

    def remove_recording(self, name: str, recording_id: str) -> Speaker:
        """Removes a recording, and its file, if it has one.

        Raises:
            UnknownSpeakerError: If the speaker or the recording is gone meanwhile.
            OnlyRecordingError: If it is the only one by now; its file stays.
            DatabaseError: If the file cannot be removed.
        """
        with self._changing(name):
            files = self._record.find(recording_id)
            if files and len(self._database.recordings(name)) > 1:
                self._intend("delete", name, [recording_id], files)
            return self._database.remove_recording(name, recording_id)

    def rename(self, name: str, new_name: str) -> Speaker:
        """Gives a speaker another name: the files first, if there are any, then the database.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            SpeakerExistsError: If others have the new name already.
            DatabaseError: If a file cannot be renamed.
        """
        with self._changing(name, new_name):
            found = self._files.find(name)
            if found is not None and self._files.find(new_name) not in (None, found):
                raise SpeakerExistsError(f"there are files of {new_name}; choose another name")
            paths = self._recordings(name)
            moves = {}
            for path in paths:
                if path.parent == self.folder:
                    moves[path.name] = f"{new_name}{path.suffix}"
                else:
                    moves[path.parent.name] = new_name
            if len(set(moves.values())) < len(moves):
                raise DatabaseError(f"{found}: two of the files would get one name; rename them")
            ids = [recording.id for recording in self._database.speaker(name).recordings]
            if moves or spellings(self._record.read(), name):
                self._intend("rename", name, ids, moves, new_name)
            # The cache would keep the embeddings under the old name, also after a deletion.
            self._files.forget_embeddings(paths)
            try:
                for old, new in moves.items():
                    if old != new:
                        (self.folder / old).rename(self.folder / new)
            except OSError as error:
                raise FileBlockedError(f"{found}: cannot be renamed ({error.strerror})") from error
            # If somebody else has got the name meanwhile, these files must not become theirs.
            return self._database.rename(name, new_name)

    @contextlib.contextmanager
    def _changing(self, *names: str, is_removal: bool = False) -> Iterator[None]:
        """Lets one thread at a time change files and database, and settles what it intended.

        An error leaves both as they were, or both changed. A removal does not wait for files of an
        earlier one: the voice itself must go.
        """
        with self._lock:
            try:
                self._settle_intents(*names)
            except FileBlockedError:
                waiting = {intent["action"] for intent in self._record.read_intents()}
                if not is_removal or "rename" in waiting:
                    raise
            try:
                yield
            except Exception:
                self._settle_intents(*names)
                raise
            self._settle_intents(*names)

    def _intend(
        self, action: str, name: str, ids: list[str], files: dict[str, Any], new_name: str = ""
    ) -> None:
        """Notes what is to be done to files, on the disk.

        Args:
            action: "rename", "replace" or "delete".
            name: The speaker.
            ids: Recordings by which the database shows whether it has done its part: they have
                another name, have come, or have gone.
            files: File -> the new name, or the stamp of the file that is to go.
            new_name: The speaker's, to be.
        """
        intent = {"action": action, "name": name, "recordings": ids, "files": files}
        intent["new_name"] = new_name or name
        self._record.add_intent(intent)

    def _settle_intents(self, *names: str, is_start: bool = False) -> set[str]:
        """Settles what is noted; what fails waits, and only for `names` it is an error.

        Returns:
            Folded names of those whose files or recordings cannot be changed now.
        """
        stuck: set[str] = set()
        for intent in self._record.read_intents():
            theirs = {fold_name(intent["name"]), fold_name(intent["new_name"])}
            try:
                self._settle_intent(intent, is_start)
            except DatabaseError as error:
                if not theirs.isdisjoint(map(fold_name, names)):
                    raise
                stuck |= theirs
                if is_start:
                    self.rejected.append((intent["name"], str(error)))
        return stuck

    def _settle_intent(self, intent: dict[str, Any], is_start: bool) -> None:
        """Finishes what the database has done, and undoes what it has not.

        A deletion that a killed process did not come to is finished at the start.
        """
        action, name, new_name = intent["action"], intent["name"], intent["new_name"]
        if action == "delete" and is_start:
            self._remove(name, intent["recordings"])
        found = {recording.id for recording in self._database.recordings(new_name)}
        is_done = found.isdisjoint(intent["recordings"]) == (action == "delete")
        if action == "rename":
            self._settle_names(intent, is_done and self._database.find(new_name) == new_name)
        elif is_done:
            self._discard(intent["files"])
        self._record.remove_intent(intent)

    def _settle_names(self, intent: dict[str, Any], is_done: bool) -> None:
        """Gives files the names that their speaker has; none is lost to one that is in the way."""
        name, new_name, moves = intent["name"], intent["new_name"], intent["files"]
        wanted = moves if is_done else {new: old for old, new in moves.items()}
        try:
            for old, new in wanted.items():
                source, target = self.folder / old, self.folder / new
                if source.exists() and (not target.exists() or source.samefile(target)):
                    source.rename(target)
        except OSError as error:
            raise FileBlockedError(
                f"{error.filename}: cannot be renamed ({error.strerror})"
            ) from error

        if is_done:
            self._record.rename(name, new_name, moves)

    def _discard(self, files: dict[str, list[int]]) -> None:
        """Removes files, unless they are others by now."""
        paths = {self.folder / label: stamp for label, stamp in files.items()}
        same = [path for path, stamp in paths.items() if stamp_of(path) in ([], stamp)]
        self._files.discard([path for path in same if path.is_symlink() or not path.is_dir()])
        self._record.drop(files)

    def _recordings(self, name: str) -> list[Path]:
        """Returns a speaker's recordings, those of other spellings of the name too."""
        names = spellings(self._files.names(), name)
        return [path for spelling in names for path in self._files.recordings(spelling)]

    def _contents(self, name: str) -> dict[str, list[int]]:
        """Returns a speaker's files with their stamps, all that is in folders too."""
        tops = {p if p.parent == self.folder else p.parent for p in self._recordings(name)}
        folders = {top for top in tops if top.is_dir() and not top.is_symlink()}
        paths = [*(tops - folders), *(path for top in folders for path in top.rglob("*"))]
        return {self._label(p): stamp_of(p) for p in paths if p.is_symlink() or not p.is_dir()}

    def read_recording(self, recording_id: str) -> bytes | None:
        """Returns the sound of a recording that has a file, as FLAC."""
        from voices.sql.audio import encode_flac

        for label in self._record.find(recording_id):
            with contextlib.suppress(AudioError):
                return encode_flac(load_audio(self.folder / label))
        return None

    def _settle(self, name: str, files: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Returns a speaker's entries without those that a killed process did not come to."""
        if all(entry[3:] != [PENDING] for entry in files.values()):
            return files
        enrolled = {recording.id for recording in self._database.recordings(name)}
        settled = {label: entry[:3] for label, entry in files.items()}
        return {
            label: entry
            for label, entry in settled.items()
            if entry[2] in enrolled or files[label] == entry
        }

    def _enrol(
        self,
        name: str,
        files: dict[str, Path],
        entries: dict[str, list[Any]],
        stale: list[list[Any]],
    ) -> None:
        """Embeds files and adds them to a speaker, under the ids of their entries.

        The entries lose their marks; those of files that cannot be used go. `stale` entries'
        recordings are to be removed afterwards, or before if they are in the way.
        """
        recordings = []
        for label, path in files.items():
            try:
                waveform = load_audio(path)
                embedding = self._encoder.embed_waveform(waveform, source=str(path))
            except AudioError as error:
                self.rejected.append((str(path), str(error)))
                del entries[label]
                continue
            duration = len(waveform) / SAMPLE_RATE
            speech = speech_seconds(waveform)
            entries[label] = entries[label][:3]
            recordings.append(NewRecording(embedding, speech, None, duration, id=entries[label][2]))
        if not recordings:
            return
        try:
            self._database.enrol(name, recordings, if_exists="add")
        except DamagedVoiceError:
            # Most likely what is damaged is the recording of a file that was made anew.
            self._remove(name, [entry[2] for entry in stale])
            try:
                self._database.enrol(name, recordings, if_exists="add")
            except DamagedVoiceError as error:
                # One speaker's damage keeps no service from starting; the files wait.
                reason = f"enrol {name} again: {error}"
                for label in files.keys() & entries.keys():
                    self.rejected.append((str(files[label]), reason))
                    del entries[label]

    def _remove(self, name: str, ids: list[str]) -> bool:
        """Removes recordings, with the last one the speaker; tells whether there were any."""
        is_changed = False
        for recording_id in ids:
            with contextlib.suppress(UnknownSpeakerError):
                speaker = self._database.speaker(name)
                if [recording.id for recording in speaker.recordings] == [recording_id]:
                    self._database.remove(name)
                else:
                    self._database.remove_recording(name, recording_id)
                is_changed = True
        return is_changed

    def _label(self, path: Path) -> str:
        """Returns a path as the record holds it."""
        return path.relative_to(self.folder).as_posix()

"""The voices of infer_recognition.py's folder, taken over into the service's database.

They are embedded once; their sound stays in its files. What the service does to a speaker, it does
to these files too, first the files and then the database: a process killed in between finds at its
next start that files are gone, and lets their voices go. Files are taken over under ids that are
noted before: a process killed in between finds at its next start which of them are enrolled. A
renaming is noted before too, and finished or undone at the next start.
"""

import contextlib
import json
import threading
import uuid
from pathlib import Path
from typing import Any

from utils.audio import SAMPLE_RATE, load_audio
from utils.database import VoiceprintDatabase
from utils.errors import (
    AudioError,
    DamagedVoiceError,
    DatabaseError,
    SpeakerExistsError,
    UnknownSpeakerError,
)
from utils.files import write_text_atomically
from utils.speaker_names import fold_name
from utils.speech import speech_seconds
from utils.sql_database import SqlVoiceprintDatabase
from utils.sql_records import NewRecording, Speaker

RECORD_NAME = ".service.json"
"""Hidden file of the folder that tells which of its files were taken over, as which recordings."""

Taken = dict[str, dict[str, list[Any]]]
"""Speaker -> file (relative to the folder) -> size, time of change in ns, id of the recording, and
`PENDING` if it is not known whether it is enrolled."""

PENDING = "pending"

RENAMING = "//renaming in {}"
"""Key of the record for a renaming that has begun in a database; no address has this form."""

OLD_LABEL = "//{}"
"""In the place of a file: a recording, by its id, whose file is gone or has changed since."""


class VoiceFolder:
    """A folder of voices beside a database.

    Attributes:
        rejected: `(path, reason)` of files that could not be taken over.
        recording_ids: Recordings of the database whose sound is in a file of the folder.
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
        self.recording_ids: set[str] = set()
        self._database = database
        self._encoder = encoder
        self._files = VoiceprintDatabase(self.folder, encoder)
        self._lock = threading.RLock()

    def take_over(self) -> list[str]:
        """Brings the database up to date with the folder.

        New and changed files are embedded; recordings whose files are gone are removed. What
        cannot be used is collected in `rejected`.

        Returns:
            Names of the speakers that changed.

        Raises:
            DatabaseError: If the folder or the database fails.
        """
        self.rejected = []
        self._settle_renaming()
        taken = {name: self._settle(name, files) for name, files in self._read().items()}
        present = {
            name: {self._label(path): path for path in self._files.recordings(name)}
            for name in self._files.names()
        }
        fresh: dict[str, dict[str, Path]] = {}
        stale = {name: list(taken[name].values()) for name in set(taken) - set(present)}
        for name, paths in present.items():
            known = taken.get(name, {})
            if self._database.find(name) is None:
                known = {}
            stamps = {label: _stamp(path) for label, path in paths.items()}
            new = {k: p for k, p in paths.items() if known.get(k, [])[:2] != stamps[k]}
            old = {label: known[label] for label in known if label not in paths or label in new}
            if not new and not old:
                continue
            fresh[name], stale[name] = new, list(old.values())
            taken[name] = {label: known[label] for label in known if label not in old}
            taken[name] |= {OLD_LABEL.format(entry[2]): entry for entry in old.values()}
            taken[name] |= {k: [*stamps[k], uuid.uuid4().hex, PENDING] for k in new}
        if stale:
            self._write(taken)
        for name, entries in stale.items():
            self._enrol(name, fresh.get(name, {}), taken[name], entries)
            self._remove(name, entries)
            for label in [label for label, entry in taken[name].items() if entry in entries]:
                del taken[name][label]
        self._write({name: files for name, files in taken.items() if files})
        return sorted(stale)

    def delete(self, name: str) -> list[str]:
        """Removes a speaker's files, if there are any, and names them; `forget` follows."""
        with self._lock:
            self._settle_renaming()
            found = self._files.find(name)
            removed = [] if found is None else self._files.delete(found)
        # Where the folder is on this machine is no client's business.
        return [f"{self.folder.name}/{self._label(path)}" for path in removed]

    def forget(self, name: str) -> None:
        """Notes that a speaker is gone from the database too."""
        self._change(lambda taken: taken.pop(self._recorded(taken, name), None))

    def rename(self, name: str, new_name: str) -> Speaker:
        """Gives a speaker another name: the files first, if there are any, then the database.

        Whatever ends this in between, the speaker is whole at the next start, under one of the
        names: what is to be done is noted before.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            SpeakerExistsError: If others have the new name already.
            DatabaseError: If a file cannot be renamed.
        """
        with self._lock:
            self._settle_renaming()
            found = self._files.find(name)
            if found is not None and self._files.find(new_name) not in (None, found):
                raise SpeakerExistsError(f"there are files of {new_name}; choose another name")
            paths = [] if found is None else self._files.recordings(found)
            moves = {}
            for path in paths:
                if path.parent == self.folder:
                    moves[path.name] = f"{new_name}{path.suffix}"
                else:
                    moves[path.parent.name] = new_name
            if len(set(moves.values())) < len(moves):
                raise DatabaseError(f"{found}: two of the files would get one name; rename them")
            ids = [recording.id for recording in self._database.speaker(name).recordings]
            renaming = {"name": name, "new_name": new_name, "recordings": ids, "files": moves}
            taken = self._read()
            if moves or self._recorded(taken, name) in taken:
                self._write_record(RENAMING.format(self._database.name), renaming)
            # The cache would keep the embeddings under the old name, also after a deletion.
            self._files.forget_embeddings(paths)
            try:
                for old, new in moves.items():
                    if old != new:
                        (self.folder / old).rename(self.folder / new)
                speaker = self._database.rename(name, new_name)
            except OSError as error:
                self._settle_renaming()
                raise DatabaseError(f"{found}: cannot be renamed ({error.strerror})") from error
            except DatabaseError:
                # Somebody else has got the name meanwhile: these files must not become theirs.
                self._settle_renaming()
                raise
            self._settle_renaming()
            return speaker

    def _settle_renaming(self) -> None:
        """Finishes a renaming that the database has done, and undoes one that it has not."""
        key = RENAMING.format(self._database.name)
        renaming = self._read_record().get(key)
        if renaming is None:
            return
        name, new_name, moves = renaming["name"], renaming["new_name"], renaming["files"]
        renamed = {recording.id for recording in self._database.recordings(new_name)}
        is_theirs = not renamed.isdisjoint(renaming["recordings"])
        is_done = is_theirs and self._database.find(new_name) == new_name
        if not is_done:
            moves = {new: old for old, new in moves.items()}
        try:
            for old, new in moves.items():
                source, target = self.folder / old, self.folder / new
                if source.exists() and (not target.exists() or source.samefile(target)):
                    source.rename(target)
        except OSError as error:
            raise DatabaseError(
                f"{error.filename}: cannot be renamed ({error.strerror})"
            ) from error
        if is_done:

            def move(taken: Taken) -> None:
                for label, entry in taken.pop(self._recorded(taken, name), {}).items():
                    top, slash, rest = label.partition("/")
                    top = moves.get(top, f"{new_name}{'' if slash else Path(label).suffix}")
                    taken.setdefault(new_name, {})[f"{top}{slash}{rest}"] = entry

            self._change(move)
        self._write_record(key, None)

    def remove_recording(self, name: str, recording_id: str) -> Speaker:
        """Removes a recording, its file first, if it has one.

        Raises:
            UnknownSpeakerError: If the speaker or the recording is gone meanwhile.
            OnlyRecordingError: If it is the only one by now; its file stays.
        """

        def remove(taken: Taken) -> None:
            files = taken.get(self._recorded(taken, name), {})
            for label in [label for label, entry in files.items() if entry[2] == recording_id]:
                self._files.discard([self.folder / label])
                del files[label]

        # One at a time: of two last recordings, the file of the one that stays must stay too.
        with self._lock:
            self._settle_renaming()
            ids = [recording.id for recording in self._database.speaker(name).recordings]
            if len(ids) > 1 and recording_id in ids:
                self._change(remove)
            return self._database.remove_recording(name, recording_id)

    def read_recording(self, name: str, recording_id: str) -> bytes | None:
        """Returns the sound of a recording that has a file, as FLAC."""
        from utils.sql_audio import encode_flac

        taken = self._read()
        for label, entry in taken.get(self._recorded(taken, name), {}).items():
            if entry[2] == recording_id:
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
            self._remove(name, stale)
            try:
                self._database.enrol(name, recordings, if_exists="add")
            except DamagedVoiceError as error:
                # One speaker's damage keeps no service from starting; the files wait.
                reason = f"enrol {name} again: {error}"
                for label in files.keys() & entries.keys():
                    self.rejected.append((str(files[label]), reason))
                    del entries[label]

    def _remove(self, name: str, entries: list[list[Any]]) -> None:
        """Removes recordings from the database, and with the last one the speaker."""
        for entry in entries:
            with contextlib.suppress(UnknownSpeakerError):
                speaker = self._database.speaker(name)
                if [recording.id for recording in speaker.recordings] == [entry[2]]:
                    self._database.remove(name)
                else:
                    self._database.remove_recording(name, entry[2])

    def _recorded(self, taken: Taken, name: str) -> str:
        """Returns a name as the record spells it."""
        return next((other for other in taken if fold_name(other) == fold_name(name)), name)

    def _label(self, path: Path) -> str:
        """Returns a path as the record holds it."""
        return path.relative_to(self.folder).as_posix()

    def _change(self, change: Any) -> None:
        """Changes the record; one thread at a time, so that no change is lost."""
        with self._lock:
            taken = self._read()
            before = json.dumps(taken)
            change(taken)
            if json.dumps(taken) != before:
                self._write({name: files for name, files in taken.items() if files})

    def _read(self) -> Taken:
        """Returns what was taken over into this database."""
        taken = self._read_record().get(self._database.name)
        return taken if isinstance(taken, dict) else {}

    def _write(self, taken: Taken) -> None:
        """Writes what was taken over into this database."""
        self.recording_ids = {entry[2] for files in taken.values() for entry in files.values()}
        if self._read() != taken:
            self._write_record(self._database.name, taken)

    def _read_record(self) -> dict[str, Any]:
        """Reads the record of all databases; empty if there is no readable one."""
        try:
            record = json.loads((self.folder / RECORD_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write_record(self, key: str, value: Any) -> None:
        """Writes an entry of the record, or removes it if it is None."""
        if not self.folder.is_dir():
            return
        path = self.folder / RECORD_NAME
        record = {**self._read_record(), key: value}
        if value is None:
            del record[key]
        try:
            write_text_atomically(path, json.dumps(record, ensure_ascii=False))
        except OSError as error:
            raise DatabaseError(f"{path}: cannot be written ({error.strerror})") from error


def _stamp(path: Path) -> list[int]:
    """Returns what changes when a file is written."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]

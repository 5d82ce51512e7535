"""Speakers enrolled, renamed and removed: each change is one transaction with its audit line."""

import contextlib
from collections.abc import Collection, Sequence
from datetime import datetime, timezone

from sqlalchemy import Connection, select, update

from utils.errors import (
    DamagedVoiceError,
    DatabaseError,
    OnlyRecordingError,
    SpeakerExistsError,
    TooManyRecordingsError,
    TooManySpeakersError,
)
from utils.speaker_names import clean_name, fold_name
from voices.sql.audit import write_lines
from voices.sql.engine import SqlConnections
from voices.sql.group import GroupSpeakers
from voices.sql.identity import Identity
from voices.sql.jobs import JobTable
from voices.sql.outside_index import OutsideIndex
from voices.sql.records import AuditLine, IfExists, NewRecording, Removal, Speaker
from voices.sql.requests import Errand, recall, remember
from voices.sql.rows import VoiceRows, recordings_of
from voices.sql.schema import speakers

REMOVED_AT_ONCE = 100
"""Speakers of a group that one transaction removes: others may write in between."""


class SpeakerChanges:
    """Changes the speakers of one group.

    Attributes:
        errand: On whose behalf; None writes nothing into the audit log.
        keep_audio: Whether the sound of new recordings is stored.
    """

    def __init__(
        self,
        connections: SqlConnections,
        rows: VoiceRows,
        identity: Identity,
        group: GroupSpeakers,
        outside_index: OutsideIndex,
        jobs: JobTable,
        *,
        errand: Errand | None,
        keep_audio: bool,
    ) -> None:
        """Takes what the database's parts are, and for whom it works."""
        self.errand = errand
        self.keep_audio = keep_audio
        self._connections = connections
        self._rows = rows
        self._identity = identity
        self._group = group
        self._outside_index = outside_index
        self._jobs = jobs

    def enrol(
        self,
        name: str,
        recordings: Sequence[NewRecording],
        if_exists: IfExists,
        instead_of: Collection[str],
        max_recordings: int | None,
        max_speakers: int | None,
        must_exist: bool,
    ) -> Speaker:
        """Enrols recordings of a speaker; see `SqlVoiceStore.enrol`."""
        name = clean_name(name)
        if not recordings:
            raise ValueError("expected at least one recording")
        embeddings = [self._identity.checked(recording.embedding) for recording in recordings]
        group = self._group
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            self._identity.note_size(connection, len(embeddings[0]))
            if (earlier := recall(connection, group.name, self.errand)) is not None:
                return group.describe(connection, earlier)
            row = (group.require if must_exist else group.find)(connection, name)
            if row is not None and self._is_repeated(connection, row.id, recordings, if_exists):
                return group.describe(connection, row.id)
            if row is not None and if_exists == "error":
                raise SpeakerExistsError(f"{row.name} is enrolled already; choose another name")
            if row is None:
                self._check_room(connection, max_speakers)
                speaker_id = self._rows.add_speaker(connection, group.name, name, recordings)
            else:
                speaker_id = row.id
            old = list(connection.execute(recordings_of([speaker_id])))
            gone = [each.id for each in old if if_exists == "replace" or each.id in instead_of]
            num_kept = len(old) - len(gone)
            if max_recordings is not None and num_kept + len(recordings) > max_recordings:
                raise TooManyRecordingsError(
                    f"{name} has {num_kept} recordings and {len(recordings)} were received, "
                    f"expected at most {max_recordings} together; remove some first"
                )
            self._rows.remove_recordings(connection, gone)
            position = max((each.position for each in old), default=-1) + 1
            self._rows.add_recordings(
                connection, speaker_id, recordings, position, store_audio=self.keep_audio
            )
            all_of_them = None if num_kept else embeddings
            self._rows.set_means(connection, speaker_id, number, all_of_them)
            self._rows.touch(connection, speaker_id)
            speaker = group.describe(connection, speaker_id)
            self._note(connection, speaker.name, f"{len(recordings)} recordings", speaker_id)
        if gone:
            self._forget()
        return speaker

    def rename(self, name: str, new_name: str) -> Speaker:
        """Gives a speaker another name; see `SqlVoiceStore.rename`."""
        new_name = clean_name(new_name)
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            if (earlier := recall(connection, self._group.name, self.errand)) is not None:
                return self._group.describe(connection, earlier)
            row = self._group.require(connection, name)
            other = self._group.find(connection, new_name)
            if other is not None and other.id != row.id:
                raise SpeakerExistsError(f"{other.name} is enrolled already; choose another name")
            now = datetime.now(timezone.utc)
            values = {"name": new_name, "folded_name": fold_name(new_name), "updated_at": now}
            changed = update(speakers).where(speakers.c.id == row.id)
            connection.execute(changed.values(change_number=number, **values))
            self._note(connection, row.name, f"to {new_name}", row.id)
            return self._group.describe(connection, row.id)

    def remove(self, name: str, only: Sequence[str] | None) -> Removal:
        """Removes a speaker; see `SqlVoiceStore.remove`."""
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            row = self._group.require(connection, name)
            old = self._group.describe(connection, row.id).recordings
            if only is not None and {recording.id for recording in old} != set(only):
                raise DatabaseError(f"{row.name} has changed meanwhile and was left as it is")
            self._rows.remove_speaker(connection, row.id, number)
            self._jobs.forget_in(connection, self._group.name, row.name)
            self._note(connection, row.name, f"{len(old)} recordings", str(len(old)))
        self._forget()
        files = [f"{row.name}/{recording.id}" for recording in old]
        return Removal(len(old) + 1, len(old), (*files, str(row.name)))

    def remove_recording(self, name: str, recording_id: str) -> Speaker:
        """Removes one recording of a speaker; see `SqlVoiceStore.remove_recording`."""
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            row = self._group.require(connection, name)
            self._group.require_recording(connection, row, recording_id)
            if len(self._group.describe(connection, row.id).recordings) == 1:
                raise OnlyRecordingError(
                    f"{recording_id} is the only recording of {row.name}; "
                    "delete the speaker instead"
                )
            self._rows.remove_recordings(connection, [recording_id])
            self._rows.set_means(connection, row.id, number, skip_damaged=True)
            self._rows.touch(connection, row.id)
            speaker = self._group.describe(connection, row.id)
            self._note(connection, row.name, recording_id, row.id)
        self._forget()
        return speaker

    def remove_all(self) -> int:
        """Removes all speakers of the group, some in each transaction; returns how many."""
        num_removed = 0
        some = select(speakers.c.id).where(self._group.are_members).limit(REMOVED_AT_ONCE)
        while ids := [row.id for row in self._connections.fetch(some)]:
            with self._connections.write() as connection:
                for speaker_id in ids:
                    number = self._rows.next_change(connection)
                    self._rows.remove_speaker(connection, speaker_id, number)
            num_removed += len(ids)
        self._forget()
        return num_removed

    def _forget(self) -> None:
        """Removes what was overwritten or deleted from everywhere else; after the write."""
        self._connections.truncate_log()
        self._outside_index.forget()

    def _note(self, connection: Connection, speaker: str, outcome: str, answer: str) -> None:
        """Writes the errand's line, and remembers that it is run."""
        if self.errand is None:
            return
        outcome = self.errand.remark or outcome
        group = self._group.name
        line = AuditLine(self.errand.actor, self.errand.action, speaker, outcome, group=group)
        write_lines(connection, [line])
        remember(connection, group, self.errand, answer)

    def _is_repeated(
        self,
        connection: Connection,
        speaker_id: str,
        new: Sequence[NewRecording],
        if_exists: IfExists,
    ) -> bool:
        """Tells whether an enrolment was carried out before: it sends the same content again."""
        if self.errand is None or if_exists == "replace":
            return False
        stored = connection.execute(recordings_of([speaker_id])).all()
        if if_exists == "error" and len(stored) != len(new):
            return False
        with contextlib.suppress(DamagedVoiceError):
            return self._rows.are_last(connection, speaker_id, new)
        return False

    def _check_room(self, connection: Connection, max_speakers: int | None) -> None:
        """Raises TooManySpeakersError if the group has no room for another speaker."""
        if max_speakers is not None and self._group.count(connection) >= max_speakers:
            raise TooManySpeakersError(
                f"the group has {max_speakers} speakers, the most that it may have; delete some, "
                "or have its limit raised"
            )

"""Speakers in SQLite or PostgreSQL: one file, or one server for many processes.

A method that writes does so in one transaction and returns when it is on the disk. Reading methods
see what any process has written before they were called. All methods may be called by many threads
at once.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, insert, select, update

from utils.arrays import FloatArray
from utils.audio.fidelity import encode_faithfully
from utils.errors import (
    DamagedVoiceError,
    DatabaseError,
    OnlyRecordingError,
    OtherModelError,
    SpeakerExistsError,
    TooManyRecordingsError,
    TooManySpeakersError,
    UnknownSpeakerError,
)
from utils.speaker_names import DEFAULT_GROUP, clean_group, clean_name, fold_name, is_storable
from utils.verification.embedding import Encoder, score_pair
from utils.verification.verdict import cosine_score
from voices.sql.audio import to_playable
from voices.sql.audit import AuditLog
from voices.sql.cipher import KeyRing
from voices.sql.counts import SharedCounts
from voices.sql.engine import SqlConnections
from voices.sql.enrolments import EnrolmentTable
from voices.sql.inbox import InboxFiles
from voices.sql.index import Question
from voices.sql.jobs import JobTable
from voices.sql.normalisation import NormalisedRanking, widened
from voices.sql.other_models import OtherModels, Reembedding
from voices.sql.records import (
    AuditLine,
    IfExists,
    NewRecording,
    Removal,
    Speaker,
    StoredRecording,
)
from voices.sql.rekeying import rekey
from voices.sql.requests import Errand, recall, remember
from voices.sql.rows import VoiceRows, recordings_of
from voices.sql.schema import UNREADABLE, info, keys, means, models, speakers
from voices.sql.search import Search
from voices.sql.token_uses import TokenUses
from voices.sql.transfer import Transfer

REMOVED_AT_ONCE = 100
"""Speakers of a group that one transaction removes: others may write in between."""


class SqlVoiceStore:
    """The speakers of one group in a database; a `VoiceStore`, like `FolderVoiceStore`.

    Attributes:
        name: The address without password.
        group: Whose speakers it reaches; `in_group` gives another group's store.
        errand: On whose behalf it changes them; None writes nothing into the audit log.
        keep_audio: Whether the sound of new recordings is stored.
        is_encrypted: Whether a key encrypts what is stored of voices.
        rejected: `(recording, reason)` of recordings that `load` found of no use.
        transfer: Reads and writes whole speakers, of all groups.
        other_models: The recordings that this model has not embedded.
        audit_log: Who did what.
        inbox_files: Which files of the service's inbox are enrolled.
        token_uses: When which token of the service was used last.
        jobs: Recordings that the service works on.
        enrolments: Those that are under way.
    """

    def __init__(
        self,
        url: str,
        encoder: Encoder | None = None,
        *,
        key: bytes | None = None,
        keep_audio: bool = False,
        create: bool = True,
    ) -> None:
        """Opens a database, and makes its tables or brings them up to date.

        Args:
            url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`.
            encoder: The speaker model. Without one, waveforms cannot be enrolled.
            key: 32 bytes that encrypt embeddings and sound; None stores them readable.
            keep_audio: Store the sound of new recordings.
            create: Make the database if it is missing.

        Raises:
            DatabaseError: If it cannot be reached, is of another version, or has been made with
                another key.
        """
        self._ring = KeyRing(key)
        self._encoder = encoder
        self.keep_audio = keep_audio
        self.is_encrypted = key is not None
        self.group = DEFAULT_GROUP
        self.errand: Errand | None = None
        self.rejected: list[tuple[str, str]] = []
        self._connections = SqlConnections(url, create=create)
        self.name = self._connections.name
        self.audit_log = AuditLog(self._connections)
        self.inbox_files = InboxFiles(self._connections)
        self.shared_counts = (
            None if self._connections.is_sqlite else SharedCounts(self._connections)
        )
        self.token_uses = TokenUses(self._connections)
        try:
            self._open()
        except BaseException:
            self._connections.close()
            raise

    def in_group(self, group: str) -> "SqlVoiceStore":
        """Returns the store of another group: connections and memory are shared, no speaker is.

        Raises:
            DatabaseError: If that cannot be the name of a group.
        """
        other = copy.copy(self)
        other.group = clean_group(group)
        return other

    def on(self, errand: Errand) -> "SqlVoiceStore":
        """Returns the same store whose changes carry a line of the audit log, in one transaction.

        A change whose errand has a key is made once: repeated, it returns what it is now.
        """
        other = copy.copy(self)
        other.errand = errand
        return other

    def recall(self) -> str | None:
        """Returns what was noted when the store's errand was run before, None if it was not.

        Raises:
            RepeatedKeyError: If its key was used for something else.
        """
        with self._connections.read() as connection:
            return recall(connection, self.group, self.errand)

    def groups(self) -> dict[str, int]:
        """Returns how many speakers each group has, in alphabetical order; none has zero."""
        query = select(speakers.c.group_name, func.count()).group_by(speakers.c.group_name)
        return dict(
            sorted((str(name), int(number)) for name, number in self._connections.fetch(query))
        )

    def remove_group(self) -> int:
        """Removes all speakers of the group, as `remove` does each, and what is under way.

        It goes on where it was interrupted when it is called again.

        Returns:
            How many speakers there were.

        Raises:
            DatabaseError: If it is the default group: files of it may lie in audio_db.
        """
        if self.group == DEFAULT_GROUP:
            raise DatabaseError(
                f"the group {DEFAULT_GROUP} cannot be deleted: recordings in audio_db belong to it "
                "too; delete its speakers one by one"
            )
        num_removed = 0
        some = select(speakers.c.id).where(self._are_mine).limit(REMOVED_AT_ONCE)
        while ids := [row.id for row in self._connections.fetch(some)]:
            with self._connections.write() as connection:
                for speaker_id in ids:
                    number = self._rows.next_change(connection)
                    self._rows.remove_speaker(connection, speaker_id, number)
            num_removed += len(ids)
        self.jobs.remove_group(self.group)
        self.enrolments.remove_group(self.group)
        self._connections.truncate_log()
        return num_removed

    @property
    def _are_mine(self) -> Any:
        """The condition on the speakers of the group."""
        return speakers.c.group_name == self.group

    def load(self) -> list[str]:
        """Embeds recordings of other models, where their sound is kept, and reads all speakers.

        Those that cannot be embedded are collected in `rejected`.

        Returns:
            Names of the speakers that a voice is compared with, in alphabetical order.
        """
        self.rejected = []
        if self._encoder is not None:
            reembedding = Reembedding(self.other_models, self._encoder, group=self.group)
            reembedding.run()
            self.rejected = reembedding.rejected
        return self.prepare()

    def prepare(self) -> list[str]:
        """Reads all speakers, so that the first question need not wait; returns as `load` does."""
        self._search.prepare()
        return self._names(speakers.c.id.in_(self._own()))

    @property
    def model_id(self) -> str:
        """The model whose embeddings are compared."""
        return self._rows.model_id

    @property
    def num_damaged(self) -> int:
        """How many speakers no voice is compared with, because what is stored was changed."""
        return self._search.num_damaged

    def names(self) -> list[str]:
        """Returns the enrolled speakers in alphabetical order."""
        return self._names()

    def all_recordings(self) -> dict[str, list[StoredRecording]]:
        """Returns the recordings of each speaker, in alphabetical order of the names."""
        with self._connections.read() as connection:
            query = select(speakers).where(self._are_mine).order_by(speakers.c.name)
            found = self._rows.describe(connection, query)
        return {speaker.name: list(speaker.recordings) for speaker in found}

    def enrolled_name(self, name: str) -> str | None:
        """Returns the enrolled spelling of a name, None if nobody has it.

        Raises:
            DatabaseError: If `name` cannot be a name.
        """
        with self._connections.read() as connection:
            row = self._find(connection, name)
        return None if row is None else str(row.name)

    def recordings(self, name: str) -> list[StoredRecording]:
        """Returns the recordings of a speaker; empty if nobody has the name."""
        try:
            return list(self.speaker(name).recordings)
        except UnknownSpeakerError:
            return []

    def add(self, name: str, *waveforms: FloatArray) -> list[str]:
        """Enrols a speaker, or adds recordings to an enrolled one.

        Args:
            name: Any name that `clean_name` accepts.
            *waveforms: Shape `(num_samples,)` each, 16 kHz.

        Returns:
            NAME/ID of each new recording.

        Raises:
            AudioError: If a recording has too little speech; nothing is stored then.
            DatabaseError: If the name is unusable or nothing can be written.
        """
        return self._store(name, waveforms, "add")

    def replace(self, name: str, *waveforms: FloatArray) -> list[str]:
        """Puts new recordings in the place of all recordings of an enrolled speaker.

        Args, Returns, Raises: As `add`; UnknownSpeakerError also if nobody has the name.
        """
        self.speaker(name)
        return self._store(name, waveforms, "replace")

    def delete(self, name: str) -> list[str]:
        """Removes a speaker, and returns what was removed.

        Raises:
            UnknownSpeakerError: If nobody has the name.
        """
        return list(self.remove(name).files)

    def rank(self, embedding: FloatArray) -> list[tuple[str, float]]:
        """Compares an embedding, shape `(embedding_size,)`, with all speakers.

        Returns:
            `(name, score)`, the best first; the score is that of the speaker's normalised mean
            embedding, in [-1, 1]: the cosine, or AS-norm if the model is used with it.

        Raises:
            DatabaseError: If nobody is enrolled.
        """
        (found,) = self.identify_each([Question(embedding, top_k=None, group=self.group)])
        if not found:
            raise DatabaseError(f"nobody is enrolled in {self.name}; enrol a speaker first")
        return found

    def identify(
        self, embedding: FloatArray, *, candidates: Sequence[str] | None = None, top_k: int = 1
    ) -> list[tuple[str, float]]:
        """Returns the speakers whose voice is most alike.

        Args:
            embedding: Unit length, shape `(embedding_size,)`.
            candidates: Compare with these names only; unknown ones are passed over.
            top_k: How many to return at most.

        Returns:
            `(name, score)`, the best first, as in `rank`; empty if there is nobody.
        """
        return self.identify_each([Question(embedding, top_k, candidates, self.group)])[0]

    def identify_each(self, questions: Sequence[Question]) -> list[list[tuple[str, float]]]:
        """Answers several questions, as `identify` does, in less time than one by one.

        Each names the group that it is about.
        """
        checked = [
            dataclasses.replace(each, embedding=self._checked(each.embedding)) for each in questions
        ]
        if self._ranking is None:
            return self._search.best_of_each(checked)
        found = self._search.best_of_each([widened(each) for each in checked])
        return list(map(self._ranking.rank, checked, found))

    def score(self, name: str, embedding: FloatArray) -> float:
        """Returns the score of an embedding, shape `(embedding_size,)`, and a speaker's mean.

        As in `rank`: the cosine, or AS-norm if the model is used with it.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            OtherModelError: If there is no recording of this model.
            DatabaseError: If the stored embedding is damaged.
        """
        embedding = self._checked(embedding)
        with self._connections.read() as connection:
            row = self._require(connection, name)
            query = select(speakers.c.id, means.c.embedding, keys.c.stored)
            query = query.join(keys, keys.c.id == speakers.c.key_id)
            query = query.join(means, means.c.speaker_id == speakers.c.id)
            query = query.where(speakers.c.id == row.id)
            found = connection.execute(
                query.where(means.c.model_id == self._rows.model_id)
            ).one_or_none()
        if found is None:
            raise OtherModelError(
                f"{row.name} was enrolled with another model; enrol the voice again", row.id
            )
        enrolled = self._rows.embedding(found)
        if self._encoder is not None:
            return score_pair(self._encoder, embedding, enrolled)
        return cosine_score(embedding, enrolled)

    def enrol(
        self,
        name: str,
        recordings: Sequence[NewRecording],
        *,
        if_exists: IfExists = "error",
        instead_of: Collection[str] = (),
        max_recordings: int | None = None,
        max_speakers: int | None = None,
        must_exist: bool = False,
    ) -> Speaker:
        """Enrols recordings of a speaker: all of them, on the disk, or none.

        Args:
            name: Any name that `clean_name` accepts.
            recordings: At least one.
            if_exists: What to do if the name is enrolled already.
            instead_of: Ids of the speaker's recordings that go, where others are added.
            max_recordings: How many the speaker may have in the end.
            max_speakers: How many speakers the group may have in the end.
            must_exist: Whether the name has to be enrolled.

        Raises:
            SpeakerExistsError: If the name is enrolled and `if_exists` is "error".
            UnknownSpeakerError: If nobody has the name and `must_exist`.
            TooManyRecordingsError: If there would be more than `max_recordings`.
            TooManySpeakersError: If there would be more than `max_speakers`.
            DatabaseError: If the name is unusable or nothing can be written; DamagedVoiceError
                if what the speaker keeps is damaged.
        """
        name = clean_name(name)
        if not recordings:
            raise ValueError("expected at least one recording")
        embeddings = [self._checked(recording.embedding) for recording in recordings]
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            self._note_size(connection, len(embeddings[0]))
            if (earlier := recall(connection, self.group, self.errand)) is not None:
                return self._describe_again(connection, earlier)
            row = (self._require if must_exist else self._find)(connection, name)
            if row is not None and self._is_repeated(connection, row.id, recordings, if_exists):
                return self._describe(connection, row.id)
            if row is not None and if_exists == "error":
                raise SpeakerExistsError(f"{row.name} is enrolled already; choose another name")
            if row is None:
                self._check_room(connection, max_speakers)
                speaker_id = self._rows.add_speaker(connection, self.group, name, recordings)
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
            speaker = self._describe(connection, speaker_id)
            self._note(connection, speaker.name, f"{len(recordings)} recordings", speaker_id)
        if gone:
            self._connections.truncate_log()
        return speaker

    def speaker(self, name: str) -> Speaker:
        """Returns a speaker with the recordings.

        Raises:
            UnknownSpeakerError: If nobody has the name.
        """
        with self._connections.read() as connection:
            return self._describe(connection, self._require(connection, name).id)

    def speaker_id(self, name: str) -> str:
        """Returns the id of a speaker.

        Raises:
            UnknownSpeakerError: If nobody has the name.
        """
        with self._connections.read() as connection:
            return str(self._require(connection, name).id)

    def speakers(
        self,
        offset: int = 0,
        limit: int = 50,
        query: str = "",
        *,
        comparable: bool | None = None,
    ) -> tuple[list[Speaker], int]:
        """Returns a page of the speakers in the order of their names, and how many there are.

        Args:
            offset: How many to pass over.
            limit: How many to return at most.
            query: Only those whose name contains it.
            comparable: Only those whom this model can compare, or only the others.
        """
        if not is_storable(query):
            return [], 0
        conditions = [self._are_mine]
        if query:
            name = fold_name(query)
            conditions.append(speakers.c.folded_name.contains(name, autoescape=True))
        if comparable is not None:
            is_own = speakers.c.id.in_(self._own())
            conditions.append(is_own if comparable else ~is_own)
        with self._connections.read() as connection:
            counted = select(func.count()).where(*conditions)
            page = select(speakers).where(*conditions)
            page = page.order_by(speakers.c.name).offset(offset).limit(limit)
            total = int(connection.execute(counted).scalar_one())
            return self._rows.describe(connection, page, self._search.damaged_ids()), total

    def count(self) -> int:
        """Returns how many speakers are enrolled."""
        return int(self._connections.fetch(select(func.count()).where(self._are_mine))[0][0])

    def rename(self, name: str, new_name: str) -> Speaker:
        """Gives a speaker another name.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            SpeakerExistsError: If somebody else has the new one.
        """
        new_name = clean_name(new_name)
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            if (earlier := recall(connection, self.group, self.errand)) is not None:
                return self._describe_again(connection, earlier)
            row = self._require(connection, name)
            other = self._find(connection, new_name)
            if other is not None and other.id != row.id:
                raise SpeakerExistsError(f"{other.name} is enrolled already; choose another name")
            now = datetime.now(timezone.utc)
            values = {"name": new_name, "folded_name": fold_name(new_name), "updated_at": now}
            changed = update(speakers).where(speakers.c.id == row.id)
            connection.execute(changed.values(change_number=number, **values))
            self._note(connection, row.name, f"to {new_name}", row.id)
            return self._describe(connection, row.id)

    def remove(self, name: str, only: Sequence[str] | None = None) -> Removal:
        """Removes a speaker with embeddings, recordings and sound; nothing of the voice is left.

        Args:
            name: Who.
            only: Ids of the recordings that the speaker must have, no others.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            DatabaseError: If the speaker has other recordings than `only`; nothing is removed.
        """
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            row = self._require(connection, name)
            old = self._describe(connection, row.id).recordings
            if only is not None and {recording.id for recording in old} != set(only):
                raise DatabaseError(f"{row.name} has changed meanwhile and was left as it is")
            self._rows.remove_speaker(connection, row.id, number)
            self._note(connection, row.name, f"{len(old)} recordings", str(len(old)))
        self._connections.truncate_log()
        files = [f"{row.name}/{recording.id}" for recording in old]
        return Removal(len(old) + 1, len(old), (*files, str(row.name)))

    def remove_recording(self, name: str, recording_id: str) -> Speaker:
        """Removes one recording of a speaker, not the last one.

        Raises:
            UnknownSpeakerError: If nobody has the name, or the speaker no such recording.
            OnlyRecordingError: If it is the only one.
        """
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            row = self._require(connection, name)
            self._require_recording(connection, row, recording_id)
            if len(self._describe(connection, row.id).recordings) == 1:
                raise OnlyRecordingError(
                    f"{recording_id} is the only recording of {row.name}; "
                    "delete the speaker instead"
                )
            self._rows.remove_recordings(connection, [recording_id])
            self._rows.set_means(connection, row.id, number, skip_damaged=True)
            self._rows.touch(connection, row.id)
            speaker = self._describe(connection, row.id)
            self._note(connection, row.name, recording_id, row.id)
        self._connections.truncate_log()
        return speaker

    def recording_audio(self, name: str, recording_id: str) -> bytes | None:
        """Returns the sound of a recording as FLAC or WAV of 16 kHz mono; None if none is kept.

        Raises:
            UnknownSpeakerError: If nobody has the name, or the speaker no such recording.
        """
        content, file_name = self.original_audio(name, recording_id)
        return None if content is None else to_playable(content, file_name)

    def original_audio(self, name: str, recording_id: str) -> tuple[bytes | None, str]:
        """Returns the sound of a recording as it was stored, and its file name.

        Raises:
            UnknownSpeakerError: If nobody has the name, or the speaker no such recording.
        """
        with self._connections.read() as connection:
            row = self._require(connection, name)
            recording = self._require_recording(connection, row, recording_id)
            content = self._rows.read_audio(connection, recording.id)
        return content, str(recording.file_name)

    def rekey(self, key: bytes | None) -> tuple[int, int]:
        """Gives the database another master key, or none, and closes it; see `rekeying.rekey`."""
        done = rekey(self._connections, self._ring, KeyRing(key))
        self.close()
        return done

    def ping(self) -> None:
        """Asks the database for a sign of life.

        Raises:
            DatabaseError: If it does not answer.
        """
        self._connections.fetch(select(info.c.id))

    def close(self) -> None:
        """Closes all connections."""
        self._connections.close()

    def _open(self) -> None:
        """Compares what the database says of itself with the key and the model."""
        with self._connections.read() as connection:
            row = connection.execute(select(info)).one()
            sizes = {each.id: each.embedding_size for each in connection.execute(select(models))}
        model_id = row.model_id or ""
        if self._encoder is not None:
            model_id = str(self._encoder.model_id)
        self._size: int | None = sizes.get(model_id)
        # Nobody has been enrolled in a database without models: it takes any key.
        if row.key_check is not None or sizes:
            self._ring.check(row.key_check, self.name)
        self._ring.known_check = row.key_check
        is_known = self._encoder is None or (row.model_id == model_id and self._size is not None)
        if not is_known or (row.key_check is None and self.is_encrypted):
            self._claim(model_id)
        has_vectors = not self._connections.is_sqlite and not self.is_encrypted
        self._rows = VoiceRows(self._ring, model_id, has_vectors)
        self.other_models = OtherModels(self._connections, self._rows)
        self._search = Search(self._connections, self._rows)
        self._search.find_vector_index()
        self.transfer = Transfer(self._connections, self._rows, self._ring)
        cohort = None if self._encoder is None else self._encoder.cohort
        self._ranking: NormalisedRanking | None = None
        if cohort is not None:
            self._ranking = NormalisedRanking(cohort, self._connections, self._rows)
        self.jobs = JobTable(self._connections, self._ring)
        self.enrolments = EnrolmentTable(self._connections, self._ring)

    def _claim(self, model_id: str) -> None:
        """Notes model and key in the database, unless another process was quicker."""
        with self._connections.write() as connection:
            row = connection.execute(select(info).with_for_update()).one()
            if row.key_check is not None or connection.execute(select(models)).first() is not None:
                self._ring.check(row.key_check, self.name)
            check = self._ring.known_check = row.key_check or self._ring.check_text()
            connection.execute(update(info).values(key_check=check, model_id=model_id or None))
            if self._encoder is not None:
                self._note_size(connection, int(self._encoder.embedding_size), model_id)

    def _note(self, connection: Connection, speaker: str, outcome: str, answer: str) -> None:
        """Writes the errand's line, and remembers that it is run."""
        if self.errand is None:
            return
        outcome = self.errand.remark or outcome
        line = AuditLine(self.errand.actor, self.errand.action, speaker, outcome, group=self.group)
        self.audit_log.write(connection, [line])
        remember(connection, self.group, self.errand, answer)

    def _describe_again(self, connection: Connection, speaker_id: str) -> Speaker:
        """Returns the speaker of a repeated request, as he or she is now."""
        query = select(speakers).where(self._are_mine, speakers.c.id == speaker_id)
        found = self._rows.describe(connection, query)
        if not found:
            raise UnknownSpeakerError("what the repeated request enrolled was deleted meanwhile")
        return found[0]

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
        if max_speakers is None:
            return
        counted = select(func.count()).where(self._are_mine)
        if connection.execute(counted).scalar_one() >= max_speakers:
            raise TooManySpeakersError(
                f"the group has {max_speakers} speakers, the most that it may have; delete some, "
                "or have its limit raised"
            )

    def _note_size(self, connection: Connection, size: int, model_id: str | None = None) -> None:
        """Makes sure that all embeddings of a model have one length."""
        model_id = self._rows.model_id if model_id is None else model_id
        known = connection.execute(
            select(models.c.embedding_size).where(models.c.id == model_id)
        ).scalar()
        if known is None:
            connection.execute(insert(models), {"id": model_id, "embedding_size": size})
        elif known != size:
            raise DatabaseError(f"received {size} numbers, expected {known} as in {self.name}")
        self._size = size

    def _checked(self, embedding: FloatArray) -> FloatArray:
        """Returns an embedding with unit length; another shape is a programmer's mistake."""
        array = np.asarray(embedding, np.float32)
        length = float(np.linalg.norm(array))
        if array.ndim != 1 or self._size not in (None, len(array)) or not 0 < length < np.inf:
            raise ValueError(
                f"expected a finite embedding of {self._size} numbers, received {array.shape}"
            )
        return np.asarray(array / length, np.float32)

    def _store(self, name: str, waveforms: Sequence[FloatArray], if_exists: IfExists) -> list[str]:
        """Embeds waveforms and enrols them."""
        if self._encoder is None:
            raise ValueError("this SqlVoiceStore was opened without an encoder")
        embed, new = self._encoder.embed_waveform, []
        for waveform in waveforms:
            embedding, content = embed(waveform, source=name), None
            if self.keep_audio:
                content = encode_faithfully(waveform, embedding, embed, "FLAC")
            new.append(NewRecording.of(waveform, embedding, content))
        # Whoever is deleted meanwhile does not come back by a replacement.
        must_exist = if_exists == "replace"
        speaker = self.enrol(name, new, if_exists=if_exists, must_exist=must_exist)
        return [f"{speaker.name}/{recording.id}" for recording in speaker.recordings[-len(new) :]]

    def _names(self, *conditions: Any) -> list[str]:
        """Returns the names of the speakers that meet some conditions, in alphabetical order."""
        query = select(speakers.c.name).where(self._are_mine, *conditions)
        query = query.order_by(speakers.c.name)
        return [row.name for row in self._connections.fetch(query)]

    def _own(self) -> Any:
        """Returns the query for the ids of the speakers whom this model can compare."""
        return select(means.c.speaker_id).where(means.c.model_id == self._rows.model_id)

    def _describe(self, connection: Connection, speaker_id: str) -> Speaker:
        """Reads a speaker."""
        query = select(speakers).where(speakers.c.id == speaker_id)
        return self._rows.describe(connection, query, self._search.damaged_ids())[0]

    def _find(self, connection: Connection, name: str) -> Any:
        """Returns the row of the speaker who has a name."""
        query = select(speakers.c.id, speakers.c.name)
        folded_name = fold_name(clean_name(name))
        found = connection.execute(
            query.where(self._are_mine, speakers.c.folded_name == folded_name)
        ).one_or_none()
        if found is not None or UNREADABLE not in name:
            return found
        # No query finds by a name that cannot be read.
        rows = connection.execute(query.where(self._are_mine))
        return next((row for row in rows if fold_name(row.name) == folded_name), None)

    def _require(self, connection: Connection, name: str) -> Any:
        """Returns the row of the speaker who has a name, or raises UnknownSpeakerError."""
        row = self._find(connection, name)
        if row is None:
            raise UnknownSpeakerError(f"nobody named {clean_name(name)} in {self.name}")
        return row

    def _require_recording(self, connection: Connection, speaker: Any, recording_id: str) -> Any:
        """Returns the row of one of a speaker's recordings, or raises UnknownSpeakerError."""
        for row in connection.execute(recordings_of([speaker.id])):
            if row.id == recording_id:
                return row
        raise UnknownSpeakerError(
            f"{speaker.name} has no recording {recording_id[:40]!r}; list the recordings"
        )

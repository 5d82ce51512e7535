"""Speakers in SQLite or PostgreSQL: one file, or one server for many processes.

A method that writes does so in one transaction and returns when it is on the disk. Reading methods
see what any process has written before they were called. All methods may be called by many threads
at once.
"""

import copy
import dataclasses
from collections.abc import Collection, Sequence

from sqlalchemy import func, select

from utils.arrays import FloatArray
from utils.audio.fidelity import encode_faithfully
from utils.errors import DatabaseError, UnknownSpeakerError
from utils.speaker_names import DEFAULT_GROUP, clean_group, look_alikes, shape_of
from utils.verification.embedding import Encoder, score_pair
from utils.verification.verdict import cosine_score
from voices.sql.audio import to_playable
from voices.sql.audit import AuditLog
from voices.sql.challenges import ChallengeTable
from voices.sql.changes import SpeakerChanges
from voices.sql.cipher import KeyRing
from voices.sql.counts import SharedCounts
from voices.sql.engine import SqlConnections
from voices.sql.enrolments import EnrolmentTable
from voices.sql.group import GroupSpeakers
from voices.sql.identity import Identity
from voices.sql.inbox import InboxFiles
from voices.sql.index import Question
from voices.sql.jobs import JobTable
from voices.sql.normalisation import NormalisedRanking, widened
from voices.sql.other_models import OtherModels, Reembedding
from voices.sql.outside_index import OutsideIndex
from voices.sql.records import IfExists, NewRecording, Removal, Speaker, StoredRecording
from voices.sql.rekeying import rekey
from voices.sql.requests import Errand, recall
from voices.sql.rows import VoiceRows
from voices.sql.schema import info, recordings, speakers
from voices.sql.search import Search
from voices.sql.token_uses import TokenUses
from voices.sql.transfer import Transfer
from voices.sql.uploads import UploadMemory


class SqlVoiceStore:
    """The speakers of one group in a database; a `VoiceStore`, like `FolderVoiceStore`.

    Attributes:
        name: The address without password.
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
        challenges: What somebody was asked to read.
        uploads: Which recordings were sent in a speaker's name.
        outside_index: The index outside of the database, if it names one.
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
        other._group = self._group.in_group(clean_group(group))
        return other

    @property
    def group(self) -> str:
        """Whose speakers it reaches; `in_group` gives another group's store."""
        return self._group.name

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
        num_removed = self._changes.remove_all()
        self.jobs.remove_group(self.group)
        self.enrolments.remove_group(self.group)
        return num_removed

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
        return self._group.names(comparable=True)

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
        return self._group.names()

    def all_recordings(self) -> dict[str, list[StoredRecording]]:
        """Returns the recordings of each speaker, in alphabetical order of the names."""
        return {speaker.name: list(speaker.recordings) for speaker in self._group.all()}

    def has_recording(self, recording_id: str) -> bool:
        """Tells whether a recording of this id is enrolled, of whomever."""
        query = select(recordings.c.id).where(recordings.c.id == recording_id)
        return bool(self._connections.fetch(query))

    def enrolled_name(self, name: str) -> str | None:
        """Returns the enrolled spelling of a name, None if nobody has it.

        Raises:
            DatabaseError: If `name` cannot be a name.
        """
        with self._connections.read() as connection:
            row = self._group.find(connection, name)
        return None if row is None else str(row.name)

    def look_alikes(self, name: str) -> list[str]:
        """Returns the enrolled names that look like a name, and are other people's."""
        return look_alikes(name, self._group.names_of_length(len(shape_of(name))))

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
            dataclasses.replace(each, embedding=self._identity.checked(each.embedding))
            for each in questions
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
        embedding = self._identity.checked(embedding)
        with self._connections.read() as connection:
            enrolled = self._group.mean(connection, name)
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
        return self._changes.enrol(
            name, recordings, if_exists, instead_of, max_recordings, max_speakers, must_exist
        )

    def speaker(self, name: str) -> Speaker:
        """Returns a speaker with the recordings.

        Raises:
            UnknownSpeakerError: If nobody has the name.
        """
        with self._connections.read() as connection:
            row = self._group.require(connection, name)
            return self._group.describe(connection, row.id)

    def speaker_id(self, name: str) -> str:
        """Returns the id of a speaker.

        Raises:
            UnknownSpeakerError: If nobody has the name.
        """
        with self._connections.read() as connection:
            return str(self._group.require(connection, name).id)

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
        return self._group.page(offset, limit, query, comparable)

    def count(self) -> int:
        """Returns how many speakers are enrolled."""
        with self._connections.read() as connection:
            return self._group.count(connection)

    def rename(self, name: str, new_name: str) -> Speaker:
        """Gives a speaker another name.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            SpeakerExistsError: If somebody else has the new one.
        """
        return self._changes.rename(name, new_name)

    def remove(self, name: str, only: Sequence[str] | None = None) -> Removal:
        """Removes a speaker with embeddings, recordings and sound; nothing of the voice is left.

        Args:
            name: Who.
            only: Ids of the recordings that the speaker must have, no others.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            DatabaseError: If the speaker has other recordings than `only`; nothing is removed.
        """
        return self._changes.remove(name, only)

    def remove_recording(self, name: str, recording_id: str) -> Speaker:
        """Removes one recording of a speaker, not the last one.

        Raises:
            UnknownSpeakerError: If nobody has the name, or the speaker no such recording.
            OnlyRecordingError: If it is the only one.
        """
        return self._changes.remove_recording(name, recording_id)

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
            row = self._group.require(connection, name)
            recording = self._group.require_recording(connection, row, recording_id)
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
        """Compares the database with the key and the model, and makes the parts."""
        identity = self._identity = Identity(self._connections, self._ring, self._encoder)
        has_vectors = not self._connections.is_sqlite and not self.is_encrypted
        self._rows = VoiceRows(self._ring, identity.model_id, has_vectors)
        self.other_models = OtherModels(self._connections, self._rows)
        self.outside_index = OutsideIndex(self._connections, self._rows, identity.index_address)
        self._search = Search(self._connections, self._rows, self.outside_index)
        self._search.find_vector_index()
        self._group = GroupSpeakers(DEFAULT_GROUP, self._connections, self._rows, self._search)
        self.transfer = Transfer(self._connections, self._rows, self._ring)
        cohort = None if self._encoder is None else self._encoder.cohort
        self._ranking: NormalisedRanking | None = None
        if cohort is not None:
            self._ranking = NormalisedRanking(cohort, self._connections, self._rows)
        self.jobs = JobTable(self._connections, self._ring)
        self.enrolments = EnrolmentTable(self._connections, self._ring)
        self.challenges = ChallengeTable(self._connections)
        self.uploads = UploadMemory(self._connections, self._ring)

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

    @property
    def _changes(self) -> SpeakerChanges:
        """Who changes the speakers of the group, on the store's errand."""
        return SpeakerChanges(
            self._connections,
            self._rows,
            self._identity,
            self._group,
            self.outside_index,
            self.jobs,
            errand=self.errand,
            keep_audio=self.keep_audio,
        )

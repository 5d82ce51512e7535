"""Speakers in SQLite or PostgreSQL: enrolled, read, changed, removed and compared.

A method that writes does so in one transaction and returns when it is on the disk. Reading methods
see what any process has written before they were called. All methods may be called by many threads
at once.
"""

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select, update

from utils.arrays import FloatArray
from utils.errors import (
    DatabaseError,
    OnlyRecordingError,
    OtherModelError,
    SpeakerExistsError,
    TooManyRecordingsError,
    UnknownSpeakerError,
)
from utils.speaker_names import clean_name, fold_name, is_storable
from voices.sql.audio import to_playable
from voices.sql.cipher import KeyRing
from voices.sql.engine import Database
from voices.sql.records import IfExists, NewRecording, Removal, Speaker
from voices.sql.rows import Voices, recordings_of
from voices.sql.schema import info, keys, recordings, speakers
from voices.sql.search import Search


class SpeakerStore:
    """The speakers of one database.

    Attributes:
        name: The address without password.
        keep_audio: Whether the sound of new recordings is stored.
        is_encrypted: Whether a key encrypts what is stored of voices.
        rejected: `(recording, reason)` of recordings that `load` found of no use.
    """

    def __init__(
        self,
        url: str,
        encoder: Any = None,
        *,
        key: bytes | None = None,
        keep_audio: bool = False,
        create: bool = True,
    ) -> None:
        """Opens a database, and makes its tables or brings them up to date.

        Args:
            url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`.
            encoder: The speaker model. Without one, enrolment of waveforms is not possible.
            key: 32 bytes that encrypt embeddings and sound; None stores them readable.
            keep_audio: Store the sound of new recordings.
            create: Make the database if it is missing.

        Raises:
            DatabaseError: If it cannot be reached, is of another version, has been made with
                another key, or with a model whose embeddings have another length.
        """
        self._ring = KeyRing(key)
        self._encoder = encoder
        self.keep_audio = keep_audio
        self.is_encrypted = key is not None
        self.rejected: list[tuple[str, str]] = []
        self._database = Database(url, create=create)
        self.name = self._database.name
        try:
            self._open()
        except BaseException:
            self._database.close()
            raise

    def enrol(
        self,
        name: str,
        recordings: Sequence[NewRecording],
        *,
        if_exists: IfExists = "error",
        max_recordings: int | None = None,
        must_exist: bool = False,
    ) -> Speaker:
        """Enrols recordings of a speaker: all of them, on the disk, or none.

        Args:
            name: Any name that `clean_name` accepts.
            recordings: At least one.
            if_exists: What to do if the name is enrolled already.
            max_recordings: How many the speaker may have in the end.
            must_exist: Whether the name has to be enrolled.

        Raises:
            SpeakerExistsError: If the name is enrolled and `if_exists` is "error".
            UnknownSpeakerError: If nobody has the name and `must_exist`.
            TooManyRecordingsError: If there would be more than `max_recordings`.
            DatabaseError: If the name is unusable or nothing can be written; DamagedVoiceError
                if what the speaker keeps is damaged.
        """
        name = clean_name(name)
        if not recordings:
            raise ValueError("expected at least one recording")
        for recording in recordings:
            self._checked(recording.embedding)
        with self._database.write() as connection:
            number, size = self._voices.next_change(connection)
            self._note_size(connection, size, len(recordings[0].embedding))
            row = (self._require if must_exist else self._find)(connection, name)
            if row is not None and if_exists == "error":
                raise SpeakerExistsError(f"{row.name} is enrolled already; choose another name")
            if row is None:
                speaker_id = self._voices.add_speaker(
                    connection, name, fold_name(name), number, recordings
                )
            else:
                speaker_id = row.id
            old = list(connection.execute(recordings_of([speaker_id]))) if row is not None else []
            has_replaced = bool(old) and if_exists == "replace"
            if has_replaced:
                self._voices.remove_recordings(connection, [recording.id for recording in old])
            kept = 0 if has_replaced else len(old)
            if max_recordings is not None and kept + len(recordings) > max_recordings:
                raise TooManyRecordingsError(
                    f"{name} has {kept} recordings and {len(recordings)} were received, expected "
                    f"at most {max_recordings} together; remove some first"
                )
            first = max((recording.position for recording in old), default=-1) + 1
            for position, recording in enumerate(recordings, start=first):
                self._voices.add_recording(
                    connection, speaker_id, recording, position, self.keep_audio
                )
            all_of_them = None if kept else [recording.embedding for recording in recordings]
            self._voices.set_speaker_embedding(connection, speaker_id, number, all_of_them)
            speaker = self._describe(connection, speaker_id)
        if has_replaced:
            self._database.forget()
        return speaker

    def speaker(self, name: str) -> Speaker:
        """Returns a speaker with the recordings.

        Raises:
            UnknownSpeakerError: If nobody has the name.
        """
        with self._database.read() as connection:
            return self._describe(connection, self._require(connection, name).id)

    def speakers(
        self, offset: int = 0, limit: int = 50, query: str = ""
    ) -> tuple[list[Speaker], int]:
        """Returns a page of the speakers in the order of their names, and how many there are.

        Args:
            offset: How many to pass over.
            limit: How many to return at most.
            query: Only names that contain this, in small or capital letters.
        """
        condition = speakers.c.folded_name.contains(fold_name(query), autoescape=True)
        if not is_storable(query):
            return [], 0
        with self._database.read() as connection:
            counted = select(func.count()).select_from(speakers)
            page = select(speakers).order_by(speakers.c.name).offset(offset).limit(limit)
            if query:
                counted, page = counted.where(condition), page.where(condition)
            total = int(connection.execute(counted).scalar_one())
            return self._voices.describe(connection, connection.execute(page)), total

    def rename(self, name: str, new_name: str) -> Speaker:
        """Gives a speaker another name.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            SpeakerExistsError: If somebody else has the new one.
        """
        new_name = clean_name(new_name)
        with self._database.write() as connection:
            number, _ = self._voices.next_change(connection)
            row = self._require(connection, name)
            other = self._find(connection, new_name)
            if other is not None and other.id != row.id:
                raise SpeakerExistsError(f"{other.name} is enrolled already; choose another name")
            now = datetime.now(timezone.utc)
            values = {"name": new_name, "folded_name": fold_name(new_name), "updated_at": now}
            changed = update(speakers).where(speakers.c.id == row.id)
            connection.execute(changed.values(change_number=number, **values))
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
        with self._database.write() as connection:
            number, _ = self._voices.next_change(connection)
            row = self._require(connection, name)
            old = self._describe(connection, row.id).recordings
            if only is not None and {recording.id for recording in old} != set(only):
                raise DatabaseError(f"{row.name} has changed meanwhile and was left as it is")
            self._voices.remove_speaker(connection, row.id, number)
        self._database.forget()
        files = [f"{row.name}/{recording.id}" for recording in old]
        return Removal(len(old) + 1, len(old), (*files, str(row.name)))

    def remove_recording(self, name: str, recording_id: str) -> Speaker:
        """Removes one recording of a speaker, not the last one.

        Raises:
            UnknownSpeakerError: If nobody has the name, or the speaker no such recording.
            OnlyRecordingError: If it is the only one.
        """
        with self._database.write() as connection:
            number, _ = self._voices.next_change(connection)
            row = self._require(connection, name)
            self._require_recording(connection, row, recording_id)
            if len(self._describe(connection, row.id).recordings) == 1:
                raise OnlyRecordingError(
                    f"{recording_id} is the only recording of {row.name}; "
                    "delete the speaker instead"
                )
            self._voices.remove_recordings(connection, [recording_id])
            self._voices.set_speaker_embedding(connection, row.id, number, pass_over=True)
            speaker = self._describe(connection, row.id)
        self._database.forget()
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
        with self._database.read() as connection:
            row = self._require(connection, name)
            recording = self._require_recording(connection, row, recording_id)
            content = self._voices.read_audio(connection, recording.id)
        return content, str(recording.file_name)

    def recording_owners(self) -> dict[str, str]:
        """Returns the speaker of each recording, by the recording's id."""
        query = select(recordings.c.id, speakers.c.name)
        query = query.join(speakers, speakers.c.id == recordings.c.speaker_id)
        with self._database.read() as connection:
            return {row.id: row.name for row in connection.execute(query)}

    def count(self) -> int:
        """Returns how many speakers are enrolled."""
        with self._database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(speakers)).scalar_one())

    def score(self, name: str, embedding: FloatArray) -> float:
        """Returns the cosine of an embedding, shape `(embedding_size,)`, to a speaker's mean.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            OtherModelError: If there is no recording of this model.
            DatabaseError: If the stored embedding is damaged.
        """
        embedding = self._checked(embedding)
        with self._database.read() as connection:
            row = self._require(connection, name)
            query = select(speakers.c.id, speakers.c.embedding, keys.c.stored)
            query = query.join(keys, keys.c.id == speakers.c.key_id)
            query = query.where(speakers.c.id == row.id)
            found = connection.execute(
                query.where(speakers.c.model_id == self._voices.model_id)
            ).one_or_none()
        if found is None:
            raise OtherModelError(
                f"{row.name} was enrolled with another model; enrol the voice again"
            )
        return float(np.clip(self._voices.embedding(found) @ embedding, -1, 1))

    def ping(self) -> None:
        """Asks the database for a sign of life.

        Raises:
            DatabaseError: If it does not answer.
        """
        with self._database.read() as connection:
            connection.execute(select(info.c.id)).one()

    def close(self) -> None:
        """Closes all connections."""
        self._database.close()

    def _open(self) -> None:
        """Compares what the database says of itself with the key and the model."""
        with self._database.read() as connection:
            row = connection.execute(select(info)).one()
        self._size: int | None = row.embedding_size
        model_id = row.model_id or ""
        if self._encoder is not None:
            model_id = str(self._encoder.model_id)
            size = int(self._encoder.embedding_size)
            if self._size not in (None, size):
                raise DatabaseError(
                    f"{self.name} holds embeddings of {self._size} numbers, those of this model "
                    f"have {size}; open it with its own model, or move the voices into a new "
                    "database with move_voices.py"
                )
            self._size = size
        # Nobody has been enrolled in a database without a size: it takes any key.
        if row.key_check is not None or row.embedding_size is not None:
            self._ring.check(row.key_check, self.name)
        if (row.embedding_size, row.model_id or "") != (self._size, model_id) or (
            row.key_check is None and self.is_encrypted
        ):
            self._claim(model_id)
        has_vectors = not self._database.is_sqlite and not self.is_encrypted
        self._voices = Voices(self._ring, model_id, has_vectors)
        self._search = Search(self._database, self._voices)
        self._search.find_vector_index()

    def _claim(self, model_id: str) -> None:
        """Notes model, size and key in the database, unless another process was quicker."""
        with self._database.write() as connection:
            row = connection.execute(select(info).with_for_update()).one()
            if row.key_check is not None or row.embedding_size is not None:
                self._ring.check(row.key_check, self.name)
            if row.embedding_size not in (None, self._size):
                raise DatabaseError(f"{self.name} was just made with another model; check yours")
            check = row.key_check or self._ring.check_text()
            values = {"embedding_size": self._size, "model_id": model_id or None}
            connection.execute(update(info).values(key_check=check, **values))

    def _note_size(self, connection: Connection, known: int | None, size: int) -> None:
        """Makes sure that all embeddings of the database have one length."""
        if known is None:
            connection.execute(update(info).values(embedding_size=size))
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

    def _describe(self, connection: Connection, speaker_id: str) -> Speaker:
        """Reads a speaker."""
        query = select(speakers).where(speakers.c.id == speaker_id)
        return self._voices.describe(connection, connection.execute(query))[0]

    def _find(self, connection: Connection, name: str) -> Any:
        """Returns the row of the speaker who has a name."""
        query = select(speakers.c.id, speakers.c.name)
        query = query.where(speakers.c.folded_name == fold_name(clean_name(name)))
        return connection.execute(query).one_or_none()

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

"""The voice database in SQLite or PostgreSQL: one file, or one server for many processes."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects import sqlite

from utils.arrays import FloatArray
from utils.audio.activity import speech_seconds
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import (
    AudioError,
    DamagedVoiceError,
    DatabaseError,
    SpeakerExistsError,
    TooManyRecordingsError,
    UnknownSpeakerError,
)
from voices.sql.audio import decode, encode_flac
from voices.sql.index import Question
from voices.sql.records import (
    AuditEntry,
    AuditLine,
    IfExists,
    NewRecording,
    Removal,
    Speaker,
    StoredRecording,
)
from voices.sql.schema import UtcTime, audio, audit, keys, recordings, speakers
from voices.sql.speakers import SpeakerStore

__all__ = [
    "AuditEntry",
    "AuditLine",
    "IfExists",
    "NewRecording",
    "Removal",
    "Speaker",
    "SpeakerExistsError",
    "SqlVoiceprintDatabase",
    "StoredRecording",
    "TooManyRecordingsError",
    "UnknownSpeakerError",
]

MAX_AUDIT_TEXT = 400
"""Characters of a text in the audit log; what callers send as a name may be of any length."""

SQLITE = sqlite.dialect(paramstyle="named")

ADD_AUDIT_SQLITE = str(
    insert(audit).compile(
        dialect=SQLITE, column_keys=[column.name for column in audit.c if column.name != "id"]
    )
)
"""The statement that adds a line, with the columns' names for parameters."""


class SqlVoiceprintDatabase(SpeakerStore):
    """The enrolled speakers of a SQLite file or a PostgreSQL database, and the audit log.

    It can be used like `VoiceprintDatabase`, which keeps them in a folder.
    """

    def load(self) -> list[str]:
        """Embeds recordings of another model again, where their sound is kept, and reads all.

        Those without sound are collected in `rejected`.

        Returns:
            Names of the speakers that a voice is compared with, in alphabetical order.
        """
        self.rejected = []
        changed: dict[str, list[tuple[Any, FloatArray]]] = {}
        for row in self._recordings_of_other_models():
            label = f"{row.name}/{row.id}"
            if row.recording_id is None or self._encoder is None:
                reason = "made by another model, and its sound was not kept; enrol it again"
                self.rejected.append((label, reason))
                continue
            try:
                with self._database.read() as connection:
                    content = self._voices.read_audio(connection, row.id)
                waveform = decode(content or b"", row.file_name)
                embedding = self._encoder.embed_waveform(waveform, source=label)
            except (AudioError, DamagedVoiceError) as error:
                self.rejected.append((label, str(error)))
                continue
            changed.setdefault(row.speaker_id, []).append((row, embedding))
        for speaker_id, pairs in changed.items():
            with self._database.write() as connection:
                number, _ = self._voices.next_change(connection)
                for row, embedding in pairs:
                    self._voices.set_embedding(connection, row, embedding)
                self._voices.set_speaker_embedding(connection, speaker_id, number, pass_over=True)
        self._search.prepare()
        usable = speakers.c.model_id == self._voices.model_id
        with self._database.read() as connection:
            query = select(speakers.c.name).where(usable).order_by(speakers.c.name)
            return list(connection.execute(query).scalars())

    @property
    def num_damaged(self) -> int:
        """How many speakers no voice is compared with, because what is stored was changed."""
        return self._search.num_damaged

    def names(self) -> list[str]:
        """Returns the enrolled speakers in alphabetical order."""
        with self._database.read() as connection:
            query = select(speakers.c.name).order_by(speakers.c.name)
            return list(connection.execute(query).scalars())

    def find(self, name: str) -> str | None:
        """Returns the enrolled spelling of a name, None if nobody has it.

        Raises:
            DatabaseError: If `name` cannot be a name.
        """
        with self._database.read() as connection:
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
            `(name, score)`, the best first; the score is the cosine in [-1, 1] to the speaker's
            normalised mean embedding.

        Raises:
            DatabaseError: If nobody is enrolled.
        """
        (found,) = self.identify_each([Question(embedding, top_k=None)])
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
        return self.identify_each([Question(embedding, top_k, candidates)])[0]

    def identify_each(self, questions: Sequence[Question]) -> list[list[tuple[str, float]]]:
        """Answers several questions, as `identify` does, in less time than one by one."""
        return self._search.best_of_each(
            [
                dataclasses.replace(each, embedding=self._checked(each.embedding))
                for each in questions
            ]
        )

    def append_audit(self, *lines: AuditLine) -> None:
        """Writes lines of the audit log, all of them or none; texts are cut at 400 characters."""
        now = datetime.now(timezone.utc)
        rows: list[dict[str, Any]] = [
            {
                "at": now,
                "actor": _storable(line.actor),
                "action": _storable(line.action),
                "speaker": _storable(line.speaker),
                "outcome": _storable(line.outcome),
                "score": None if line.score is None else float(line.score),
            }
            for line in lines
        ]
        if self._database.is_sqlite:
            # Every decision ends with this: half the time of a transaction by SQLAlchemy.
            at = UtcTime().process_bind_param(now, SQLITE)
            self._database.append(ADD_AUDIT_SQLITE, [row | {"at": at} for row in rows])
            return
        with self._database.write() as connection:
            connection.execute(insert(audit), rows)

    def audit(self, limit: int = 100) -> list[AuditEntry]:
        """Returns the last lines of the audit log, the newest first."""
        columns = [column for column in audit.c if column.name != "id"]
        query = select(*columns).order_by(audit.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            return [AuditEntry(*row) for row in connection.execute(query)]

    def _recordings_of_other_models(self) -> list[Any]:
        """Returns the recordings that cannot be compared, and whether their sound is kept."""
        query = (
            select(
                recordings.c.id,
                recordings.c.speaker_id,
                recordings.c.file_name,
                speakers.c.name,
                keys.c.stored,
                audio.c.recording_id,
            )
            .join(speakers, speakers.c.id == recordings.c.speaker_id)
            .join(keys, keys.c.id == recordings.c.key_id)
            .outerjoin(audio, audio.c.recording_id == recordings.c.id)
            .where(recordings.c.model_id != self._voices.model_id)
            .order_by(speakers.c.name, recordings.c.position)
        )
        with self._database.read() as connection:
            return list(connection.execute(query))

    def _store(self, name: str, waveforms: Sequence[FloatArray], if_exists: IfExists) -> list[str]:
        """Embeds waveforms and enrols them."""
        if self._encoder is None:
            raise ValueError("this SqlVoiceprintDatabase was opened without an encoder")
        new = [
            NewRecording(
                embedding=self._encoder.embed_waveform(waveform, source=name),
                speech_s=speech_seconds(waveform),
                audio=encode_flac(waveform) if self.keep_audio else None,
                duration_s=len(waveform) / SAMPLE_RATE,
            )
            for waveform in waveforms
        ]
        # Whoever is deleted meanwhile does not come back by a replacement.
        must_exist = if_exists == "replace"
        speaker = self.enrol(name, new, if_exists=if_exists, must_exist=must_exist)
        return [f"{speaker.name}/{recording.id}" for recording in speaker.recordings[-len(new) :]]


def _storable(text: str) -> str:
    """Returns a text without what no database stores: NUL, lone surrogates, and too much."""
    text = text.replace("\0", "\ufffd")[:MAX_AUDIT_TEXT]
    return text.encode("utf-8", errors="replace").decode("utf-8")

"""Enrolments that are under way: recordings come one by one until there are enough.

They outlive a restart, and are destroyed with their key when they are finished, given up or expire.
"""

import base64
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, func, insert, select, update

from utils.errors import UnknownEnrolmentError, UnknownSpeakerError
from voices.sql.cipher import KeyRing, seal, unseal
from voices.sql.engine import SqlConnections
from voices.sql.keys import new_key, remove_sealed
from voices.sql.owned import OwnedTable, Owner, utc_now
from voices.sql.records import NewRecording
from voices.sql.requests import Errand, recall
from voices.sql.schema import enrolments, keys, parts, speakers


@dataclass(frozen=True)
class Part:
    """A recording of an enrolment.

    Attributes:
        number: From 1, in the order in which they came; the numbers of removed ones stay free.
        recording: The recording.
        model_id: Whose embedding it has.
        quality: How good it is, as it was answered.
        is_confirmed: Whether somebody says that it is the speaker's voice though it differs.
    """

    number: int
    recording: NewRecording
    model_id: str
    quality: dict[str, Any]
    is_confirmed: bool = False


@dataclass(frozen=True)
class Enrolment:
    """An enrolment that is under way.

    Attributes:
        id: 32 hexadecimal digits.
        wish: What was asked for at its beginning.
        created_at: When it began, UTC.
        expires_at: When it will be removed; later with each recording.
        parts: The recordings so far.
    """

    id: str
    wish: dict[str, Any]
    created_at: datetime
    expires_at: datetime
    parts: tuple[Part, ...]


class EnrolmentTable(OwnedTable):
    """The enrolments under way of one database."""

    def __init__(self, connections: SqlConnections, ring: KeyRing) -> None:
        """Takes the connections and the keeper of the keys."""
        super().__init__(connections, ring, enrolments)

    def begin(self, owner: Owner, wish: dict[str, Any], keep_s: float) -> Enrolment:
        """Begins an enrolment."""
        now = utc_now()
        new = Enrolment(uuid.uuid4().hex, wish, now, now + timedelta(seconds=keep_s), ())
        with self._connections.write() as connection:
            key_id, key = new_key(connection, self._ring)
            row: dict[str, Any] = {"id": new.id, "group_name": owner.group, "actor": owner.actor}
            row |= {"created_at": now, "expires_at": new.expires_at, "key_id": key_id}
            row["wish"] = seal(key, json.dumps(wish).encode(), f"{new.id} wish")
            connection.execute(insert(enrolments), row)
        return new

    def count(self, owner: Owner) -> int:
        """Returns how many enrolments of an owner are under way."""
        query = select(func.count()).select_from(enrolments).where(*self._are_of(owner))
        return int(self._connections.fetch(query)[0][0])

    def find(self, enrolment_id: str, owner: Owner) -> Enrolment | None:
        """Returns an owner's enrolment, None if there is none by now."""
        with self._connections.read() as connection:
            return self._read(connection, enrolment_id, owner)

    def add(
        self,
        enrolment_id: str,
        owner: Owner,
        recording: NewRecording,
        model_id: str,
        quality: dict[str, Any],
        keep_s: float,
    ) -> Enrolment | None:
        """Adds a recording, and returns the enrolment; None if there is none by now."""
        with self._connections.write() as connection:
            row = self._hold(connection, enrolment_id, owner)
            if row is None:
                return None
            highest = select(func.max(parts.c.number)).where(parts.c.enrolment_id == row.id)
            number = (connection.execute(highest).scalar() or 0) + 1
            new = Part(number, recording, model_id, quality)
            sealed = self._seal(row, new)
            connection.execute(
                insert(parts), {"enrolment_id": row.id, "number": number, "content": sealed}
            )
            kept = update(enrolments).where(enrolments.c.id == row.id)
            connection.execute(kept.values(expires_at=utc_now() + timedelta(seconds=keep_s)))
            return self._read(connection, enrolment_id, owner)

    def remove_part(self, enrolment_id: str, owner: Owner, number: int) -> Enrolment | None:
        """Removes a recording, and returns the enrolment; None if there is none by now."""
        with self._connections.write() as connection:
            if self._read(connection, enrolment_id, owner) is None:
                return None
            mine = parts.c.enrolment_id == enrolment_id
            connection.execute(delete(parts).where(mine, parts.c.number == number))
            found = self._read(connection, enrolment_id, owner)
        self._connections.truncate_log()
        return found

    def confirm(
        self, enrolment_id: str, owner: Owner, number: int, is_confirmed: bool
    ) -> Enrolment | None:
        """Notes what somebody says of a recording, and returns the enrolment; None if it is gone.

        A recording that is gone by now stays so.
        """
        with self._connections.write() as connection:
            row = self._hold(connection, enrolment_id, owner)
            found = self._read(connection, enrolment_id, owner)
            if row is None or found is None:
                return None
            for part in found.parts:
                if part.number == number:
                    sealed = self._seal(row, replace(part, is_confirmed=is_confirmed))
                    changed = update(parts).where(
                        parts.c.enrolment_id == row.id, parts.c.number == number
                    )
                    connection.execute(changed.values(content=sealed))
            return self._read(connection, enrolment_id, owner)

    def finished(self, errand: Errand, group: str) -> str | None:
        """Returns the name of the speaker whom a finished enrolment led to, None if it is not.

        Raises:
            UnknownSpeakerError: If the speaker was deleted meanwhile.
        """
        with self._connections.read() as connection:
            speaker_id = recall(connection, group, errand)
            if speaker_id is None:
                return None
            name = connection.scalar(select(speakers.c.name).where(speakers.c.id == speaker_id))
        if name is None:
            raise UnknownSpeakerError("what the finished enrolment enrolled was deleted meanwhile")
        return str(name)

    def removal(self, enrolment_id: str) -> Callable[[Connection, str], None]:
        """Returns what removes an enrolment in the transaction that enrols its speaker.

        It raises UnknownEnrolmentError if the enrolment is gone by then.
        """

        def remove(connection: Connection, _: str) -> None:
            chosen = [enrolments.c.id == enrolment_id]
            if not remove_sealed(connection, self._ring, enrolments, chosen):
                raise UnknownEnrolmentError("the enrolment was given up meanwhile")

        return remove

    def settle(self, enrolment_id: str) -> None:
        """Leaves nothing of a finished enrolment, neither rows nor what SQLite's log holds."""
        if not self.remove(enrolment_id):
            self._connections.truncate_log()

    def _hold(self, connection: Connection, enrolment_id: str, owner: Owner) -> Any:
        """Returns the row of an enrolment, which nobody else changes until the transaction ends."""
        query = self._query(enrolment_id, owner).with_for_update(of=enrolments)
        return connection.execute(query).one_or_none()

    def _seal(self, row: Any, part: Part) -> bytes:
        """Returns a recording as it is stored."""
        return seal(self._ring.open(row.stored), _pack(part), f"{row.id} part {part.number}")

    def _read(self, connection: Connection, enrolment_id: str, owner: Owner) -> Enrolment | None:
        """Reads an enrolment."""
        row = connection.execute(self._query(enrolment_id, owner)).one_or_none()
        if row is None:
            return None
        key = self._ring.open(row.stored)
        query = select(parts.c.number, parts.c.content).where(parts.c.enrolment_id == row.id)
        found = [
            _unpack(part.number, unseal(key, part.content, f"{row.id} part {part.number}"))
            for part in connection.execute(query.order_by(parts.c.number))
        ]
        wish = json.loads(unseal(key, row.wish, f"{row.id} wish"))
        return Enrolment(row.id, wish, row.created_at, row.expires_at, tuple(found))

    def _query(self, enrolment_id: str, owner: Owner) -> Any:
        """Returns the query for an enrolment that has not expired, with its key."""
        query = select(enrolments, keys.c.stored).join(keys, keys.c.id == enrolments.c.key_id)
        return query.where(enrolments.c.id == enrolment_id, *self._are_of(owner))


def _pack(part: Part) -> bytes:
    """Returns a recording as it is sealed."""
    recording = part.recording
    audio = None if recording.audio is None else base64.b64encode(recording.audio).decode()
    content = {"embedding": recording.embedding.tolist(), "speech_s": recording.speech_s}
    content |= {"duration_s": recording.duration_s, "audio": audio}
    content |= {"model_id": part.model_id, "quality": part.quality}
    return json.dumps(content | {"is_confirmed": part.is_confirmed}).encode()


def _unpack(number: int, content: bytes) -> Part:
    """Returns what `_pack` packed."""
    found = json.loads(content)
    audio = None if found["audio"] is None else base64.b64decode(found["audio"])
    embedding = np.asarray(found["embedding"], np.float32)
    recording = NewRecording(embedding, found["speech_s"], audio, found["duration_s"])
    return Part(number, recording, found["model_id"], found["quality"], found["is_confirmed"])

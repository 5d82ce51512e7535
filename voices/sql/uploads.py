"""Which recordings were sent in a speaker's name, so that none is accepted twice.

Of each there is a print and a hash, sealed under one key of the speaker: no sound, no embedding.
Deleting the speaker destroys them.
"""

import hashlib
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, insert, select

from utils.arrays import FloatArray
from utils.audio.fingerprint import SAME, Print, agreement, take_prints
from utils.errors import DamagedVoiceError, ReplayedError, UnknownSpeakerError
from voices.sql.challenges import use
from voices.sql.cipher import KeyRing, seal, unseal
from voices.sql.engine import SqlConnections
from voices.sql.keys import destroy_keys, new_key
from voices.sql.owned import utc_now
from voices.sql.schema import keys, speakers, uploads

HASH_BYTES = 32
"""Length of SHA-256."""


@dataclass(frozen=True)
class Upload:
    """What a recording is known by.

    Attributes:
        sha256: Of its samples as they were decoded, 32 bytes.
        prints: What is left of it in copies; the first is kept.
    """

    sha256: bytes
    prints: tuple[Print, ...]

    @classmethod
    def of(cls, waveform: FloatArray) -> "Upload":
        """Returns it for a recording, shape `(num_samples,)`, 16 kHz."""
        samples = np.ascontiguousarray(waveform, "<f4")
        return cls(hashlib.sha256(samples.tobytes()).digest(), take_prints(waveform))

    def is_known(self, earlier: Sequence["Upload"]) -> bool:
        """Tells whether it is one of some others, or a copy."""
        if any(self.sha256 == other.sha256 for other in earlier):
            return True
        kept = [other.prints[0] for other in earlier]
        return any(agreement(print, kept) >= SAME for print in self.prints)

    def to_bytes(self) -> bytes:
        """Returns it as it is sealed."""
        return self.sha256 + self.prints[0].to_bytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Upload":
        """Returns what `to_bytes` wrote."""
        return cls(content[:HASH_BYTES], (Print.from_bytes(content[HASH_BYTES:]),))


@dataclass(frozen=True)
class Retention:
    """How much is remembered of a speaker: the newest, and not for longer than some days."""

    max_uploads: int
    days: float


class UploadMemory:
    """The recordings that one database remembers."""

    def __init__(self, connections: SqlConnections, ring: KeyRing) -> None:
        """Takes the connections and the keeper of the keys."""
        self._connections = connections
        self._ring = ring

    def admit(
        self,
        speaker_id: str,
        new: Sequence[Upload],
        challenge_id: str | None,
        retention: Retention,
    ) -> None:
        """Remembers recordings that were sent in a speaker's name, and uses up their challenge.

        Raises:
            ReplayedError: If one was sent before; the challenge is used up all the same.
            UsedChallengeError: If the challenge was used.
            UnknownSpeakerError: If the speaker was deleted meanwhile.
        """
        # Comparing takes a while: others may write meanwhile, and only what they add is left.
        with self._connections.read() as connection:
            seen, is_replayed = self._compare(connection, speaker_id, new)
        with self._connections.write() as connection:
            self._hold(connection, speaker_id)
            if challenge_id is not None:
                use(connection, challenge_id)
            if not is_replayed:
                _, is_replayed = self._compare(connection, speaker_id, new, seen)
            if not is_replayed:
                self._keep(connection, speaker_id, new, retention)
        if is_replayed:
            raise ReplayedError("this recording was sent before; say it anew")

    def admission(
        self, new: Sequence[Upload], challenge_id: str | None, retention: Retention
    ) -> Callable[[Connection, str], None]:
        """Returns what does the same in the transaction of an enrolment, or undoes it."""

        def admit(connection: Connection, speaker_id: str) -> None:
            if challenge_id is not None:
                use(connection, challenge_id)
            if self._compare(connection, speaker_id, new)[1]:
                raise ReplayedError("this recording was sent before; say it anew")
            self._keep(connection, speaker_id, new, retention)

        return admit

    def times(self, speaker_id: str) -> list[datetime]:
        """Returns when the remembered recordings of a speaker were sent, UTC."""
        query = select(uploads.c.created_at).where(uploads.c.speaker_id == speaker_id)
        return [row[0] for row in self._connections.fetch(query.order_by(uploads.c.created_at))]

    def remove_old(self, days: float) -> int:
        """Forgets what is older than some days, and returns how many recordings that were."""
        is_old = uploads.c.created_at < utc_now() - timedelta(days=days)
        if not self._connections.fetch(select(uploads.c.id).where(is_old).limit(1)):
            return 0  # without a transaction that writes
        with self._connections.write() as connection:
            gone = self._remove(connection, is_old)
        self._connections.truncate_log()
        return gone

    def _hold(self, connection: Connection, speaker_id: str) -> None:
        """Lets others who send in this speaker's name wait until the transaction ends."""
        query = select(speakers.c.id).where(speakers.c.id == speaker_id).with_for_update()
        if connection.execute(query).one_or_none() is None:
            raise UnknownSpeakerError("the speaker was deleted meanwhile")

    def _compare(
        self,
        connection: Connection,
        speaker_id: str,
        new: Sequence[Upload],
        seen: Collection[str] = (),
    ) -> tuple[set[str], bool]:
        """Compares recordings with those that are remembered and were not seen.

        Returns:
            The ids of those that they were compared with, and whether one is known.
        """
        query = select(uploads.c.id, uploads.c.content, keys.c.stored)
        query = query.join(keys, keys.c.id == uploads.c.key_id)
        query = query.where(uploads.c.speaker_id == speaker_id, uploads.c.id.not_in(seen))
        earlier = {}
        for row in connection.execute(query) if new else ():
            try:
                content = unseal(self._ring.open(row.stored), row.content, f"{row.id} upload")
            except DamagedVoiceError:
                continue  # was changed from outside; the others still count
            earlier[row.id] = Upload.from_bytes(content)
        return set(earlier), any(each.is_known(list(earlier.values())) for each in new)

    def _keep(
        self,
        connection: Connection,
        speaker_id: str,
        new: Sequence[Upload],
        retention: Retention,
    ) -> None:
        """Remembers recordings, and forgets what is too old or too much."""
        mine, now = uploads.c.speaker_id == speaker_id, utc_now()
        for upload in new:
            key_id, key = self._key(connection, speaker_id)
            row: dict[str, Any] = {"id": uuid.uuid4().hex, "speaker_id": speaker_id}
            row |= {"created_at": now, "key_id": key_id}
            row["content"] = seal(key, upload.to_bytes(), f"{row['id']} upload")
            connection.execute(insert(uploads), row)
        newest = select(uploads.c.id).where(mine).order_by(uploads.c.created_at.desc())
        too_many = connection.scalars(newest.offset(retention.max_uploads)).all()
        is_old = uploads.c.created_at < now - timedelta(days=retention.days)
        self._remove(connection, mine, is_old | uploads.c.id.in_(too_many))

    def _key(self, connection: Connection, speaker_id: str) -> tuple[int, bytes]:
        """Returns the key of a speaker's recordings, a new one if there is none to be opened."""
        query = select(uploads.c.key_id, keys.c.stored).join(keys, keys.c.id == uploads.c.key_id)
        query = query.where(uploads.c.speaker_id == speaker_id)
        query = query.order_by(uploads.c.created_at.desc()).limit(1)
        row = connection.execute(query).one_or_none()
        try:
            if row is not None:
                return int(row.key_id), self._ring.open(row.stored)
        except DamagedVoiceError:
            pass
        return new_key(connection, self._ring)

    def _remove(self, connection: Connection, *conditions: Any) -> int:
        """Removes recordings, and destroys the keys that no other one has."""
        rows = connection.execute(select(uploads.c.id, uploads.c.key_id).where(*conditions)).all()
        if not rows:
            return 0
        connection.execute(delete(uploads).where(uploads.c.id.in_([row.id for row in rows])))
        touched = {row.key_id for row in rows}
        left = select(uploads.c.key_id).where(uploads.c.key_id.in_(touched))
        unused = touched - set(connection.scalars(left.group_by(uploads.c.key_id)))
        destroy_keys(connection, self._ring, unused)
        return len(rows)

"""Digits that somebody is asked to read, each time others: sent once, and within a time."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from utils.errors import UsedChallengeError
from utils.speaker_names import fold_name
from voices.sql.engine import SqlConnections
from voices.sql.owned import Owner, utc_now
from voices.sql.schema import challenges

REMEMBERED_S = 600.0
"""Seconds after its end in which a challenge is told as expired or used, and not as unknown."""


@dataclass(frozen=True)
class Challenge:
    """What is to be read.

    Attributes:
        id: 32 random hexadecimal digits.
        speaker: The folded name of the only speaker that it is for; empty for any of the group.
        digits: Such as "402918".
        created_at: When it was made, UTC.
        expires_at: Until when the recording has to be there.
        is_used: Whether a recording came.
    """

    id: str
    speaker: str
    digits: str
    created_at: datetime
    expires_at: datetime
    is_used: bool = False

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at <= utc_now()

    def fits(self, name: str) -> bool:
        """Tells whether it may be used for a speaker."""
        return self.speaker in ("", fold_name(name))


class ChallengeTable:
    """The challenges of one database."""

    def __init__(self, connections: SqlConnections) -> None:
        self._connections = connections

    def make(self, owner: Owner, name: str | None, num_digits: int, keep_s: float) -> Challenge:
        """Makes a challenge of random digits, none of which follows itself."""
        digits = secrets.choice("0123456789")
        while len(digits) < num_digits:
            digits += secrets.choice("0123456789".replace(digits[-1], ""))
        now = utc_now()
        new = Challenge(
            id=secrets.token_hex(16),
            speaker="" if name is None else fold_name(name),
            digits=digits,
            created_at=now,
            expires_at=now + timedelta(seconds=keep_s),
        )
        row = {"id": new.id, "group_name": owner.group, "actor": owner.actor}
        row |= {"speaker": new.speaker, "digits": new.digits}
        times = {"created_at": new.created_at, "expires_at": new.expires_at}
        with self._connections.write() as connection:
            connection.execute(insert(challenges), {**row, **times})
        return new

    def find(self, challenge_id: str, owner: Owner) -> Challenge | None:
        """Returns a challenge of an owner, used and expired ones too for a while."""
        query = select(challenges).where(
            challenges.c.id == challenge_id,
            challenges.c.group_name == owner.group,
            challenges.c.actor == owner.actor,
        )
        for row in self._connections.fetch(query):
            times = row.created_at, row.expires_at
            return Challenge(row.id, row.speaker, row.digits, *times, row.used_at is not None)
        return None

    def remove_old(self) -> int:
        """Removes those whose end is long ago, and returns how many."""
        end = utc_now() - timedelta(seconds=REMEMBERED_S)
        is_old = challenges.c.expires_at <= end
        if not self._connections.fetch(select(challenges.c.id).where(is_old).limit(1)):
            return 0  # without a transaction that writes
        with self._connections.write() as connection:
            return int(connection.execute(delete(challenges).where(is_old)).rowcount)


def use(connection: Connection, challenge_id: str) -> None:
    """Notes that a challenge's recording came.

    Raises:
        UsedChallengeError: If one came before, through whatever process.
    """
    is_unused = challenges.c.id == challenge_id, challenges.c.used_at.is_(None)
    changed = update(challenges).where(*is_unused).values(used_at=utc_now())
    if connection.execute(changed).rowcount != 1:
        raise UsedChallengeError("a recording was sent for this challenge already")

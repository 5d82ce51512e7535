"""On whose behalf the database is changed, and which requests were carried out already.

A client that got no answer sends its request again, with the same key: what was done is not done
twice, and the answer is the same.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from sqlalchemy import Connection, delete, insert, select

from utils.errors import RepeatedKeyError
from voices.sql.schema import requests

KEPT = timedelta(days=1)
"""How long a request is remembered: a client that tries again does so within minutes."""


@dataclass(frozen=True)
class Errand:
    """Who changes what: a line of the audit log, written in the change's own transaction.

    Attributes:
        actor: The token's name.
        action: A word such as "enrol".
        remark: What the line says of the outcome; empty for what was changed.
        key: By which a repeated request is known; None if it cannot be repeated.
        about: What else has to be the same in a repeated request.
        kind: What a repeated request is known as; the action if empty.
        also: What else the change's transaction does, with the answer that is noted; an error
            undoes the change.
    """

    actor: str
    action: str
    remark: str = ""
    key: str | None = None
    about: str = ""
    kind: str = ""
    also: Callable[[Connection, str], None] | None = None

    @property
    def stored_key(self) -> str:
        """The key as it is stored: of one length, and apart from other tokens' keys."""
        return hashlib.sha256(f"{self.actor}\0{self.key}".encode()).hexdigest()

    @property
    def stored_action(self) -> str:
        """What the request is about, of one length."""
        return hashlib.sha256(f"{self.kind or self.action}\0{self.about}".encode()).hexdigest()


def recall(connection: Connection, group: str, errand: Errand | None) -> str | None:
    """Returns what was noted of a request that was carried out already, None if it was not.

    Raises:
        RepeatedKeyError: If the key was used for something else.
    """
    if errand is None or errand.key is None:
        return None
    query = select(requests.c.action, requests.c.answer).where(
        requests.c.group_name == group,
        requests.c.key == errand.stored_key,
        requests.c.at > datetime.now(timezone.utc) - KEPT,
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.action != errand.stored_action:
        raise RepeatedKeyError(
            "the Idempotency-Key was used for another request; take a new one for each"
        )
    return str(row.answer)


def remember(connection: Connection, group: str, errand: Errand, answer: str) -> None:
    """Does what belongs to a request, notes that it is carried out, and forgets old ones."""
    if errand.also is not None:
        errand.also(connection, answer)
    if errand.key is None:
        return
    now = datetime.now(timezone.utc)
    connection.execute(delete(requests).where(requests.c.at <= now - KEPT))
    row = {"group_name": group, "key": errand.stored_key, "at": now}
    row |= {"action": errand.stored_action, "answer": answer}
    connection.execute(insert(requests), row)

"""The audit log of the SQL store: who did what to which speaker; rows are only ever added."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from sqlalchemy import Connection, insert, select

from voices.sql.engine import SqlConnections
from voices.sql.records import AuditLine
from voices.sql.schema import audit, info

MAX_TEXT = 400
"""Characters of a text in the log; what callers send as a name may be of any length."""

EVENTS = (
    "enrol",
    "add",
    "replace",
    "rename",
    "delete",
    "delete recording",
    "delete group",
    "hear",
    "lock",
    "refuse",
    "trim audit",
)
"""Actions that clients are told as events: changes, and what an operator wants to hear of."""


@dataclass(frozen=True)
class Event:
    """A line of the audit log with its number, which grows from line to line."""

    id: int
    at: datetime
    actor: str
    action: str
    speaker: str
    outcome: str


class AuditLog:
    """The lines of one database."""

    def __init__(self, connections: SqlConnections) -> None:
        self._connections = connections

    def append(self, *lines: AuditLine) -> None:
        """Writes lines, all of them or none; texts are cut at 400 characters."""
        with self._connections.write() as connection:
            if any(line.action in EVENTS for line in lines):
                # In turn with all changes: numbers become visible in their order, and who asks
                # for those after the last one misses none.
                connection.execute(select(info.c.id).with_for_update())
            self.write(connection, lines)

    def write(self, connection: Connection, lines: Sequence[AuditLine]) -> None:
        """Writes lines within the transaction of what they are about."""
        now = datetime.now(timezone.utc)
        rows = [
            {
                "at": now,
                "actor": _storable(line.actor),
                "action": _storable(line.action),
                "speaker": _storable(line.speaker),
                "outcome": _storable(line.outcome),
                "score": None if line.score is None else float(line.score),
                "group_name": line.group,
            }
            for line in lines
        ]
        connection.execute(insert(audit), rows)

    def last(self, limit: int = 100) -> list[AuditLine]:
        """Returns the last lines with their times, the newest first."""
        columns = audit.c.actor, audit.c.action, audit.c.speaker, audit.c.outcome, audit.c.score
        query = select(*columns, audit.c.at, audit.c.group_name).order_by(audit.c.id.desc())
        return [AuditLine(*row) for row in self._connections.fetch(query.limit(limit))]

    def events(self, group: str, after: int = 0, limit: int = 100) -> list[Event]:
        """Returns the events of a group after a number, the oldest first."""
        columns = audit.c.id, audit.c.at, audit.c.actor, audit.c.action, audit.c.speaker
        query = (
            select(*columns, audit.c.outcome)
            .where(audit.c.id > after, audit.c.group_name == group, audit.c.action.in_(EVENTS))
            .order_by(audit.c.id)
            .limit(limit)
        )
        return [Event(*row) for row in self._connections.fetch(query)]


def _storable(text: str) -> str:
    """Returns a text without what no database stores: NUL, lone surrogates, and too much."""
    text = text.replace("\0", "\ufffd")[:MAX_TEXT]
    return text.encode("utf-8", errors="replace").decode("utf-8")

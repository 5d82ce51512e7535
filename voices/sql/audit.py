"""The audit log of the SQL store: who did what to which speaker; lines are added, and trimmed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, text

from utils.speaker_names import fold_name
from voices.sql.engine import SqlConnections
from voices.sql.records import AuditLine
from voices.sql.schema import audit, info

MAX_TEXT = 400
"""Characters of a text in the log; what callers send as a name may be of any length."""

LINES_AT_ONCE = 10_000
"""Lines that are read at a time."""

SQLITE_OPEN = "DROP TRIGGER voiceprint_audit_DELETE"
SQLITE_GUARD = (
    "CREATE TRIGGER voiceprint_audit_DELETE BEFORE DELETE ON voiceprint_audit "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
)
POSTGRESQL_OPEN = "ALTER TABLE voiceprint_audit DISABLE TRIGGER voiceprint_audit_guard"
POSTGRESQL_GUARD = "ALTER TABLE voiceprint_audit ENABLE TRIGGER voiceprint_audit_guard"
"""What lets lines be removed, and what refuses it again, in one transaction."""

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
    "replay",
    "refuse",
    "gap",
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
            write_lines(connection, lines)

    def last(self, limit: int = 100) -> list[AuditLine]:
        """Returns the last lines with their times, the newest first."""
        columns = audit.c.actor, audit.c.action, audit.c.speaker, audit.c.outcome, audit.c.score
        query = select(*columns, audit.c.at, audit.c.group_name).order_by(audit.c.id.desc())
        return [AuditLine(*row) for row in self._connections.fetch(query.limit(limit))]

    def last_to_go(self, before: datetime | None = None, max_lines: int = 0) -> int:
        """Returns the number of the last line that is too old or too many, 0 if there is none.

        Args:
            before: Lines from earlier than this are too old; None for none.
            max_lines: How many may stay; 0 for all.
        """
        last = 0
        if before is not None:
            query = select(func.max(audit.c.id)).where(audit.c.at < before)
            last = self._connections.fetch(query)[0][0] or 0
        if max_lines:
            query = select(audit.c.id).order_by(audit.c.id.desc()).offset(max_lines).limit(1)
            found = self._connections.fetch(query)
            last = max(last, found[0].id if found else 0)
        return int(last)

    def until(self, last: int) -> Iterator[dict[str, Any]]:
        """Yields the lines up to a number, the oldest first, all columns."""
        after = 0
        while True:
            query = select(audit).where(audit.c.id > after, audit.c.id <= last)
            rows = self._connections.fetch(query.order_by(audit.c.id).limit(LINES_AT_ONCE))
            if not rows:
                return
            for row in rows:
                yield {**row._mapping, "at": row.at.isoformat()}
            after = rows[-1].id

    def trim(self, last: int, actor: str) -> int:
        """Removes the lines up to a number, and notes that; returns how many.

        The only way to remove a line: triggers refuse any other.
        """
        is_sqlite = self._connections.is_sqlite
        with self._connections.write() as connection:
            connection.execute(select(info.c.id).with_for_update())
            connection.execute(text(SQLITE_OPEN if is_sqlite else POSTGRESQL_OPEN))
            gone = connection.execute(delete(audit).where(audit.c.id <= last)).rowcount
            connection.execute(text(SQLITE_GUARD if is_sqlite else POSTGRESQL_GUARD))
            if gone:
                write_lines(connection, [AuditLine(actor, "trim audit", "", f"{gone} lines")])
        return int(gone)

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

    def about(self, name: str, group: str) -> list[AuditLine]:
        """Returns the lines about a speaker who is enrolled now, under earlier names too.

        Read backwards: a renaming leads to the earlier name; where the speaker was enrolled, or an
        earlier one of the same name was deleted, it ends.
        """
        columns = audit.c.actor, audit.c.action, audit.c.speaker, audit.c.outcome, audit.c.score
        query = select(*columns, audit.c.at, audit.c.group_name).where(audit.c.group_name == group)
        current, found = fold_name(name), []
        options = {"yield_per": 1_000}
        query = query.order_by(audit.c.id.desc())
        with (
            self._connections.read() as connection,
            connection.execute(query, execution_options=options) as result,
        ):
            for row in result:
                line = AuditLine(*row)
                if line.action == "rename" and fold_name(line.outcome) == f"to {current}":
                    current = fold_name(line.speaker)
                elif fold_name(line.speaker) != current:
                    continue
                elif line.action == "delete":
                    break
                found.append(line)
                if line.action == "enrol":
                    break
        return found[::-1]


def write_lines(connection: Connection, lines: Sequence[AuditLine]) -> None:
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


def _storable(text: str) -> str:
    """Returns a text without what no database stores: NUL, lone surrogates, and too much."""
    text = text.replace("\0", "\ufffd")[:MAX_TEXT]
    return text.encode("utf-8", errors="replace").decode("utf-8")

"""The audit log of the SQL store: who did what to which speaker; rows are only ever added."""

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects import sqlite

from voices.sql.engine import SqlConnections
from voices.sql.records import AuditEntry, AuditLine
from voices.sql.schema import UtcTime, audit

MAX_TEXT = 400
"""Characters of a text in the log; what callers send as a name may be of any length."""

SQLITE = sqlite.dialect(paramstyle="named")

ADD_LINE_SQLITE = str(
    insert(audit).compile(
        dialect=SQLITE, column_keys=[column.name for column in audit.c if column.name != "id"]
    )
)
"""The statement that adds a line, with the columns' names for parameters."""


class AuditLog:
    """The lines of one database."""

    def __init__(self, connections: SqlConnections) -> None:
        """Takes the connections to the database."""
        self._connections = connections

    def append(self, *lines: AuditLine) -> None:
        """Writes lines, all of them or none; texts are cut at 400 characters."""
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
        if self._connections.is_sqlite:
            # Every decision ends with this: half the time of a transaction by SQLAlchemy.
            at = UtcTime().process_bind_param(now, SQLITE)
            self._connections.append(ADD_LINE_SQLITE, [row | {"at": at} for row in rows])
            return
        with self._connections.write() as connection:
            connection.execute(insert(audit), rows)

    def last(self, limit: int = 100) -> list[AuditEntry]:
        """Returns the last lines, the newest first."""
        columns = [column for column in audit.c if column.name != "id"]
        query = select(*columns).order_by(audit.c.id.desc()).limit(limit)
        with self._connections.read() as connection:
            return [AuditEntry(*row) for row in connection.execute(query)]


def _storable(text: str) -> str:
    """Returns a text without what no database stores: NUL, lone surrogates, and too much."""
    text = text.replace("\0", "\ufffd")[:MAX_TEXT]
    return text.encode("utf-8", errors="replace").decode("utf-8")

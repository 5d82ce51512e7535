"""The audit log of the SQL store: who did what to which speaker; rows are only ever added."""

from datetime import datetime, timezone

from sqlalchemy import insert, select

from utils.speaker_names import fold_name
from voices.sql.engine import SqlConnections
from voices.sql.records import AuditLine
from voices.sql.schema import audit

MAX_TEXT = 400
"""Characters of a text in the log; what callers send as a name may be of any length."""


class AuditLog:
    """The lines of one database."""

    def __init__(self, connections: SqlConnections) -> None:
        self._connections = connections

    def append(self, *lines: AuditLine) -> None:
        """Writes lines, all of them or none; texts are cut at 400 characters."""
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
        with self._connections.write() as connection:
            connection.execute(insert(audit), rows)

    def last(self, limit: int = 100) -> list[AuditLine]:
        """Returns the last lines with their times, the newest first."""
        columns = audit.c.actor, audit.c.action, audit.c.speaker, audit.c.outcome, audit.c.score
        query = (
            select(*columns, audit.c.at, audit.c.group_name)
            .order_by(audit.c.id.desc())
            .limit(limit)
        )
        return [AuditLine(*row) for row in self._connections.fetch(query)]

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


def _storable(text: str) -> str:
    """Returns a text without what no database stores: NUL, lone surrogates, and too much."""
    text = text.replace("\0", "\ufffd")[:MAX_TEXT]
    return text.encode("utf-8", errors="replace").decode("utf-8")

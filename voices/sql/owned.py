"""Rows that belong to a token's holder until they expire, sealed under keys of their own."""

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Table, select

from voices.sql.cipher import KeyRing
from voices.sql.engine import SqlConnections
from voices.sql.keys import remove_sealed


@dataclass(frozen=True)
class Owner:
    """Whose a row is: a token's name, and its group."""

    actor: str
    group: str


def utc_now() -> datetime:
    """Returns the present moment in UTC."""
    return datetime.now(timezone.utc)


class OwnedTable:
    """Removes the rows of one table, and destroys what is sealed in them."""

    def __init__(self, connections: SqlConnections, ring: KeyRing, table: Table) -> None:
        """Takes the connections, the keeper of the keys and the table."""
        self._connections = connections
        self._ring = ring
        self._table = table

    def remove(self, row_id: str) -> bool:
        """Removes a row; returns False if there was none."""
        return self._remove(self._table.c.id == row_id) > 0

    def remove_group(self, group: str) -> int:
        """Removes all rows of a group; returns how many."""
        return self._remove(self._table.c.group_name == group)

    def remove_expired(self) -> int:
        """Removes what has expired, and returns how many rows those were."""
        expired = self._table.c.expires_at <= utc_now()
        if not self._connections.fetch(select(self._table.c.id).where(expired).limit(1)):
            return 0  # without a transaction that writes
        return self._remove(expired)

    def _are_of(self, owner: Owner) -> tuple[Any, ...]:
        """Returns the conditions on an owner's rows that have not expired."""
        column = self._table.c
        are_mine = column.group_name == owner.group, column.actor == owner.actor
        return *are_mine, column.expires_at > utc_now()

    def _remove(self, *conditions: Any) -> int:
        """Removes rows: first their keys, then themselves."""
        with self._connections.write() as connection:
            num_gone = remove_sealed(connection, self._ring, self._table, conditions)
        if num_gone:
            self._connections.truncate_log()
        return num_gone

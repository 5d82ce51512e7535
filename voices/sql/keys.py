"""The keys of voice records in the database: made, and destroyed by overwriting them in place."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update

from voices.sql.cipher import KeyRing
from voices.sql.schema import info, keys


def new_key(connection: Connection, ring: KeyRing) -> tuple[int, bytes]:
    """Makes the key of a record and returns its row and itself.

    Raises:
        DatabaseError: If the database was given another master key meanwhile.
    """
    ring.check_unchanged(connection.execute(select(info.c.key_check)).scalar())
    key, stored = ring.new()
    result = connection.execute(insert(keys).returning(keys.c.id), {"stored": stored})
    return int(result.scalar_one()), key


def destroy_keys(connection: Connection, ring: KeyRing, ids: Collection[int]) -> None:
    """Overwrites keys in their place."""
    if ids:
        length = len(ring.new()[1])
        chosen = update(keys).where(keys.c.id.in_(ids))
        connection.execute(chosen.values(stored=bytes(length)))


def remove_sealed(connection: Connection, ring: KeyRing, table: Table, conditions: Any) -> int:
    """Removes the rows of a table that meet conditions: first their keys, then the rows.

    Args:
        connection: An open transaction.
        ring: The keeper of the keys.
        table: It has an id and a key_id, which may be null.
        conditions: All of them have to be met.

    Returns:
        How many there were.
    """
    rows = connection.execute(select(table.c.id, table.c.key_id).where(*conditions)).all()
    if rows:
        destroy_keys(connection, ring, [row.key_id for row in rows if row.key_id is not None])
        connection.execute(delete(table).where(table.c.id.in_([row.id for row in rows])))
    return len(rows)

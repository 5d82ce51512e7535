"""The keys of voice records in the database: made, and destroyed by overwriting them in place."""

from collections.abc import Collection

from sqlalchemy import Connection, insert, select, update

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

"""Another master key for a database, or the first one, or none, in one transaction.

The contents stay as they are: only their keys, 32 bytes each, are sealed anew.
"""

from sqlalchemy import Connection, delete, insert, select, update

from utils.errors import DamagedVoiceError
from voices.sql.cipher import KeyRing, unseal
from voices.sql.engine import SqlConnections
from voices.sql.rows import from_bytes
from voices.sql.schema import info, keys, means, speakers, vectors

CHUNK = 1_000
"""Keys that are read at a time."""


def rekey(connections: SqlConnections, old: KeyRing, new: KeyRing) -> tuple[int, int]:
    """Seals all record keys with another master key.

    Running processes with the old key are refused from then on.

    Args:
        connections: The database.
        old: The keeper of the keys so far; it must be the database's own.
        new: The keeper from now on.

    Returns:
        How many keys were sealed anew, and how many could not be opened and stay as they are.

    Raises:
        DatabaseError: If the database cannot be written; it is unchanged then.
    """
    num_done = num_damaged = 0
    with connections.write() as connection:
        counted = update(info).values(change_number=info.c.change_number + 1)
        number = connection.execute(counted.returning(info.c.change_number)).scalar_one()
        old.check(connection.execute(select(info.c.key_check)).scalar(), connections.name)
        last = 0
        while rows := connection.execute(
            select(keys.c.id, keys.c.stored)
            .where(keys.c.id > last)
            .order_by(keys.c.id)
            .limit(CHUNK)
        ).all():
            last = rows[-1].id
            for row in rows:
                if not any(row.stored):
                    continue  # destroyed, with its record
                try:
                    stored = new.wrap(old.open(row.stored))
                except DamagedVoiceError:
                    num_damaged += 1
                    continue
                changed = update(keys).where(keys.c.id == row.id)
                connection.execute(changed.values(stored=stored))
                num_done += 1
        # Every process reads every speaker anew, or finds that it has another key.
        connection.execute(update(speakers).values(change_number=number))
        connection.execute(update(info).values(key_check=new.check_text()))
        if not connections.is_sqlite:
            fill_vectors(connection, new)
    connections.truncate_log()
    return num_done, num_damaged


def fill_vectors(connection: Connection, ring: KeyRing) -> None:
    """Writes PostgreSQL's table of vectors anew: empty in an encrypted database."""
    connection.execute(delete(vectors))
    if ring.is_encrypted:
        return
    query = select(speakers.c.id, means.c.model_id, means.c.embedding, keys.c.stored)
    query = query.join(means, means.c.speaker_id == speakers.c.id)
    query = query.join(keys, keys.c.id == speakers.c.key_id).order_by(speakers.c.id)
    result = connection.execute(query, execution_options={"yield_per": CHUNK})
    for some in result.partitions():
        rows = []
        for row in some:
            try:
                place = f"{row.id} embedding"
                vector = from_bytes(unseal(ring.open(row.stored), row.embedding or b"", place))
            except DamagedVoiceError:
                continue
            rows.append({"speaker_id": row.id, "model_id": row.model_id, "embedding": vector})
        if rows:
            connection.execute(insert(vectors), rows)

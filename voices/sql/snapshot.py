"""A database as one file, at one moment, while others write; and back into a database.

The file is a SQLite database with the same tables, whatever the source is. Contents stay sealed as
they are: an encrypted database makes an encrypted backup, without its key.
"""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    Connection,
    MetaData,
    create_engine,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)

from utils.errors import DatabaseError
from utils.files import atomic_path
from voices.sql.cipher import KeyRing
from voices.sql.engine import SqlConnections, is_known, migrate, version_of
from voices.sql.rekeying import fill_vectors
from voices.sql.rows import KEPT_REMOVALS
from voices.sql.schema import POSTGRESQL_TABLES, VERSION_TABLE, info, speakers

CHUNK = 1_000
"""Rows that are copied at a time."""

PREFIX = "voiceprint_"
"""What the names of all tables begin with; a database may hold other programs' tables too."""


def back_up(url: str, path: Path) -> dict[str, int]:
    """Writes everything that a database holds into a file, as it is at this moment.

    The database is not brought to this version of the toolkit by it.

    Args:
        url: The database's address.
        path: The file; what is there is replaced in the end.

    Returns:
        How many rows each table has.

    Raises:
        DatabaseError: If there is no such database, or the file cannot be written.
    """
    source = SqlConnections(url, create=False, migrate=False)
    try:
        with source.read() as connection:
            version = _known_version(connection, source.name)
            with atomic_path(path) as temporary:
                target = SqlConnections(f"sqlite:///{temporary.absolute()}", migrate=False)
                try:
                    with target.migrating() as copy:
                        migrate(copy, version)
                        counts = _copy_tables(connection, copy)
                    target.pack()
                finally:
                    target.close()
    except OSError as error:
        raise DatabaseError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        source.close()
    return counts


def restore(path: Path, url: str, key: bytes | None, *, replace: bool = False) -> dict[str, int]:
    """Puts a backup into a database, in one transaction, and brings it to this version.

    Args:
        path: What `back_up` wrote.
        url: The database's address; it is made if it is missing.
        key: The key of what was backed up.
        replace: Whether a database that holds something loses it.

    Returns:
        How many rows each table has.

    Raises:
        DatabaseError: If the file is no whole backup, has another key, or the database holds
            something and `replace` is not given. The database is unchanged then.
    """
    ring = KeyRing(key)
    with _open_backup(path) as backup:
        version = _known_version(backup, str(path))
        ring.check(
            backup.execute(text("SELECT key_check FROM voiceprint_info")).scalar(), str(path)
        )
        target = SqlConnections(url, migrate=False)
        try:
            with target.migrating() as connection:
                number = _make_room(connection, target.name, replace=replace)
                migrate(connection, version)
                counts = _copy_tables(backup, connection)
                migrate(connection, "head")
                _count_on(connection, number)
                if not target.is_sqlite:
                    _set_sequences(connection)
                    fill_vectors(connection, ring)
            target.truncate_log()
        finally:
            target.close()
    return counts


@contextlib.contextmanager
def _open_backup(path: Path) -> Iterator[Connection]:
    """Yields a connection to a backup that reads only; it must be whole."""
    if not path.is_file():
        raise DatabaseError(f"{path}: no such file; check the path")
    engine = create_engine(f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true")
    try:
        with engine.connect() as connection:
            try:
                found = connection.execute(text("PRAGMA integrity_check(1)")).scalar()
            except Exception as error:
                raise DatabaseError(f"{path}: not a backup of a voice database") from error
            if found != "ok":
                raise DatabaseError(f"{path}: damaged; use another backup")
            yield connection
    finally:
        engine.dispose()


def _known_version(connection: Connection, name: str) -> str:
    """Returns the version of the tables."""
    version = version_of(connection)
    if version is None:
        raise DatabaseError(f"{name}: holds no voice database; check the address")
    if not is_known(version):
        raise DatabaseError(f"{name}: of a newer version of the toolkit; use that version")
    return version


def _make_room(connection: Connection, name: str, *, replace: bool) -> int:
    """Removes the tables that are there; returns the number of their last change."""
    version = version_of(connection)
    if version is None:
        return 0
    num_speakers = connection.execute(text("SELECT count(*) FROM voiceprint_speakers")).scalar()
    num_lines = connection.execute(text("SELECT count(*) FROM voiceprint_audit")).scalar()
    if not replace and (num_speakers or num_lines):
        raise DatabaseError(
            f"{name} holds {num_speakers} speakers and {num_lines} lines of the audit log; choose "
            "an empty database, or give --replace to lose them"
        )
    number = connection.execute(text("SELECT change_number FROM voiceprint_info")).scalar()
    tables = _reflect(connection, set())
    tables.drop_all(connection)
    if connection.dialect.name == "postgresql":
        connection.execute(text("DROP FUNCTION IF EXISTS voiceprint_refuse()"))
    return int(number or 0)


def _copy_tables(source: Connection, target: Connection) -> dict[str, int]:
    """Copies the rows of all tables but those that follow from others; returns how many."""
    left_out = POSTGRESQL_TABLES | {VERSION_TABLE}
    there, here = _reflect(source, left_out), _reflect(target, left_out)
    counts = {}
    # Migrations have put the row about the whole database there.
    target.execute(delete(here.tables[f"{PREFIX}info"]))
    for table in here.sorted_tables:
        found = there.tables[table.name].c
        columns = [found[column.name] for column in table.columns if column.name in found]
        counts[table.name.removeprefix(PREFIX)] = 0
        result = source.execute(select(*columns), execution_options={"yield_per": CHUNK})
        for some in result.mappings().partitions():
            rows = [dict(row) for row in some]
            target.execute(insert(table), rows)
            counts[table.name.removeprefix(PREFIX)] += len(rows)
    return counts


def _reflect(connection: Connection, left_out: set[str]) -> MetaData:
    """Returns the tables as the database has them, of whatever version."""
    names = inspect(connection).get_table_names()
    tables = MetaData()
    chosen = [name for name in names if name.startswith(PREFIX) and name not in left_out]
    tables.reflect(connection, only=chosen)
    return tables


def _count_on(connection: Connection, number: int) -> None:
    """Makes running processes read everything anew."""
    restored = connection.execute(select(info.c.change_number)).scalar_one()
    number = max(int(restored), number + KEPT_REMOVALS + 1)
    # It may be a copy beside the database, whose index is not this one's.
    alone = {"database_id": uuid.uuid4().hex, "index_address": None}
    connection.execute(update(info).values(change_number=number, **alone))
    connection.execute(update(speakers).values(change_number=number))


def _set_sequences(connection: Connection) -> None:
    """Makes PostgreSQL count on behind the numbers that were copied."""
    for table in ("keys", "audit"):
        name = f"{PREFIX}{table}"
        highest = connection.execute(select(func.max(text("id"))).select_from(text(name))).scalar()
        if highest is not None:
            sequence = func.pg_get_serial_sequence(name, "id")
            connection.execute(select(func.setval(sequence, highest)))

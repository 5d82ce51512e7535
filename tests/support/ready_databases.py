"""New databases as copies of one that the migrations have made: they take 0.3 s each time."""

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from voices.sql.engine import SqlConnections

migrate = SqlConnections._migrate


@functools.cache
def sqlite_content() -> bytes:
    """The file of a database without anybody, made by the migrations."""
    with tempfile.TemporaryDirectory() as folder, migrations_run():
        path = Path(folder) / "v.sqlite3"
        database = SqlConnections(f"sqlite:///{path}")
        database.pack()
        database.close()
        return path.read_bytes()


def fill_file(connections: SqlConnections, create: bool) -> None:
    """Fills an empty file before the migrations look at it: they find nothing to do."""
    path = Path(str(connections.engine.url.database))
    if connections.is_sqlite and create and path.stat().st_size == 0:
        path.write_bytes(sqlite_content())
    migrate(connections, create)


@contextlib.contextmanager
def ready_databases() -> Iterator[None]:
    """SQLite databases that this process makes are copies meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlConnections, "_migrate", fill_file)
        yield


@contextlib.contextmanager
def migrations_run() -> Iterator[None]:
    """They are made by the migrations, as for users."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlConnections, "_migrate", migrate)
        yield

"""New databases as copies of one that the migrations have made: they take 0.3 s each time."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from voices.sql.engine import SqlConnections

prepare_file = SqlConnections._prepare_file


@functools.cache
def sqlite_content() -> bytes:
    """The file of a database without anybody, made by the migrations."""
    with tempfile.TemporaryDirectory() as folder, migrations_run():
        path = Path(folder) / "v.sqlite3"
        database = SqlConnections(f"sqlite:///{path}")
        database.pack()
        database.close()
        return path.read_bytes()


def copy_file(connections: SqlConnections, path: Path, create: bool) -> None:
    """Puts a whole file where the program would begin an empty one."""
    if create and path.parent.is_dir() and not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new") as file:
            file.write(sqlite_content())
            file.flush()
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    prepare_file(connections, path, create)


@contextlib.contextmanager
def ready_databases() -> Iterator[None]:
    """SQLite databases that this process makes are copies meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlConnections, "_prepare_file", copy_file)
        yield


@contextlib.contextmanager
def migrations_run() -> Iterator[None]:
    """They are made by the migrations, as for users."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlConnections, "_prepare_file", prepare_file)
        yield

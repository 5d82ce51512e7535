"""One replica changes the tables while others use them."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from utils.errors import DatabaseError
from voices.sql import engine
from voices.sql.engine import SCHEMA_HEAD, SqlConnections, migrate

pytestmark = pytest.mark.slow


def versions(connections: SqlConnections) -> list[str]:
    with connections.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT version_num FROM voiceprint_schema")
        return list(found.scalars())


@pytest.fixture
def earlier(postgres_url: str) -> SqlConnections:
    """A database one version back, and connections that use it."""
    connections = SqlConnections(postgres_url)
    with connections.migrating() as connection:
        migrate(connection, f"{int(SCHEMA_HEAD) - 1:04d}")
    return connections


def test_one_of_many_processes_migrates(
    postgres_url: str, earlier: SqlConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated: list[Any] = []

    def migrate_noted(connection: Any, revision: str) -> None:
        migrated.append(revision)
        migrate(connection, revision)

    monkeypatch.setattr(engine, "migrate", migrate_noted)
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(SqlConnections, [postgres_url] * 8))
    assert migrated == ["head"]
    assert versions(earlier) == [SCHEMA_HEAD]
    for each in [*opened, earlier]:
        each.close()


def test_a_table_in_use_is_waited_for_without_stopping_its_users(
    postgres_url: str, earlier: SqlConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody reads for long, others go on reading, and the migration comes later."""

    def block(connection: Any, revision: str) -> None:
        connection.exec_driver_sql("LOCK TABLE voiceprint_speakers IN ACCESS EXCLUSIVE MODE")
        migrate(connection, revision)

    monkeypatch.setattr(engine, "migrate", block)
    monkeypatch.setattr(engine, "LOCK_TIMEOUT_S", 0.2)
    question = "SELECT count(*) FROM voiceprint_speakers"
    longest_s = 0.0
    with earlier.engine.connect() as reader, ThreadPoolExecutor(1) as pool:
        reader.exec_driver_sql(question)
        opening = pool.submit(SqlConnections, postgres_url)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            start = time.monotonic()
            earlier.ask(question)
            longest_s = max(longest_s, time.monotonic() - start)
        assert not opening.done()
        assert longest_s < 1.0
        reader.rollback()
        opening.result(30).close()
    assert versions(earlier) == [SCHEMA_HEAD]
    earlier.close()


def test_a_table_in_use_for_ever(
    postgres_url: str, earlier: SqlConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(engine, "MIGRATION_TRIES", 2)
    with earlier.engine.connect() as user:
        user.exec_driver_sql("LOCK TABLE voiceprint_schema IN SHARE MODE")
        with pytest.raises(DatabaseError, match="lock timeout"):
            SqlConnections(postgres_url)
    assert versions(earlier) != [SCHEMA_HEAD]
    earlier.close()

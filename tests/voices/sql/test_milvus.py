"""Milvus beside the database finds the same as the memory, follows it, and forgets who left."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import manage_voices
from tests.support.fake_encoder import FakeEncoder
from tests.support.milvus_server import find_milvus, running_milvus
from tests.support.voice_databases import KEY, new, vector
from utils.errors import DatabaseError
from voices.sql import index_keeper, milvus, search
from voices.sql.index_keeper import IndexKeeper
from voices.sql.milvus import MilvusIndex
from voices.sql.schema import info
from voices.sql.snapshot import back_up, restore
from voices.sql.store import SqlVoiceStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Milvus of one process, or the one that VOICEPRINT_MILVUS names."""
    pytest.importorskip("pymilvus")
    program = find_milvus()
    if program is None:
        pytest.skip("no Milvus: pip install milvus-lite")
    with running_milvus(program) as server:
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    """A client of Milvus's own; what a test left is removed."""
    from pymilvus import MilvusClient

    client = MilvusClient(address.replace("milvus", "http"))
    yield client
    for name in client.list_collections():
        client.drop_collection(name)
    client.close()


@pytest.fixture
def database(database_url: str, address: str, client: Any) -> Iterator[SqlVoiceStore]:
    """60 speakers, and an index that is in step."""
    database = SqlVoiceStore(database_url, FakeEncoder())
    for seed in range(60):
        database.enrol(f"s{seed}", [new(seed)])
    assert database.outside_index.set_up(address) == 60
    yield database
    database.close()


def keeper(database: SqlVoiceStore) -> IndexKeeper:
    search = database.outside_index.search()
    assert search is not None
    return search.keeper


def held(database: SqlVoiceStore) -> set[str]:
    """The ids that Milvus holds."""
    return set(keeper(database).index.ids())


def forget_the_memory(database: SqlVoiceStore) -> None:
    """From now on only Milvus knows those who are there."""
    database._search._recents.clear()
    keeper(database).settled = keeper(database).index.seen()


def num_recent(database: SqlVoiceStore) -> int:
    """How many speakers are in memory beside the index."""
    return len(database._search._recents["default"].index or ())


def test_the_index_finds_the_same_and_follows_changes(
    database: SqlVoiceStore, database_url: str, address: str
) -> None:
    questions = [2 * vector(seed) + vector(seed + 1) for seed in range(9)]
    exact = SqlVoiceStore(database_url, FakeEncoder())
    exact.outside_index.address = None
    expected = [exact.identify(question, top_k=5) for question in questions]
    forget_the_memory(database)
    for question, wanted in zip(questions, expected, strict=True):
        found = database.identify(question, top_k=5)
        assert [name for name, _ in found] == [name for name, _ in wanted]
        assert dict(found) == pytest.approx(dict(wanted), abs=1e-6)
    assert not num_recent(database), "Milvus was not asked"

    other = SqlVoiceStore(database_url, FakeEncoder())
    other.remove("s7")
    other.rename("s8", "renamed")
    other.enrol("s9", [new(1009)], if_exists="replace")
    for _ in range(2):
        assert database.identify(vector(7))[0][1] < 0.9
        assert database.identify(vector(8))[0][0] == "renamed"
        assert database.identify(vector(1009))[0] == ("s9", pytest.approx(1, abs=1e-5))
        assert database.identify(vector(9))[0][1] < 0.9
        keeper(database).follow()
        forget_the_memory(database)
    names = ["RENAMED", "s5", "s6", "nobody", "\ud800", "\0"]
    among = database.identify(vector(8), candidates=names, top_k=2)
    assert len(among) == 2 and among[0][0] == "renamed" and among[1][0] in ("s5", "s6")
    assert database.identify(vector(8), candidates=names, top_k=0) == []
    assert len(database.identify(vector(0), top_k=50)) == 50
    assert len(database.rank(vector(0))) == 59
    # Strangers of another group are neither compared nor found.
    shop = other.in_group("shop")
    shop.enrol("s0", [new(0)])
    assert shop.identify(vector(1))[0][1] < 0.9
    keeper(database).follow()
    forget_the_memory(database)
    assert [name for name, _ in database.in_group("shop").identify(vector(0), top_k=9)] == ["s0"]
    assert len(database.identify(vector(0), top_k=99)) == 59
    exact.close()
    other.close()


def test_who_is_removed_goes_out_of_the_index_at_once(
    database: SqlVoiceStore, client: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    gone = database.speaker_id("s1")
    collection = keeper(database).index._collection  # type: ignore[attr-defined]
    rows = client.get(collection, [gone])
    # The embeddings of another model are a collection of their own.
    other = MilvusIndex(keeper(database).index.name, "another model", "me")
    other.open(64)
    other.put([(gone, "default", vector(1))])
    assert rows and set(rows[0]) == {"id", "group_number", "number", "owner", "embedding"}
    database.remove("s1")
    assert gone not in held(database) and not list(other.ids())
    assert not client.get(collection, [gone])

    # Where Milvus doesn't answer, nobody is found who was removed, and it learns later.
    gone = database.speaker_id("s2")
    fails = lambda *_: (_ for _ in ()).throw(DatabaseError("milvus://x: Milvus: away"))  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(keeper(database).index, "remove", fails)
        database.remove("s2")
        assert "milvus://x: Milvus: away; who was removed goes out of it" in caplog.text
        assert gone in held(database)
        assert database.identify(vector(2))[0][1] < 0.9
    database.in_group("shop").enrol("a", [new(0)])
    database.in_group("shop").remove_group()
    assert len(held(database)) == 58
    forget_the_memory(database)
    assert database.identify(vector(2))[0][1] < 0.9


def test_many_changes_are_sent_in_parts(
    database: SqlVoiceStore, database_url: str, address: str, client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(index_keeper, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(index_keeper, "KEPT_REMOVALS", 20)
    away = SqlVoiceStore(database_url, FakeEncoder())
    away.outside_index.address = None
    for seed in range(100, 130):
        away.enrol(f"s{seed}", [new(seed)])
    for seed in range(10):
        away.remove(f"s{seed}")
    assert len(held(database)) == 60
    assert keeper(database).follow()
    forget_the_memory(database)
    assert len(held(database)) == 80
    assert database.identify(vector(129))[0] == ("s129", pytest.approx(1, abs=1e-5))
    # Another one, from nothing; who is damaged is left out.
    with away._connections.write() as connection:
        damaged = {"id": away.speaker_id("s50")}
        statement = "UPDATE voiceprint_means SET embedding = 'x' WHERE speaker_id = :id"
        connection.execute(text(statement.replace("'x'", ":x")), damaged | {"x": b"x"})
    assert database.outside_index.set_up(address, replace=True) == 80
    assert len(held(database)) == 79
    away.close()


def test_new_speakers_are_found_before_the_index_has_them(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forget_the_memory(database)
    with monkeypatch.context() as patch:
        patch.setattr(
            keeper(database).index,
            "put",
            lambda rows: (_ for _ in ()).throw(DatabaseError("milvus://x: Milvus: full")),
        )
        database.enrol("late", [new(200)])
        assert database.identify(vector(200))[0][0] == "late"
        keeper(database)._thread.join()  # type: ignore[union-attr]
        assert "the search index is behind, new speakers are in memory" in caplog.text
    monkeypatch.setattr(index_keeper, "RETRY_S", 0.0)
    monkeypatch.setattr(index_keeper, "SETTLED_S", 0.0)
    monkeypatch.setattr(search, "MAX_RECENT", 0)
    assert database.identify(vector(200))[0][0] == "late"
    keeper(database)._thread.join()  # type: ignore[union-attr]
    assert database.speaker_id("late") in held(database)
    # Once it surely finds them, the memory lets them go.
    for _ in range(2):
        assert database.identify(vector(200))[0][0] == "late"
    assert not num_recent(database)


def test_processes_that_follow_at_once(
    database: SqlVoiceStore, database_url: str, address: str
) -> None:
    others = [SqlVoiceStore(database_url, FakeEncoder()) for _ in range(3)]
    for number, each in enumerate(others):
        each.enrol(f"n{number}", [new(300 + number)])
    threads = [threading.Thread(target=keeper(each).follow) for each in [database, *others]]
    for thread in threads:
        thread.start()
    others[0].remove("s0")
    for thread in threads:
        thread.join()
    assert keeper(database).follow()
    assert len(held(database)) == 62
    for each in others:
        each.close()


def test_an_encrypted_database_says_what_lies_outside(
    database_url: str, address: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    database = SqlVoiceStore(database_url, FakeEncoder(), key=KEY)
    database.enrol("a", [new(1)])
    database.outside_index.set_up(address)
    assert "holds the speakers' embeddings without encryption" in caplog.text
    forget_the_memory(database)
    assert database.identify(vector(1))[0][0] == "a"
    database.close()


def test_an_index_of_somebody_else(
    database: SqlVoiceStore, tmp_path: Path, address: str, client: Any
) -> None:
    copied = SqlVoiceStore(f"sqlite:///{tmp_path}/v", FakeEncoder())
    copied.enrol("a", [new(0)])
    with copied._connections.write() as connection:  # new databases of tests are all copies of one
        connection.execute(info.update().values(database_id="another"))
    with pytest.raises(DatabaseError, match=r"holds the speakers of another voice database; name"):
        copied.outside_index.set_up(address)
    assert copied.outside_index.search() is None
    collection = keeper(database).index._collection  # type: ignore[attr-defined]
    # A database that was put back to an earlier state is behind its index.
    with database._connections.write() as connection:
        connection.execute(info.update().values(change_number=3))
    with pytest.raises(
        DatabaseError, match=r"is ahead of .*, which an earlier backup was put into"
    ):
        keeper(database).follow()
    client.drop_collection(collection)
    client.create_collection(collection, dimension=7)
    with pytest.raises(DatabaseError, match=r"holds vectors of 7 numbers, expected 64; name anoth"):
        MilvusIndex(address, "fake", "me").open(64)
    client.drop_collection(collection)
    with pytest.raises(DatabaseError, match=f"{address}: Milvus: "):
        database.identify(vector(0))
    copied.close()


def test_the_command_fills_the_index_and_gives_it_up(
    database: SqlVoiceStore, database_url: str, address: str, client: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert manage_voices.main(["index", database_url, address]) == 0
    assert f": 60 speakers are in {address}; restart" in capsys.readouterr().out
    assert manage_voices.main(["index", database_url, "none"]) == 0
    assert "has no index any more; restart" in capsys.readouterr().out
    assert not client.list_collections()
    database.outside_index.address = None  # as after a restart
    assert database.identify(vector(1))[0][0] == "s1"
    again = SqlVoiceStore(database_url, FakeEncoder())
    assert again.outside_index.address is None
    with pytest.raises(DatabaseError, match="has no index outside of it"):
        again.outside_index.remove()
    again.close()


def test_a_restored_database_does_not_know_the_index(
    database: SqlVoiceStore, database_url: str, tmp_path: Path
) -> None:
    back_up(database_url, tmp_path / "backup")
    restore(tmp_path / "backup", f"sqlite:///{tmp_path}/v", None)
    restored = SqlVoiceStore(f"sqlite:///{tmp_path}/v", FakeEncoder())
    assert restored.outside_index.address is None
    assert restored.identify(vector(1))[0][0] == "s1"
    restored.remove("s1")
    assert database.speaker_id("s1") in held(database)
    ids = "SELECT database_id FROM voiceprint_info"
    assert restored._connections.ask(ids) != database._connections.ask(ids)
    restored.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[SqlVoiceStore]:
    """A database without an index, with one speaker."""
    database = SqlVoiceStore(f"sqlite:///{tmp_path}/v", FakeEncoder())
    database.enrol("a", [new(0)])
    yield database
    database.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("http://a:1", "received the index 'http://a:1', expected milvus://HOST:PORT"),
        ("milvus://127.0.0.1:1", r"milvus://127.0.0.1:1: Milvus doesn't answer there \("),
    ],
)
def test_an_index_that_is_not_there(
    given: str, message: str, alone: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(milvus, "TIMEOUT_S", 0.5)
    with pytest.raises(DatabaseError, match=message):
        alone.outside_index.set_up(given)
    # Later: nobody is recognised, but who is removed is removed.
    alone.outside_index.address = given
    with pytest.raises(DatabaseError, match=message):
        alone.load()
    alone.remove("a")
    assert "who was removed goes out of it as soon as it answers" in caplog.text


def test_a_milvus_of_another_version(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus.MilvusClient, "get_server_version", lambda *_, **__: "v2.2.9")
    with pytest.raises(DatabaseError, match=r"is Milvus v2\.2\.9, expected 2\.3 or later"):
        MilvusIndex(address, "fake", "me")


def test_without_its_package(alone: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "voices.sql.milvus", None)
    with pytest.raises(DatabaseError, match=r"needs the package .*requirements-search\.txt"):
        alone.outside_index.set_up("milvus://a:1")


def test_before_the_first_speaker_there_is_no_index(tmp_path: Path) -> None:
    database = SqlVoiceStore(f"sqlite:///{tmp_path}/v")
    with pytest.raises(DatabaseError, match="nobody is enrolled; enrol a speaker first"):
        database.outside_index.set_up("milvus://127.0.0.1:1")
    database.close()

"""Groups of speakers in one database: nobody sees another group's, on both databases."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy import text

from utils.errors import DatabaseError, TooManySpeakersError, UnknownSpeakerError
from voices.sql.engine import SqlConnections, migrate
from voices.sql.index import Question
from voices.sql.records import NewRecording
from voices.sql.store import SqlVoiceStore


def embedding(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def new(seed: int, audio: bytes | None = None) -> NewRecording:
    return NewRecording(embedding(seed), 1, audio, 1)


@pytest.fixture
def database(database_url: str) -> Iterator[SqlVoiceStore]:
    database = SqlVoiceStore(database_url, keep_audio=True)
    yield database
    database.close()


def test_speakers_of_one_group_are_invisible_to_another(database: SqlVoiceStore) -> None:
    shop, bank = database.in_group("shop"), database.in_group("bank")
    (mine,) = shop.enrol("Ann", [new(1, b"sound")]).recordings
    bank.enrol("ann", [new(2)])
    bank.enrol("Ben", [new(3)])
    assert shop.names() == ["Ann"]
    assert bank.names() == ["ann", "Ben"] or bank.names() == ["Ben", "ann"]
    assert database.names() == []
    assert (shop.count(), bank.count(), database.count()) == (1, 2, 0)
    assert database.groups() == {"bank": 2, "shop": 1}
    assert shop.identify(embedding(2), top_k=9)[0][0] == "Ann"
    assert shop.identify(embedding(3), candidates=["Ben"]) == []
    assert bank.rank(embedding(3))[0][0] == "Ben"
    assert shop.score("ANN", embedding(1)) == pytest.approx(1, abs=1e-5)
    assert bank.score("ANN", embedding(1)) < 0.9
    assert shop.enrolled_name("ben") is None
    assert list(shop.all_recordings()) == ["Ann"]
    assert shop.speakers(query="en")[1] == 0
    with pytest.raises(UnknownSpeakerError):
        bank.original_audio("ann", mine.id)
    for ask in (shop.speaker, shop.remove, lambda name: shop.rename(name, "X")):
        with pytest.raises(UnknownSpeakerError):
            ask("Ben")
    # A name that the other group has is free.
    shop.rename("Ann", "Ben")
    shop.remove("Ben")
    assert sorted(bank.names()) == ["Ben", "ann"]


def test_questions_of_several_groups_are_answered_together(database: SqlVoiceStore) -> None:
    for number in range(6):
        database.in_group(f"g{number % 3}").enrol(f"s{number}", [new(number)])
    questions = [Question(embedding(n), 1, None, f"g{n % 3}") for n in range(6)]
    questions.append(Question(embedding(0), 1, None, "g1"))
    found = database.identify_each(questions)
    assert [matches[0][0] for matches in found[:6]] == [f"s{n}" for n in range(6)]
    assert found[6][0][0] in ("s1", "s4")
    assert database.identify_each([Question(embedding(0), 1, None, "none")]) == [[]]


def test_the_memory_follows_other_processes_group_by_group(
    database: SqlVoiceStore, database_url: str
) -> None:
    other = SqlVoiceStore(database_url)
    shop, bank = database.in_group("shop"), database.in_group("bank")
    for number in range(40):
        other.in_group("shop").enrol(f"s{number}", [new(number)])
    bank.enrol("b", [new(100)])
    database.load()
    assert shop.identify(embedding(7))[0][0] == "s7"
    other.in_group("shop").remove("s7")
    other.in_group("bank").enrol("s7", [new(7)])
    assert shop.identify(embedding(7))[0][1] < 0.9
    assert bank.identify(embedding(7))[0] == ("s7", pytest.approx(1, abs=1e-5))
    assert other.in_group("shop").remove_group() == 39
    assert shop.identify(embedding(8)) == []
    assert len(bank.identify(embedding(8), top_k=9)) == 2
    other.close()


def test_a_group_goes_with_all_keys(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voices.sql.changes.REMOVED_AT_ONCE", 10)
    shop = database.in_group("shop")
    for number in range(25):
        shop.enrol(f"s{number}", [new(number)])
    database.in_group("bank").enrol("kept", [new(1), new(2)])
    assert shop.remove_group() == 25
    assert shop.remove_group() == 0
    assert database.groups() == {"bank": 1}
    with database._connections.read() as connection:
        stored = connection.execute(text("SELECT stored FROM voiceprint_keys")).scalars().all()
        left = connection.execute(text("SELECT count(*) FROM voiceprint_recordings")).scalar()
    assert left == 2
    assert sum(any(bytes(key)) for key in stored) == 3
    with pytest.raises(DatabaseError, match="the group default cannot be deleted"):
        database.remove_group()


def test_the_limit_of_a_group(database: SqlVoiceStore) -> None:
    shop = database.in_group("shop")
    for number in range(2):
        shop.enrol(f"s{number}", [new(number)], max_speakers=2)
    with pytest.raises(TooManySpeakersError, match="the group has 2 speakers"):
        shop.enrol("s2", [new(2)], max_speakers=2)
    shop.enrol("s1", [new(3)], if_exists="add", max_speakers=2)
    database.enrol("s2", [new(2)], max_speakers=2)
    with pytest.raises(DatabaseError, match="received the group"):
        database.in_group("Shop")


@pytest.mark.slow
def test_a_database_of_before_is_migrated_in_place(
    database: SqlVoiceStore, database_url: str
) -> None:
    for number in range(30):
        database.enrol(f"s{number}", [new(number, b"sound"), new(number + 100)])
    database.close()
    connections = SqlConnections(database_url)
    with connections.migrating() as connection:
        migrate(connection, "0002")
    with connections.read() as connection:
        count = connection.execute(text("SELECT count(*) FROM voiceprint_recordings")).scalar()
        assert count == 60
    connections.close()
    opened = SqlVoiceStore(database_url, keep_audio=True)
    assert opened.groups() == {"default": 30}
    assert opened.identify(embedding(7) + embedding(107))[0] == ("s7", pytest.approx(1, abs=1e-5))
    (first, _) = opened.speaker("s7").recordings
    assert opened.original_audio("s7", first.id)[0] == b"sound"
    # What refers to a speaker still goes with the speaker.
    opened.remove("s7")
    with opened._connections.read() as connection:
        count = connection.execute(text("SELECT count(*) FROM voiceprint_recordings")).scalar()
    assert count == 58
    opened.in_group("shop").enrol("s8", [new(8)])
    opened.close()
    connections = SqlConnections(database_url)
    with pytest.raises(RuntimeError, match="other groups"), connections.migrating() as connection:
        migrate(connection, "0002")
    if connections.is_sqlite:
        refused = pytest.raises(RuntimeError, match="foreign keys are on")
        with refused, connections.write() as connection:
            connection.execute(text("DELETE FROM voiceprint_speakers"))
            migrate(connection, "0002")
    connections.close()


@pytest.mark.slow
def test_pgvectors_index_stays_within_a_group(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voices.sql.search.VECTOR_INDEX_MIN_SPEAKERS", 50)
    database = SqlVoiceStore(postgres_url)
    shop = database.in_group("shop")
    for number in range(60):
        database.enrol(f"d{number}", [new(number)])
    for number in range(10):
        shop.enrol(f"s{number}", [new(number)])
    database._search.build_vector_index()
    database.close()
    opened = SqlVoiceStore(postgres_url)
    shop = opened.in_group("shop")
    opened.load()
    assert list(opened._search._memories) == ["shop"]  # The large one stays in the database.
    assert opened.identify(embedding(3))[0] == ("d3", pytest.approx(1, abs=1e-5))
    assert shop.identify(embedding(3))[0] == ("s3", pytest.approx(1, abs=1e-5))
    assert {name[0] for name, _ in opened.identify(embedding(3), top_k=40)} == {"d"}
    assert list(opened._search._memories) == ["shop"]
    # A group that has grown turns to the index.
    for number in range(10, 60):
        shop.enrol(f"s{number}", [new(number)])
    shop.identify(embedding(3))
    assert shop.identify(embedding(40))[0] == ("s40", pytest.approx(1, abs=1e-5))
    assert "shop" in opened._search._large
    opened.close()


def test_the_last_use_of_tokens(database: SqlVoiceStore) -> None:
    first = datetime(2027, 1, 1, tzinfo=timezone.utc)
    uses = database.token_uses
    uses.note({})
    uses.note({"a" * 12: first, "b" * 12: first})
    uses.note({"a" * 12: first + timedelta(hours=1), "b" * 12: first - timedelta(hours=1)})
    assert uses.all() == {"a" * 12: first + timedelta(hours=1), "b" * 12: first}

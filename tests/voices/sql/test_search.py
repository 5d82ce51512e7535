"""pgvector's index finds the same as the memory, and follows changes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import text

from voices.sql.index import Question
from voices.sql.records import NewRecording
from voices.sql.search import VECTOR_INDEX
from voices.sql.store import SqlVoiceStore


def embedding(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def enrol(database: SqlVoiceStore, name: str, seed: int) -> None:
    new = NewRecording(embedding(seed), 1, None, 1)
    database.enrol(name, [new], if_exists="replace")


@pytest.fixture
def database(postgres_url: str) -> Iterator[SqlVoiceStore]:
    database = SqlVoiceStore(postgres_url)
    for seed in range(300):
        enrol(database, f"s{seed}", seed)
    yield database
    database.close()


def plan(database: SqlVoiceStore) -> str:
    """Returns how PostgreSQL would search if it had so many speakers that reading all is slow."""
    query = database._search._nearest(Question(embedding(0)))
    with database._connections.read() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_sort = off"))
        dialect = database._connections.engine.dialect
        statement = query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        values = {
            key: str(value.tolist()) if isinstance(value, np.ndarray) else value
            for key, value in statement.params.items()
        }
        rows = connection.exec_driver_sql(f"EXPLAIN {statement}", values)
        return "\n".join(row[0] for row in rows)


@pytest.mark.slow
def test_index_finds_the_same_and_follows_changes(
    database: SqlVoiceStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voices.sql.search.VECTOR_INDEX_MIN_SPEAKERS", 100)
    questions = [2 * embedding(seed) + embedding(seed + 1) for seed in range(9)]
    exact = [database.identify(question, top_k=5) for question in questions]
    assert not database._search.uses_vector_index
    database._search.build_vector_index()
    assert database._search.uses_vector_index
    assert VECTOR_INDEX in plan(database)
    for question, expected in zip(questions, exact, strict=True):
        found = database.identify(question, top_k=5)
        assert [name for name, _ in found] == [name for name, _ in expected]
        assert dict(found) == pytest.approx(dict(expected), abs=1e-5)
    other = SqlVoiceStore(postgres_url)
    other.remove("s7")
    other.rename("s8", "renamed")
    enrol(other, "s9", 1009)
    assert database.identify(embedding(7))[0][1] < 0.9
    assert database.identify(embedding(8))[0][0] == "renamed"
    assert database.identify(embedding(1009))[0] == ("s9", pytest.approx(1, abs=1e-5))
    assert database.identify(embedding(9))[0][1] < 0.9
    names = ["RENAMED", "s5", "s6", "nobody", "\ud800", "\0"]
    among = database.identify(embedding(8), candidates=names, top_k=2)
    assert len(among) == 2 and among[0][0] == "renamed" and among[1][0] in ("s5", "s6")
    assert database.identify(embedding(8), candidates=names, top_k=0) == []
    assert len(database.identify(embedding(0), top_k=250)) == 250
    assert len(database.rank(embedding(0))) == 299
    other.close()


@pytest.mark.slow
def test_index_is_built_beside_the_questions_and_found_at_the_next_start(
    database: SqlVoiceStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voices.sql.search.VECTOR_INDEX_MIN_SPEAKERS", 301)
    database.identify(embedding(0))
    assert database._search._builder is None
    monkeypatch.setattr("voices.sql.search.VECTOR_INDEX_MIN_SPEAKERS", 300)
    assert database.identify(embedding(3))[0] == ("s3", pytest.approx(1, abs=1e-5))
    assert database._search._builder is not None
    database._search._builder.join()
    assert database._search.uses_vector_index
    opened = SqlVoiceStore(postgres_url)
    assert opened._search.uses_vector_index
    assert opened.identify(embedding(3))[0] == ("s3", pytest.approx(1, abs=1e-5))
    opened.close()


@pytest.mark.slow
def test_index_of_an_interrupted_build_is_made_again(
    database: SqlVoiceStore, postgres_url: str
) -> None:
    database._search.build_vector_index()
    with database._connections.write() as connection:
        # What a killed build leaves behind.
        connection.execute(
            text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(:name)"),
            {"name": database._search._index_name},
        )
    opened = SqlVoiceStore(postgres_url)
    assert not opened._search.uses_vector_index
    opened._search.build_vector_index()
    assert opened.identify(embedding(3))[0] == ("s3", pytest.approx(1, abs=1e-5))
    assert VECTOR_INDEX in plan(opened)
    opened.close()


@pytest.mark.slow
def test_processes_that_build_at_once_build_one(database: SqlVoiceStore, postgres_url: str) -> None:
    databases = [database, *(SqlVoiceStore(postgres_url) for _ in range(3))]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: each._search.build_vector_index(), databases))
    assert all(each.identify(embedding(3))[0][0] == "s3" for each in databases)
    for each in databases[1:]:
        each.close()


def test_only_readable_postgresql_has_an_index(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("sqlite") / "v.sqlite3"
    for url, key in [(postgres_url, bytes(32)), (f"sqlite:///{file}", None)]:
        database = SqlVoiceStore(url, key=key)
        enrol(database, "a", 0)
        with pytest.raises(ValueError, match="holds no vectors"):
            database._search.build_vector_index()
        if key is not None:
            with database._connections.read() as connection:
                count = connection.execute(
                    text("SELECT count(*) FROM voiceprint_model_vectors")
                ).scalar()
            assert count == 0, "an embedding in plain sight"
        database.close()

"""Rates and locks, counted in the process or in the database for all replicas: the same rules."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from service.answers.problems import Problem
from service.edge.counters import Counter, LocalCounts
from service.edge.limits import Lockout, RateLimiter
from utils.errors import DatabaseError
from voices.sql.counts import SharedCounts
from voices.sql.engine import SqlConnections

Clock = list[float]


class Counts:
    """Counts with a clock that a test sets; in the database, its rows are made older instead."""

    def __init__(self, counter: Counter, set_clock: Callable[[float], None]) -> None:
        self.counter = counter
        self.set_clock = set_clock


@pytest.fixture(scope="module")
def connections(postgres_server: Any) -> Iterator[SqlConnections]:
    url = postgres_server.new_database()
    connections = SqlConnections(url)
    yield connections
    connections.close()
    postgres_server.drop_database(url)


@pytest.fixture(params=["local", "shared"])
def counts(request: pytest.FixtureRequest) -> Iterator[Counts]:
    now = [0.0]
    if request.param == "local":

        def set_local(moment: float) -> None:
            now[0] = moment

        yield Counts(Counter(clock=lambda: now[0]), set_local)
        return
    connections = request.getfixturevalue("connections")
    with connections.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE voiceprint_rates, voiceprint_attempts")

    def set_shared(moment: float) -> None:
        passed, now[0] = moment - now[0], moment
        with connections.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE voiceprint_rates SET at = at - {passed}")
            connection.exec_driver_sql(
                "UPDATE voiceprint_attempts SET times = ARRAY(SELECT t - %s FROM unnest(times) t)",
                (passed,),
            )

    counter = Counter(SharedCounts(connections))
    yield Counts(counter, set_shared)
    counter.close()


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(steps)


async def refused(work: Coroutine[Any, Any, Any]) -> dict[str, str]:
    """The headers of the problem that a count ends with."""
    with pytest.raises(Problem) as caught:
        await work
    assert caught.value.headers is not None
    return dict(caught.value.headers)


@pytest.mark.slow
def test_a_bucket_fills_again(counts: Counts) -> None:
    async def steps() -> None:
        limiter = RateLimiter("rate", 6, counts.counter)
        for _ in range(6):
            await limiter.check("a")
        assert await refused(limiter.check("a")) == {"Retry-After": "10"}
        await limiter.check("b")
        await RateLimiter("other", 6, counts.counter).check("a")
        counts.set_clock(10.0)
        await limiter.check("a")
        assert await refused(limiter.check("a")) == {"Retry-After": "10"}
        # It never holds more than a minute's.
        counts.set_clock(1000.0)
        for _ in range(6):
            await limiter.check("a")
        await refused(limiter.check("a"))
        for _ in range(100):
            await RateLimiter("rate", 0, counts.counter).check("a")

    run(steps())


def test_a_lock_ends_and_attempts_at_once_are_counted(counts: Counts) -> None:
    async def steps() -> None:
        lock = Lockout(2, 100, counts.counter)
        await lock.begin("Ann")
        counts.set_clock(40.0)
        mark = await lock.begin("ann")
        assert await refused(lock.begin("ANN")) == {"Retry-After": "60"}
        await lock.forget("Ann", mark)
        await lock.begin("Ann")
        counts.set_clock(105.0)
        await lock.begin("Ann")
        await refused(lock.begin("Ann"))
        await lock.begin("Ben")
        await lock.forget("ANN")
        await lock.forget("Nobody", 3.0)
        await lock.begin("Ann")
        never = Lockout(0, 100, counts.counter)
        for _ in range(9):
            await never.forget("Ann", await never.begin("Ann"))

    run(steps())


def test_requests_at_once_share_a_bucket(counts: Counts) -> None:
    async def steps() -> None:
        limiter = RateLimiter("rate", 20, counts.counter)
        lock = Lockout(5, 100, counts.counter)
        work = [limiter.check("a") for _ in range(50)]
        answers = await asyncio.gather(*work, return_exceptions=True)
        # One may be added while they run: after 3 s.
        assert 20 <= answers.count(None) <= 21
        tries = await asyncio.gather(
            *(lock.begin("Ann") for _ in range(20)), return_exceptions=True
        )
        assert sum(isinstance(each, float) for each in tries) == 5

    run(steps())


def test_the_longest_unused_keys_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.edge.counters.MAX_KEYS", 2)
    counts = LocalCounts(lambda: 0.0)
    for key in ["a", "b", "c", "a"]:
        assert counts.take(key, 1) == 0
        assert counts.attempt(key, 1, 60) == (0, 0)
    assert counts.take("c", 1) == 60
    assert counts.attempt("c", 1, 60) == (0, 60)


class Unreachable:
    """A database that does not answer."""

    num_asked = 0

    def take(self, key: str, per_minute: int) -> float:
        self.num_asked += 1
        raise DatabaseError("nobody answers")

    def attempt(self, key: str, most: int, period_s: float) -> tuple[float, float]:
        raise AssertionError("asked too soon")

    def forget(self, key: str, mark: float | None = None) -> None:
        raise AssertionError("asked too soon")


def test_without_the_database_each_replica_counts_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    shared = Unreachable()
    counter = Counter(shared, lambda: now[0])

    async def steps() -> None:
        limiter, lock = RateLimiter("rate", 2, counter), Lockout(1, 60, counter)
        await limiter.check("a")
        await limiter.check("a")
        await refused(limiter.check("a"))
        await lock.forget("Ann", await lock.begin("Ann"))
        await lock.begin("Ann")
        await refused(lock.begin("Ann"))
        assert shared.num_asked == 1
        now[0] = 6.0
        await limiter.check("b")
        assert shared.num_asked == 2

    with caplog.at_level(logging.WARNING):
        run(steps())
    counter.close()
    assert caplog.text.count("limits are not shared") == 2


@pytest.mark.slow
def test_what_says_nothing_any_more_is_removed(
    connections: SqlConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voices.sql.counts.SWEEP_S", 0.0)
    counts = SharedCounts(connections)

    def rows(column: str = "count(*)") -> list[Any]:
        with connections.read() as connection:
            return [
                connection.exec_driver_sql(f"SELECT {column} FROM {table}").scalar()
                for table in ("voiceprint_rates", "voiceprint_attempts")
            ]

    with connections.engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE voiceprint_rates, voiceprint_attempts")
    counts.take("token of a door", 5)
    counts.attempt("lock default/Ann", 5, 1000)
    assert rows() == [1, 1]
    # No name and no address is stored.
    assert [len(key) for key in rows("key")] == [32, 32]
    for passed in (50, 1010):
        with connections.engine.begin() as connection:
            for table in ("voiceprint_rates", "voiceprint_attempts"):
                connection.exec_driver_sql(f"UPDATE {table} SET expires_at = expires_at - {passed}")
        counts.take("another", 5)
        counts.forget("nobody")
    assert rows() == [1, 0]

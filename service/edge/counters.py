"""Where requests and failures are counted: in this process, or in the database for all replicas."""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from service.logs import log_event
from utils.errors import DatabaseError

T = TypeVar("T")

MAX_KEYS = 10_000
"""Tokens, addresses or names to track; the least recently used is dropped first."""

NUM_THREADS = 2
"""Counts in the database at a time: each takes less than a millisecond."""

RETRY_S = 5.0
"""Seconds after which a database that did not answer is asked again; each replica counts alone
meanwhile."""


class Counts(Protocol):
    """Counts of requests and failures under keys."""

    def take(self, key: str, per_minute: int) -> float:
        """Takes a request out of a bucket that holds a minute's and fills steadily.

        Returns:
            0, or after how many seconds there will be one.
        """

    def attempt(self, key: str, most: int, period_s: float) -> tuple[float, float]:
        """Notes an attempt, unless there were `most` within the last `period_s` seconds.

        Returns:
            The mark of the attempt, and 0; or after how many seconds there may be another.
        """

    def forget(self, key: str, mark: float | None = None) -> None:
        """Removes one attempt, or all of a key."""


class LocalCounts:
    """Counts of this process; the least recently used keys are dropped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._attempts: OrderedDict[str, list[float]] = OrderedDict()

    def take(self, key: str, per_minute: int) -> float:
        """Takes a request out of a bucket; returns seconds to wait."""
        with self._lock:
            now = self._clock()
            left, at = self._buckets.pop(key, (float(per_minute), now))
            left = min(left + (now - at) * per_minute / 60, per_minute)
            is_allowed = left >= 1
            self._buckets[key] = (left - 1 if is_allowed else left, now)
            while len(self._buckets) > MAX_KEYS:
                self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - left) * 60 / per_minute

    def attempt(self, key: str, most: int, period_s: float) -> tuple[float, float]:
        """Notes an attempt; returns its mark, and seconds to wait."""
        now = self._clock()
        with self._lock:
            recent = [at for at in self._attempts.pop(key, []) if at > now - period_s]
            is_locked = len(recent) >= most
            self._attempts[key] = recent if is_locked else [*recent, now]
            while len(self._attempts) > MAX_KEYS:
                self._attempts.popitem(last=False)
        return now, recent[-most] + period_s - now if is_locked else 0.0

    def forget(self, key: str, mark: float | None = None) -> None:
        """Removes one attempt, or all of a key."""
        with self._lock:
            if mark is None:
                self._attempts.pop(key, None)
            elif mark in self._attempts.get(key, []):
                self._attempts[key].remove(mark)


class Counter:
    """Counts for the event loop: shared ones where there are any, local ones while they fail."""

    def __init__(
        self, shared: Counts | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepares counts; those of all replicas if `shared` is given."""
        self._shared = shared
        self._local = LocalCounts(clock)
        self._clock = clock
        self._retry_at = clock()
        self._executor: ThreadPoolExecutor | None = None

    async def take(self, key: str, per_minute: int) -> float:
        """Takes a request out of a bucket; returns seconds to wait."""
        return await self._count(lambda counts: counts.take(key, per_minute))

    async def attempt(self, key: str, most: int, period_s: float) -> tuple[float, float]:
        """Notes an attempt; returns its mark, and seconds to wait."""
        return await self._count(lambda counts: counts.attempt(key, most, period_s))

    async def forget(self, key: str, mark: float | None = None) -> None:
        """Removes one attempt, or all of a key."""
        await self._count(lambda counts: counts.forget(key, mark))

    def close(self) -> None:
        """Ends the threads; a later count starts new ones."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)

    async def _count(self, work: Callable[[Counts], T]) -> T:
        """Does something with the counts that are to be had."""
        shared = self._shared
        if shared is None or self._clock() < self._retry_at:
            return work(self._local)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(NUM_THREADS, "counts")
        try:
            # A client that goes away ends no count midway.
            return await asyncio.shield(
                asyncio.get_running_loop().run_in_executor(self._executor, work, shared)
            )
        except DatabaseError as error:
            self._retry_at = self._clock() + RETRY_S
            log_event("limits are not shared", level=logging.WARNING, reason=str(error))
            return work(self._local)

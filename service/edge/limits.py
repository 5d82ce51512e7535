"""Request rates by token or address, and locks after failed verifications."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from service.answers.problems import retry_later

MAX_KEYS = 10_000
"""Tokens, addresses or names to track; the least recently used is dropped first."""

FAILED_TOKENS_A_MINUTE = 30
"""Wrong tokens a minute from one address that get 401; further ones get 429."""


class RateLimiter:
    """A token bucket per key: it allows a minute's requests in a burst, then a steady rate."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepares buckets of `per_minute` requests; 0 for no limit."""
        self.per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, key: str) -> None:
        """Counts a request.

        Raises:
            Problem: 429 with Retry-After, if the bucket is empty.
        """
        if self.per_minute == 0:
            return
        with self._lock:
            now = self._clock()
            left, at = self._buckets.pop(key, (float(self.per_minute), now))
            left = min(left + (now - at) * self.per_minute / 60, self.per_minute)
            allowed = left >= 1
            self._buckets[key] = (left - 1 if allowed else left, now)
            while len(self._buckets) > MAX_KEYS:
                self._buckets.popitem(last=False)
        if not allowed:
            raise retry_later(
                "too-many-requests",
                f"more than {self.per_minute} requests a minute",
                (1 - left) * 60 / self.per_minute,
                expected=f"at most {self.per_minute} requests a minute",
            )


class Lockout:
    """Locks a speaker's verification after failures, so that nobody can try voices endlessly.

    An attempt counts as failed until it succeeds: parallel attempts don't get around the limit.
    """

    def __init__(
        self, max_failures: int, period_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Locks after `max_failures` within `period_s` seconds; 0 for never."""
        self.max_failures = max_failures
        self.period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def begin(self, name: str) -> float:
        """Records an attempt and returns its mark for `forget`.

        Raises:
            Problem: 429 with Retry-After, while the speaker is locked.
        """
        now = self._clock()
        if self.max_failures == 0:
            return now
        key = name.casefold()
        with self._lock:
            recent = [at for at in self._failures.pop(key, []) if at > now - self.period_s]
            is_locked = len(recent) >= self.max_failures
            self._failures[key] = recent if is_locked else [*recent, now]
            while len(self._failures) > MAX_KEYS:
                self._failures.popitem(last=False)
        if is_locked:
            raise retry_later(
                "locked",
                f"{self.max_failures} verifications of this speaker failed; verify in another way",
                recent[-self.max_failures] + self.period_s - now,
            )
        return now

    def is_locked(self, name: str) -> bool:
        """Tells whether the failures that are known by now lock a speaker."""
        if self.max_failures == 0:
            return False
        with self._lock:
            failures = self._failures.get(name.casefold(), [])
            since = self._clock() - self.period_s
            return sum(at > since for at in failures) >= self.max_failures

    def forget(self, name: str, mark: float | None = None) -> None:
        """Clears one attempt that did not fail, or all of a speaker's after a success."""
        key = name.casefold()
        with self._lock:
            if mark is None:
                self._failures.pop(key, None)
            elif mark in self._failures.get(key, []):
                self._failures[key].remove(mark)

"""How often somebody may ask: request rates by token or address, and locks after failures."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from service.answers.problems import retry_later

MAX_KEYS = 10_000
"""Tokens, addresses or names that are remembered; the longest unused is forgotten first."""

FAILED_TOKENS_A_MINUTE = 30
"""Wrong tokens of an address that are answered with 401 in a minute; further ones get 429."""


class RateLimiter:
    """A token bucket for each key: a minute's requests may come at once, then evenly."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepares the buckets.

        Args:
            per_minute: Requests a minute; 0 for no limit.
            clock: Seconds that never run backwards.
        """
        self.per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, key: str) -> None:
        """Counts a request of somebody.

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

    Attempts count as failed until they have succeeded: trying many at once doesn't help.
    """

    def __init__(
        self, max_failures: int, period_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepares the count.

        Args:
            max_failures: Failures within the period that lock; 0 for never.
            period_s: Seconds for which a failure counts.
            clock: Seconds that never run backwards.
        """
        self.max_failures = max_failures
        self.period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def begin(self, name: str) -> float:
        """Notes an attempt and returns its mark for `forget`.

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

    def forget(self, name: str, mark: float | None = None) -> None:
        """Takes one attempt back that was no failure, or all of a speaker after a success."""
        key = name.casefold()
        with self._lock:
            if mark is None:
                self._failures.pop(key, None)
            elif mark in self._failures.get(key, []):
                self._failures[key].remove(mark)

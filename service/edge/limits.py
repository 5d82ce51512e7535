"""Request rates by token or address, and locks after failed verifications."""

import time

from service.answers.problems import retry_later
from service.edge.counters import Counter

FAILED_TOKENS_A_MINUTE = 30
"""Wrong tokens a minute from one address that get 401; further ones get 429."""


class RateLimiter:
    """A token bucket per key: it allows a minute's requests in a burst, then a steady rate."""

    def __init__(self, name: str, per_minute: int, counter: Counter) -> None:
        """Prepares buckets of `per_minute` requests, told apart by `name`; 0 for no limit."""
        self.per_minute = per_minute
        self._name = name
        self._counter = counter

    async def check(self, key: str) -> None:
        """Counts a request.

        Raises:
            Problem: 429 with Retry-After, if the bucket is empty.
        """
        if self.per_minute == 0:
            return
        wait_s = await self._counter.take(f"{self._name} {key}", self.per_minute)
        if wait_s > 0:
            raise retry_later(
                "too-many-requests",
                f"more than {self.per_minute} requests a minute",
                wait_s,
                expected=f"at most {self.per_minute} requests a minute",
            )


class Lockout:
    """Locks a speaker's verification after failures, so that nobody can try voices endlessly.

    An attempt counts as failed until it succeeds: parallel attempts don't get around the limit.
    """

    def __init__(self, max_failures: int, period_s: float, counter: Counter) -> None:
        """Locks after `max_failures` within `period_s` seconds; 0 for never."""
        self.max_failures = max_failures
        self.period_s = period_s
        self._counter = counter
        self._told: dict[str, float] = {}

    async def begin(self, name: str) -> float:
        """Records an attempt and returns its mark for `forget`.

        Raises:
            Problem: 429 with Retry-After, while the speaker is locked.
        """
        if self.max_failures == 0:
            return 0.0
        mark, wait_s = await self._counter.attempt(_key(name), self.max_failures, self.period_s)
        if wait_s > 0:
            raise retry_later(
                "locked",
                f"{self.max_failures} verifications of this speaker failed; verify in another way",
                wait_s,
            )
        return mark

    def is_news(self, name: str) -> bool:
        """Tells whether a refusal begins a lock: true once in the time that one lasts."""
        now, key = time.monotonic(), _key(name)
        self._told = {other: at for other, at in self._told.items() if at > now - self.period_s}
        is_news = key not in self._told
        if is_news:
            self._told[key] = now
        return is_news

    async def forget(self, name: str, mark: float | None = None) -> None:
        """Clears one attempt that did not fail, or all of a speaker's after a success."""
        if self.max_failures:
            await self._counter.forget(_key(name), mark)


def _key(name: str) -> str:
    """Returns under what the failures of a speaker are counted."""
    return f"lock {name.casefold()}"

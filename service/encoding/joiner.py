"""Batches concurrent requests, so that one run answers several of them.

The encoder takes one recording at a time: recordings differ in length, and batching gains nothing
on a busy core. The search is batched: one pass over all speakers compares several voices, and one
transaction writes their lines of the audit log.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_JOINED = 4
"""Items that start a run at once: one pass over the speakers compares four voices in the time of
one."""

MAX_WAIT_S = 0.1
"""Longest time in seconds that an item waits for others."""


class Joiner(Generic[Item, Result]):
    """Collects items while more are coming, and handles them together; on one event loop."""

    def __init__(
        self,
        handle: Callable[[list[Item]], Awaitable[list[Result]]],
        is_pressed: Callable[[], bool],
    ) -> None:
        """Starts without items.

        Args:
            handle: Returns a result for each item; all succeed or none.
            is_pressed: Whether enough work is waiting that more items will soon come.
        """
        self._handle = handle
        self._is_pressed = is_pressed
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._runs: set[asyncio.Task[None]] = set()

    async def handle(self, item: Item) -> Result:
        """Returns the result of an item; raises what handling its batch raised."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, result))
        if len(self._waiting) >= MAX_JOINED or not self._is_pressed():
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_later(MAX_WAIT_S, self._begin)
        return await result

    def _begin(self) -> None:
        """Starts a run with the collected items."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        run = asyncio.ensure_future(self._run(batch))
        self._runs.add(run)  # the loop itself holds running tasks weakly
        run.add_done_callback(self._runs.discard)

    async def _run(self, batch: "list[tuple[Item, asyncio.Future[Result]]]") -> None:
        """Handles items and passes on their results; whoever gave up waiting gets none."""
        try:
            results = await self._handle([item for item, _ in batch])
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

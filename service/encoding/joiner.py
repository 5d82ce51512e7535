"""Batches concurrent requests, so that one run answers several of them.

The encoder takes one recording at a time: recordings differ in length, and batching gains nothing
on a busy core. The search is batched: one pass over all speakers compares several voices, and one
transaction writes their lines of the audit log.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_JOINED = 4
"""Items that start a run at once: one pass over the speakers compares four voices in the time of
one."""


MAX_WAIT_S = 0.1
"""Longest time in seconds that an item waits for others."""


class Joiner(Generic[Item, Result]):
    """Collects items while more are coming, and handles them together."""

    def __init__(
        self,
        handle: Callable[[list[Item]], list[Result]],
        start: Callable[[Callable[[], None]], object],
        start_later: Callable[[float, Callable[[], None]], object],
        is_pressed: Callable[[], bool],
    ) -> None:
        """Starts without items.

        Args:
            handle: Returns a result for each item; all succeed or none.
            start: Starts a call in another thread.
            start_later: Makes a short call after the given seconds.
            is_pressed: Whether enough work is waiting that `release` will soon be called again.
        """
        self._handle = handle
        self._start = start
        self._start_later = start_later
        self._is_pressed = is_pressed
        self._lock = threading.Lock()
        self._items: list[tuple[Item, Future[Result]]] = []
        self._num_runs = 0
        self._timed_run = -1

    def add(self, item: Item, future: "Future[Result]") -> None:
        """Adds an item, whose result `future` gets; the caller must then call `release`."""
        with self._lock:
            self._items.append((item, future))

    def release(self) -> None:
        """Handles the collected items, unless more are about to come."""
        with self._lock:
            if not self._items:
                return
            run = self._num_runs
            is_held = len(self._items) < MAX_JOINED and self._is_pressed()
            if is_held and self._timed_run == run:
                return
            self._timed_run = run
        try:
            if is_held:
                self._start_later(MAX_WAIT_S, lambda: self._begin(run))
                return
        except RuntimeError:  # The event loop has ended.
            pass
        self._begin(run)

    def _begin(self, run: int) -> None:
        """Starts a run with the collected items, unless it has already begun."""
        with self._lock:
            if self._num_runs != run:
                return
            self._num_runs += 1
            items, self._items = self._items, []
        try:
            self._start(lambda: self._run(items))
        except RuntimeError as error:  # No thread can be started.
            self._fail(items, error)

    def _run(self, items: "list[tuple[Item, Future[Result]]]") -> None:
        """Handles items and sets their futures' results."""
        try:
            results = self._handle([item for item, _ in items])
        except Exception as error:
            self._fail(items, error)
            return
        for (_, future), result in zip(items, results, strict=True):
            future.set_result(result)

    def _fail(self, items: "list[tuple[Item, Future[Result]]]", error: Exception) -> None:
        """Sets an error on the futures of items."""
        for _, future in items:
            future.set_exception(error)

"""Joins what comes at the same time, so that one run answers several requests.

A recording has the encoder to itself: recordings differ in length, and a core that is busy with one
gains nothing from a second. What follows is shared: one pass over all speakers compares several
voices, and one transaction writes their lines of the audit log.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_JOINED = 4
"""Items that are not held back for more: one pass over the speakers compares four voices in the
time of one."""


MAX_WAIT_S = 0.1
"""Seconds for which an item is held back at most, if what is on its way takes that long."""


class Joiner(Generic[Item, Result]):
    """Collects items while more of them are on their way, and handles them together."""

    def __init__(
        self,
        handle: Callable[[list[Item]], list[Result]],
        start: Callable[[Callable[[], None]], object],
        start_later: Callable[[float, Callable[[], None]], object],
        is_pressed: Callable[[], bool],
    ) -> None:
        """Takes what is needed.

        Args:
            handle: Returns a result for each item; all or none are handled.
            start: Begins a call in another thread.
            start_later: Makes a short call after so many seconds.
            is_pressed: Tells whether so much work waits that a later call of `release` is soon.
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
        """Takes an item; who adds it calls `release` afterwards, and `future` gets the result."""
        with self._lock:
            self._items.append((item, future))

    def release(self) -> None:
        """Handles what was collected, unless more is about to come."""
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
        """Handles what is collected, unless that run has begun already."""
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
        """Handles items, and tells their futures."""
        try:
            results = self._handle([item for item, _ in items])
        except Exception as error:
            self._fail(items, error)
            return
        for (_, future), result in zip(items, results, strict=True):
            future.set_result(result)

    def _fail(self, items: "list[tuple[Item, Future[Result]]]", error: Exception) -> None:
        """Tells the futures of items that cannot be handled."""
        for _, future in items:
            future.set_exception(error)

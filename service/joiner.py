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
"""Items of one run: one pass over the speakers compares four voices in the time of one."""


class Joiner(Generic[Item, Result]):
    """Collects items while more of them are on their way, and handles them together.

    An item never waits for one that has not been accepted yet: `is_pressed` must tell of work that
    is certain to end with another call of `release`.
    """

    def __init__(
        self,
        handle: Callable[[list[Item]], list[Result]],
        start: Callable[[Callable[[], None]], object],
        is_pressed: Callable[[], bool],
    ) -> None:
        """Takes what is needed.

        Args:
            handle: Returns a result for each item; all or none are handled.
            start: Begins a call in another thread.
            is_pressed: Tells whether so much work waits that a later call of `release` is soon.
        """
        self._handle = handle
        self._start = start
        self._is_pressed = is_pressed
        self._lock = threading.Lock()
        self._items: list[tuple[Item, Future[Result]]] = []

    def add(self, item: Item, future: "Future[Result]") -> None:
        """Takes an item; who adds it calls `release` afterwards, and `future` gets the result."""
        with self._lock:
            self._items.append((item, future))

    def release(self) -> None:
        """Handles what was collected, unless more is about to come."""
        with self._lock:
            if not self._items or (len(self._items) < MAX_JOINED and self._is_pressed()):
                return
            items, self._items = self._items, []
        self._start(lambda: self._run(items))

    def _run(self, items: "list[tuple[Item, Future[Result]]]") -> None:
        """Handles items, and tells their futures."""
        try:
            results = self._handle([item for item, _ in items])
        except Exception as error:
            if len(items) == 1:
                items[0][1].set_exception(error)
                return
            # One by one: no request fails for another's sake.
            for pair in items:
                self._run([pair])
            return
        for (_, future), result in zip(items, results, strict=True):
            future.set_result(result)

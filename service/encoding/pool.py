"""The encoding pool: a fixed number of threads, a bounded queue, and an immediate refusal.

ONNX Runtime releases Python's lock, so threads that each encode one recording on one core keep all
cores busy.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from service.answers.problems import Problem, retry_later
from utils.processors import num_processors

T = TypeVar("T")

SMOOTHING = 0.1
"""Weight of the newest job in the mean time of a job."""


class EncodingPool:
    """Runs jobs on a fixed number of threads and refuses jobs when the queue is full."""

    def __init__(
        self,
        num_threads: int | None = None,
        queue_size: int = 64,
        on_job: Callable[[float], None] | None = None,
    ) -> None:
        """Prepares the pool; threads start on demand.

        Args:
            num_threads: Jobs at a time, None for one a core.
            queue_size: Jobs that may wait.
            on_job: Called with the duration of each job in seconds.
        """
        self.num_threads = num_threads or num_processors()
        self.queue_size = queue_size
        self._on_job = on_job
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._num_pending = 0
        self._num_running = 0
        self._mean_s = 0.1

    @property
    def num_pending(self) -> int:
        """Jobs running or waiting."""
        return self._num_pending

    @property
    def is_pressed(self) -> bool:
        """Whether every thread has another job waiting."""
        return self._num_pending - self._num_running >= self.num_threads

    def check_room(self) -> None:
        """Refuses an upload before it is read if the queue is full.

        Raises:
            Problem: 503 with Retry-After, if the queue is full.
        """
        if self._num_pending >= self.num_threads + self.queue_size:
            raise self._busy()

    def submit(
        self, jobs: Sequence[Callable[[], T]], *, are_recordings: bool = True
    ) -> "list[Future[T]]":
        """Accepts all jobs or none; those that are no recordings count in no figure.

        Raises:
            Problem: 503 with Retry-After, if the queue has no room for them.
        """
        with self._lock:
            room = self.num_threads + self.queue_size - self._num_pending
            # An idle pool accepts even more recordings than the queue holds.
            if len(jobs) > room and self._num_pending:
                raise self._busy()
            self._num_pending += len(jobs)
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.num_threads, "encode")
            futures = [self._executor.submit(self._run, job, are_recordings) for job in jobs]
        for future in futures:
            future.add_done_callback(self._note_cancelled)
        return futures

    def close(self) -> None:
        """Finishes the accepted jobs, then ends the threads; a new job starts them again."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)

    def _busy(self) -> Problem:
        """Returns the refusal, with the estimated time to empty the queue."""
        return retry_later(
            "busy",
            f"the queue is full: {self._num_pending} recordings are being encoded or waiting",
            self._num_pending * self._mean_s / self.num_threads,
        )

    def _note_cancelled(self, future: "Future[Any]") -> None:
        """Frees the place of a job that was cancelled before it ran."""
        if future.cancelled():
            with self._lock:
                self._num_pending -= 1

    def _run(self, job: Callable[[], Any], is_recording: bool) -> Any:
        """Runs a job and counts it."""
        start = time.perf_counter()
        with self._lock:
            self._num_running += 1
        try:
            return job()
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self._num_running -= 1
                self._num_pending -= 1
                if is_recording:
                    self._mean_s += SMOOTHING * (elapsed - self._mean_s)
            if self._on_job is not None and is_recording:
                self._on_job(elapsed)

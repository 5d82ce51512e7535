"""One interface for work on one machine and on many: small tasks that may be done twice."""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from utils.engine.order import Done, Order, run_chunk
from utils.errors import VoiceprintError
from utils.workers import CHUNKS_AHEAD, cut, map_in_processes

Job = TypeVar("Job")
Result = TypeVar("Result")

POLL_S = 1.0
"""Seconds after which a cluster that gives no result is asked whether it is there."""


WORKLESS_S = 600.0
"""Seconds for which a cluster may be without workers: new machines take minutes to start."""


class Engine(Protocol):
    """Where tasks run."""

    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Iterable[Job],
        on_crash: Callable[[Job], Result],
    ) -> Iterator[Result]:
        """Yields `function(job)` for every job, in the order of the jobs.

        A job may be done twice, when a worker dies: it must give the same and leave the same.

        Args:
            function: What to do; importable and picklable. An exception in it ends the whole map.
            jobs: Read lazily, a few chunks ahead.
            on_crash: The result for a job that kills its worker; called in this process.

        Raises:
            VoiceprintError: If a job raised one, or a worker can't do what the driver means.
        """

    def close(self) -> None:
        """Lets the workers go."""


@dataclass(frozen=True)
class LocalEngine:
    """Processes of this machine: the default, with nothing to install."""

    num_workers: int

    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Iterable[Job],
        on_crash: Callable[[Job], Result],
    ) -> Iterator[Result]:
        """Implements `Engine.map`."""
        return map_in_processes(function, jobs, self.num_workers, on_crash)

    def close(self) -> None:
        """Does nothing: the processes end with their map."""


@dataclass(frozen=True)
class Cluster:
    """What another project's cluster offers.

    Attributes:
        address: As the user gave it.
        executor: Its workers; a task of one that dies is done again by another.
        num_workers: How many there are now.
        crashes: Exceptions of a task that killed one worker after the other.
        losses: Exceptions that mean that the cluster is gone.
        is_there: Whether it answers; asked while a result is waited for.
        close: Lets go of it.
    """

    address: str
    executor: Executor
    num_workers: Callable[[], int]
    crashes: tuple[type[BaseException], ...]
    losses: tuple[type[BaseException], ...]
    is_there: Callable[[], bool]
    close: Callable[[], Any]


class ClusterEngine:
    """The workers of a cluster, which have the toolkit and share the driver's files."""

    def __init__(self, cluster: Cluster) -> None:
        """Takes a cluster; `close` lets it go."""
        self._cluster = cluster
        self._order = Order.of_this_process()
        self._call = _make_call()

    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Iterable[Job],
        on_crash: Callable[[Job], Result],
    ) -> Iterator[Result]:
        """Implements `Engine.map`."""
        pending: deque[tuple[Sequence[Job], Future[bytes]]] = deque()
        try:
            for chunk in cut(jobs):
                pending.append((chunk, self._submit(function, chunk)))
                if len(pending) > CHUNKS_AHEAD * max(1, self._cluster.num_workers()):
                    yield from self._results(function, on_crash, *pending.popleft())
            while pending:
                yield from self._results(function, on_crash, *pending.popleft())
        except self._cluster.losses as error:
            raise self._is_gone() from error
        finally:
            for _, future in pending:
                future.cancel()

    def close(self) -> None:
        """Lets the workers go."""
        self._cluster.close()

    def _is_gone(self) -> VoiceprintError:
        return VoiceprintError(
            f"{self._cluster.address}: the cluster is gone; start it again and repeat the command, "
            "which goes on where it was"
        )

    def _wait(self, future: Future[bytes]) -> bytes:
        """Returns a result; raises VoiceprintError if the cluster or all its workers go away."""
        worked_at = time.monotonic()
        while not wait([future], timeout=POLL_S).done:
            if not self._cluster.is_there():
                raise self._is_gone()
            if self._cluster.num_workers():
                worked_at = time.monotonic()
            elif time.monotonic() - worked_at > WORKLESS_S:
                raise VoiceprintError(
                    f"{self._cluster.address}: has had no workers for {WORKLESS_S:.0f} s; start "
                    "some and repeat the command, which goes on where it was"
                )
        return future.result()

    def _submit(self, function: Callable[[Job], Result], chunk: Sequence[Job]) -> Future[bytes]:
        work = pickle.dumps((run_chunk, self._order, function, chunk))
        return self._cluster.executor.submit(self._call, work)

    def _results(
        self,
        function: Callable[[Job], Result],
        on_crash: Callable[[Job], Result],
        chunk: Sequence[Job],
        future: Future[bytes],
    ) -> Iterator[Result]:
        """Yields the results of a chunk; of one that kills workers, job by job."""
        try:
            done: Done[Result] = pickle.loads(self._wait(future))
        except self._cluster.crashes:
            for job in chunk:
                if len(chunk) == 1:
                    yield on_crash(job)
                else:
                    alone = self._submit(function, [job])
                    yield from self._results(function, on_crash, [job], alone)
            return
        except ModuleNotFoundError as error:
            raise VoiceprintError(
                f"{self._cluster.address}: a worker lacks {error.name}; start it with the "
                "toolkit's folder in PYTHONPATH and its packages installed"
            ) from error
        if done.failure:
            raise VoiceprintError(f"{self._cluster.address}: {done.failure}")
        yield from done.results


def _make_call() -> Callable[[bytes], bytes]:
    """Returns the function that workers run.

    It travels by its code and not by its name, as functions inside others do, and takes and gives
    bytes: schedulers need no toolkit, and a worker without one says so, where it would break down
    on reading the task.
    """

    def call(work: bytes) -> bytes:
        import pickle

        run_chunk, *arguments = pickle.loads(work)
        return pickle.dumps(run_chunk(*arguments))

    return call

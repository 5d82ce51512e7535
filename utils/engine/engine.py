"""One interface for work on one machine and on many: small tasks that may be done twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from utils.engine.order import Done, Order, run_chunk
from utils.errors import VoiceprintError
from utils.workers import CHUNKS_AHEAD, cut, map_in_processes

Job = TypeVar("Job")
Result = TypeVar("Result")


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
        close: Lets go of it.
    """

    address: str
    executor: Executor
    num_workers: Callable[[], int]
    crashes: tuple[type[BaseException], ...]
    losses: tuple[type[BaseException], ...]
    close: Callable[[], Any]


class ClusterEngine:
    """The workers of a cluster, which have the toolkit and share the driver's files."""

    def __init__(self, cluster: Cluster) -> None:
        """Takes a cluster; `close` lets it go."""
        self._cluster = cluster
        self._order = Order.of_this_process()

    def map(
        self,
        function: Callable[[Job], Result],
        jobs: Iterable[Job],
        on_crash: Callable[[Job], Result],
    ) -> Iterator[Result]:
        """Implements `Engine.map`."""
        pending: deque[tuple[Sequence[Job], Future[Done[Result]]]] = deque()
        try:
            for chunk in cut(jobs):
                pending.append((chunk, self._submit(function, chunk)))
                if len(pending) > CHUNKS_AHEAD * max(1, self._cluster.num_workers()):
                    yield from self._results(function, on_crash, *pending.popleft())
            while pending:
                yield from self._results(function, on_crash, *pending.popleft())
        except self._cluster.losses as error:
            raise VoiceprintError(
                f"{self._cluster.address}: the cluster is gone ({type(error).__name__}); start it "
                "again and repeat the command, which goes on where it was"
            ) from error
        finally:
            for _, future in pending:
                future.cancel()

    def close(self) -> None:
        """Lets the workers go."""
        self._cluster.close()

    def _submit(
        self, function: Callable[[Job], Result], chunk: Sequence[Job]
    ) -> Future[Done[Result]]:
        return self._cluster.executor.submit(run_chunk, self._order, function, chunk)

    def _results(
        self,
        function: Callable[[Job], Result],
        on_crash: Callable[[Job], Result],
        chunk: Sequence[Job],
        future: Future[Done[Result]],
    ) -> Iterator[Result]:
        """Yields the results of a chunk; of one that kills workers, job by job."""
        try:
            done = future.result()
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

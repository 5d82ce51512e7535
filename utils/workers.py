"""Work spread over processes, in order, that survives a crash inside a worker.

Processes are started by `spawn`, so that it works alike on Linux, macOS and Windows; the function
and its jobs must therefore be importable and picklable, and a script needs its
`if __name__ == "__main__"` guard.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

CHUNK_JOBS = 16
"""Jobs sent to a worker at once: a job of 1 ms is then worth its way through the pipe."""

CHUNKS_AHEAD = 4
"""Chunks that wait for each worker: enough to keep it busy, few enough to bound the memory."""


def map_in_processes(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    num_workers: int,
    on_crash: Callable[[Job], Result],
) -> Iterator[Result]:
    """Yields `function(job)` for every job, in the order of the jobs.

    If a worker process dies (a damaged file can crash a decoder), the jobs that were under way
    are done again one by one, so that only the job that is to blame gets `on_crash`.

    Args:
        function: What to do; an exception in it ends the whole map.
        jobs: Read lazily, a few chunks ahead.
        num_workers: Number of processes; with 1 everything runs in this process.
        on_crash: The result for a job whose process died; called in this process.

    Yields:
        One result a job.
    """
    if num_workers <= 1:
        yield from map(function, jobs)
        return
    chunks = cut(jobs)
    while True:
        pending: deque[tuple[list[Job], Future[list[Result]] | None]] = deque()
        pool = _start_pool(num_workers)
        try:
            yield from _run_chunks(pool, function, chunks, pending, num_workers * CHUNKS_AHEAD)
            return
        except BrokenProcessPool:
            pass
        finally:
            pool.shutdown(cancel_futures=True)
        yield from _run_alone(function, [job for chunk, _ in pending for job in chunk], on_crash)


def map_ahead(
    pool: Executor, function: Callable[[Job], Result], jobs: Iterable[Job], num_ahead: int
) -> Iterator[Result]:
    """Yields `function(job)` in order with only a few results waiting at a time.

    Args:
        pool: Threads or processes that do the jobs.
        function: What to do.
        jobs: Read lazily.
        num_ahead: Jobs under way or waiting to be taken.
    """
    pending: deque[Future[Result]] = deque()
    for job in jobs:
        pending.append(pool.submit(function, job))
        if len(pending) > num_ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def cut(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Yields jobs in chunks that are sent to a worker at once."""
    remaining = iter(jobs)
    while chunk := list(islice(remaining, CHUNK_JOBS)):
        yield chunk


def _run_chunks(
    pool: ProcessPoolExecutor,
    function: Callable[[Job], Result],
    chunks: Iterator[list[Job]],
    pending: deque[tuple[list[Job], Future[list[Result]] | None]],
    num_ahead: int,
) -> Iterator[Result]:
    """Runs chunks of jobs; a chunk leaves `pending` only when its results have arrived."""
    for chunk in chunks:
        pending.append((chunk, None))  # stays known even if the pool is already broken
        pending[-1] = (chunk, pool.submit(_run_chunk, function, chunk))
        if len(pending) >= num_ahead:
            yield from _oldest_result(pending)
    while pending:
        yield from _oldest_result(pending)


def _oldest_result(
    pending: deque[tuple[list[Job], Future[list[Result]] | None]],
) -> list[Result]:
    future = pending[0][1]
    results = future.result() if future is not None else []
    pending.popleft()
    return results


def _run_alone(
    function: Callable[[Job], Result], jobs: list[Job], on_crash: Callable[[Job], Result]
) -> Iterator[Result]:
    """Runs jobs one by one in one worker at a time, a fresh one after each crash."""
    pool = _start_pool(1)
    try:
        for job in jobs:
            try:
                yield from pool.submit(_run_chunk, function, [job]).result()
            except BrokenProcessPool:
                yield on_crash(job)
                pool.shutdown()
                pool = _start_pool(1)
    finally:
        pool.shutdown(cancel_futures=True)


def _run_chunk(function: Callable[[Job], Result], chunk: list[Job]) -> list[Result]:
    return [function(job) for job in chunk]


def _start_pool(num_workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_workers, mp_context=context, initializer=prepare_worker)


def prepare_worker() -> None:
    """Leaves Ctrl-C and messages to the parent, and ends with it even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Decoders write their warnings straight to file 2, into the midst of the progress bar.
    # Exceptions are not lost: they travel to the parent.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

"""Work in processes: in order, lazily, and not stopped by a job that kills its process."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from utils.workers import map_ahead, map_in_processes


def square(number: int) -> int:
    return number * number


def process_of(number: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def square_or_die(number: int) -> int:
    if number in (37, 38):
        os._exit(11)
    return number * number


def square_or_raise(number: int) -> int:
    if number == 50:
        raise ValueError("fifty")
    return number * number


def crash_mark(number: int) -> int:
    return -number


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_are_in_the_order_of_the_jobs(num_workers: int) -> None:
    results = map_in_processes(square, iter(range(200)), num_workers, crash_mark)
    assert list(results) == [number * number for number in range(200)]


def test_no_jobs() -> None:
    assert list(map_in_processes(square, [], 2, crash_mark)) == []


@pytest.mark.slow
def test_several_processes_take_part() -> None:
    processes = set(map_in_processes(process_of, range(128), 2, crash_mark))
    assert len(processes) == 2
    assert os.getpid() not in processes


@pytest.mark.slow
def test_only_the_jobs_that_kill_their_process_are_marked() -> None:
    results = list(map_in_processes(square_or_die, range(400), 2, crash_mark))
    expected = [-n if n in (37, 38) else n * n for n in range(400)]
    assert results == expected


@pytest.mark.slow
def test_exception_in_a_job_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="fifty"):
        list(map_in_processes(square_or_raise, range(400), 2, crash_mark))


@pytest.mark.slow
def test_jobs_are_read_only_a_little_ahead() -> None:
    taken = []

    def jobs() -> Iterator[int]:
        for number in range(100_000):
            taken.append(number)
            yield number

    results = map_in_processes(square, jobs(), 2, crash_mark)
    assert next(results) == 0
    assert len(taken) < 1000
    results.close()  # type: ignore[attr-defined]


def test_map_ahead_keeps_the_order_and_reads_lazily() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(3) as pool:
        results = map_ahead(pool, lambda number: number * 2, jobs(), 4)
        assert next(results) == 0
        assert len(taken) == 5
        assert list(results) == [2 * number for number in range(1, 20)]

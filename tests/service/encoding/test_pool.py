"""The encoding pool: so many at a time, so many waiting, and nothing accepted is dropped."""

import threading

import pytest

from service.answers.problems import Problem
from service.encoding.pool import EncodingPool


def test_jobs_run_side_by_side_and_the_rest_is_refused() -> None:
    pool = EncodingPool(num_threads=2, queue_size=3)
    gate = threading.Event()
    both = threading.Barrier(3)

    def job() -> int:
        both.wait(10)
        gate.wait(10)
        return 1

    futures = pool.submit([job, job])
    both.wait(10)
    futures += pool.submit([gate.is_set] * 3)
    assert pool.num_pending == 5 and pool.is_pressed
    with pytest.raises(Problem) as caught:
        pool.submit([job])
    assert caught.value.status_code == 503
    assert int((caught.value.headers or {})["Retry-After"]) >= 1
    gate.set()
    assert [future.result(10) for future in futures] == [1, 1, True, True, True]
    pool.close()
    assert pool.num_pending == 0 and not pool.is_pressed


def test_all_jobs_of_a_request_are_accepted_or_none() -> None:
    pool = EncodingPool(num_threads=1, queue_size=2)
    gate = threading.Event()
    first = pool.submit([gate.wait])
    with pytest.raises(Problem):
        pool.submit([gate.is_set] * 3)
    second = pool.submit([gate.is_set] * 2)
    gate.set()
    assert [future.result(10) for future in first + second] == [True] * 3
    # A request with more recordings than the queue holds gets its turn when there is no other.
    pool.close()
    assert len(pool.submit([gate.is_set] * 9)) == 9
    pool.close()


def test_close_finishes_what_waits() -> None:
    pool = EncodingPool(num_threads=1, queue_size=50)
    done: list[int] = []
    pool.submit([lambda i=i: done.append(i) for i in range(50)])
    pool.close()
    assert done == list(range(50))


def test_errors_reach_the_caller_and_are_counted() -> None:
    times: list[float] = []
    pool = EncodingPool(num_threads=1, queue_size=1, on_job=times.append)
    (future,) = pool.submit([lambda: 1 // 0])
    with pytest.raises(ZeroDivisionError):
        future.result(10)
    pool.close()
    assert len(times) == 1
    assert pool.num_pending == 0


def test_a_cancelled_job_leaves_its_place() -> None:
    pool = EncodingPool(num_threads=1, queue_size=5)
    gate = threading.Event()
    running, waiting = pool.submit([gate.wait, gate.wait])
    assert waiting.cancel()
    assert pool.num_pending == 1
    gate.set()
    assert running.result(10)
    pool.close()
    assert pool.num_pending == 0

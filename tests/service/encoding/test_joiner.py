"""What comes at the same time is handled together, and nothing that was taken is left lying."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from service.encoding.joiner import MAX_JOINED, MAX_WAIT_S, Joiner
from service.encoding.pool import EncodingPool


def at_once(run: Callable[[], None]) -> None:
    run()


def never(seconds: float, run: Callable[[], None]) -> None:
    """Stands for a clock whose time has not come."""


def test_items_are_joined_while_more_is_to_come() -> None:
    runs: list[list[int]] = []
    is_pressed = [True]

    def handle(items: list[int]) -> list[int]:
        runs.append(items)
        return [10 * item for item in items]

    joiner = Joiner(handle, at_once, never, lambda: is_pressed[0])
    futures: list[Future[int]] = [Future() for _ in range(MAX_JOINED + 2)]
    for item, future in enumerate(futures[:MAX_JOINED]):
        assert runs == []
        joiner.add(item, future)
        joiner.release()
    assert runs == [list(range(MAX_JOINED))]
    joiner.add(8, futures[-2])
    joiner.release()
    assert not futures[-2].done()
    is_pressed[0] = False
    joiner.add(9, futures[-1])
    joiner.release()
    joiner.release()
    assert runs[1:] == [[8, 9]]
    assert [future.result(0) for future in futures] == [0, 10, 20, 30, 80, 90]


def test_no_item_is_held_back_for_long() -> None:
    later: list[tuple[float, Callable[[], None]]] = []
    joiner: Joiner[int, int] = Joiner(
        lambda items: items, at_once, lambda *call: later.append(call), lambda: True
    )
    futures: list[Future[int]] = [Future() for _ in range(MAX_JOINED + 2)]
    for item in range(2):
        joiner.add(item, futures[item])
        joiner.release()
    assert [seconds for seconds, _ in later] == [MAX_WAIT_S] and not futures[1].done()
    later[0][1]()
    assert futures[0].result(0) == 0 and futures[1].result(0) == 1
    joiner.add(2, futures[2])
    joiner.release()
    later[0][1]()
    # The time of the first two tells nothing of the third, which has its own.
    assert not futures[2].done() and len(later) == 2
    for item in range(3, MAX_JOINED + 2):
        joiner.add(item, futures[item])
        joiner.release()
    assert futures[-1].done() and len(later) == 2
    later[1][1]()


def test_a_failure_is_told_to_all() -> None:
    def refuse(run: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    def ended(seconds: float, run: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    def divide(items: list[int]) -> list[int]:
        return [12 // item for item in items]

    for start, later, is_pressed, kind in [
        (at_once, never, False, ZeroDivisionError),
        (at_once, ended, True, ZeroDivisionError),
        (refuse, never, False, RuntimeError),
    ]:
        joiner = Joiner(divide, start, later, lambda is_pressed=is_pressed: is_pressed)
        futures: list[Future[int]] = [Future() for _ in range(3)]
        for item, future in zip([3, 0, 4], futures, strict=True):
            joiner.add(item, future)
        joiner.release()
        for future in futures:
            with pytest.raises(kind):
                future.result(0)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_nothing_is_left_whatever_happens_in_the_pool(num_threads: int) -> None:
    pool = EncodingPool(num_threads, queue_size=1_000)
    sizes: list[int] = []
    lock = threading.Lock()

    def handle(items: list[int]) -> list[int]:
        with lock:
            sizes.append(len(items))
        return items

    with ThreadPoolExecutor(2) as executor:
        joiner = Joiner(handle, executor.submit, never, lambda: pool.is_pressed)
        pool.after_job = joiner.release
        futures: list[Future[int]] = [Future() for _ in range(300)]
        others = []
        for item, future in enumerate(futures):
            # Jobs of other kinds run between, fail, and are cancelled before they begin.
            pool.submit([lambda item=item, future=future: joiner.add(item, future)])
            others += pool.submit([lambda: None, lambda: 1 // 0, lambda: None])
            others[-1].cancel()
        assert [future.result(30) for future in futures] == list(range(300))
        pool.close()
    # Threads may add at the same moment.
    assert sum(sizes) == 300 and 1 < max(sizes) < MAX_JOINED + num_threads

"""What comes at the same time is handled together, and nothing that was taken is left lying."""

import asyncio
import time

import pytest

from service.encoding.joiner import MAX_JOINED, MAX_WAIT_S, Joiner


class Handler:
    """Multiplies, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await asyncio.sleep(0)
        return [120 // item for item in items]


async def settle() -> None:
    """Lets what was begun run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_items_are_joined_while_more_is_to_come() -> None:
    handler = Handler()
    is_pressed = True
    joiner = Joiner(handler, lambda: is_pressed)

    async def run() -> list[int]:
        nonlocal is_pressed
        first = [asyncio.create_task(joiner.handle(item)) for item in range(1, MAX_JOINED + 1)]
        await settle()
        assert handler.batches == [[1, 2, 3, 4]]
        held = asyncio.create_task(joiner.handle(5))
        await settle()
        assert not held.done() and len(handler.batches) == 1
        is_pressed = False
        last = asyncio.create_task(joiner.handle(6))
        return await asyncio.gather(*first, held, last)

    assert asyncio.run(run()) == [120, 60, 40, 30, 24, 20]
    assert handler.batches[1:] == [[5, 6]]


def test_no_item_is_held_back_for_long() -> None:
    handler = Handler()
    joiner = Joiner(handler, lambda: True)

    async def run() -> None:
        for batch in ([1, 2], [3]):
            # The time of the first two tells nothing of the third, which has its own.
            start = time.monotonic()
            await asyncio.gather(*map(joiner.handle, batch))
            assert time.monotonic() - start > 0.9 * MAX_WAIT_S
        await asyncio.wait_for(asyncio.gather(*map(joiner.handle, range(1, 5))), MAX_WAIT_S)

    asyncio.run(run())
    assert handler.batches == [[1, 2], [3], [1, 2, 3, 4]]


def test_a_failure_is_told_to_all_and_harms_no_later_batch() -> None:
    joiner = Joiner(Handler(), lambda: True)

    async def run() -> list[object]:
        tasks = [asyncio.create_task(joiner.handle(item)) for item in (3, 0, 4, 5)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [*results, await joiner.handle(6)]

    results = asyncio.run(run())
    assert [type(each) for each in results] == 4 * [ZeroDivisionError] + [int]


@pytest.mark.parametrize("num_given_up", [1, 4])
def test_who_gives_up_does_not_disturb_the_others(num_given_up: int) -> None:
    handler = Handler()
    joiner = Joiner(handler, lambda: True)

    async def run() -> list[object]:
        tasks = [asyncio.create_task(joiner.handle(item)) for item in range(1, 5)]
        await settle()
        for task in tasks[:num_given_up]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(run())
    assert results[num_given_up:] == [120, 60, 40, 30][num_given_up:]
    assert handler.batches == [[1, 2, 3, 4]]

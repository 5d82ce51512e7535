"""The clips of shards, read in sequence ahead of time and handed out in the order of the draw."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TypeVar

from utils.corpus.shards import ShardList, read_shard
from utils.crops.draws import Indices, ShardDraw, Share
from utils.errors import DataListError

Item = TypeVar("Item")

Clip = tuple[int, bytes | str]
"""The number of an utterance in the list, with its file's content or why there is none."""

WAIT_S = 0.2
"""Seconds after which the reading thread looks whether it is still wanted."""


class ShardStream:
    """Reads shards as one host's training wants them."""

    def __init__(self, shards: ShardList, buffer: int, seed: int, share: Share) -> None:
        """Prepares the stream.

        Args:
            shards: The shards of the training list.
            buffer: Clips in the shuffle buffer.
            seed: Of the training.
            share: The host.

        Raises:
            DataListError: If there are fewer shards than hosts.
        """
        if len(shards.names) < share.num_hosts:
            raise DataListError(
                f"{shards.place}: {len(shards.names)} shards for {share.num_hosts} hosts, expected "
                "at least one for each; write more with create_data.py --shards"
            )
        self._shards = shards
        self._draw = ShardDraw(shards.sizes, buffer, seed, share)

    def clips(self, epoch: int, first: int, count: int, ahead: int) -> Generator[Clip, None, None]:
        """Yields the clips at the host's places of an epoch.

        A shard that is missing or cut short gives the reason in place of its clips; the others go
        on.

        Args:
            epoch: From 1.
            first: The first place, from 0.
            count: How many places.
            ahead: Clips that are read ahead.
        """
        return _read_ahead(self._clips(epoch, first, count), ahead)

    def _clips(self, epoch: int, first: int, count: int) -> Iterator[Clip]:
        number = 0
        while count > 0:
            shards, leaving = self._draw.one_pass(epoch, number)
            number += 1
            wanted = leaving[first : first + count]
            first = max(0, first - len(leaving))
            count -= len(wanted)
            yield from self._in_order(shards.tolist(), wanted)

    def _in_order(self, shards: Sequence[int], wanted: Indices) -> Iterator[Clip]:
        """Yields the wanted clips of some shards; shards without any are not opened."""
        arriving = self._arriving(shards, set(wanted.tolist()))
        held: dict[int, bytes | str] = {}
        for clip in wanted.tolist():
            while clip not in held:
                number, content = next(arriving)
                held[number] = content
            yield clip, held.pop(clip)

    def _arriving(self, shards: Sequence[int], wanted: set[int]) -> Iterator[Clip]:
        """Yields the wanted clips as they lie in the shards."""
        for shard in shards:
            numbers = self._draw.clips_of(shard).tolist()
            if wanted.isdisjoint(numbers):
                continue
            place, name = self._shards.place, self._shards.names[shard]
            left = iter(numbers)
            contents = read_shard(place, name, len(numbers))
            try:
                for content in contents:
                    number = next(left)
                    if number in wanted:
                        yield number, content
            except DataListError as error:
                yield from ((number, str(error)) for number in left if number in wanted)


def _read_ahead(items: Iterator[Item], size: int) -> Generator[Item, None, None]:
    """Yields the items of an iterator that a thread runs ahead of."""
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(max(1, size))
    is_over = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not is_over.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((item, error), timeout=WAIT_S)
                return

    def run(iterable: Iterable[Item]) -> None:
        try:
            for item in iterable:
                put(item, None)
                if is_over.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=run, args=(items,), daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        is_over.set()
        thread.join()

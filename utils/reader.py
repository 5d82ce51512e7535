"""Feeds training: makes batches ahead of time in worker processes and hands them out in order.

Workers decode and augment; the crops reach the trainer through shared memory as 16-bit samples, and
the spectrogram is computed on the training device. Shards are read in sequence by the trainer's own
process, which hands the workers what their batch needs. What a batch holds never depends on how
many workers there are (`utils.crops.batches`).
"""

import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import islice
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from utils.corpus.lists import Utterance
from utils.corpus.shards import ShardList
from utils.crops.batches import Batch, BatchMaker, ReaderSettings
from utils.crops.draws import Share
from utils.crops.shard_stream import Clip, ShardStream
from utils.errors import VoiceprintError

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps shared memory; a container often has only 64 MB of it."""


class TrainingReader:
    """Makes batches ahead of time in worker processes and hands them out in order."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        settings: ReaderSettings,
        num_workers: int = 1,
        share: Share | None = None,
        shards: ShardList | None = None,
    ) -> None:
        """Starts the workers.

        Args:
            utterances: The training list.
            settings: What the batches are made of.
            num_workers: Worker processes; 0 makes the batches in the calling process.
            share: The host among several.
            shards: Where the list's recordings are read from, in sequence; None for their files.

        Raises:
            DataListError: As `BatchMaker` and `ShardStream`.
        """
        share = share or Share()
        self.maker = BatchMaker(utterances, settings, share)
        self.settings = settings
        self._stream: ShardStream | None = None
        if shards is not None:
            self._stream = ShardStream(shards, settings.shuffle_buffer, settings.seed, share)
        self._pool: ProcessPoolExecutor | None = None
        self._blocks: Sequence[SharedMemory | None] = []
        if num_workers > 0:
            size = settings.batch_size * settings.crop_samples * 2
            num_blocks = 2 * num_workers + 2
            self._blocks = [None] * num_blocks
            # Writing beyond what there is would kill the worker; pipes are slower, but work.
            if has_room(num_blocks * size):
                self._blocks = [SharedMemory(create=True, size=size) for _ in range(num_blocks)]
            self._pool = ProcessPoolExecutor(
                num_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(list(utterances), settings, share),
            )

    def epoch(self, epoch: int, num_batches: int, first: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch in order.

        Args:
            epoch: Number of the epoch, from 1.
            num_batches: How many batches it has.
            first: Number of the batch to begin with, from 0.

        Raises:
            DataListError: As `BatchMaker.batch`.
            VoiceprintError: If a worker process was killed.
        """
        with closing(self._clips(epoch, num_batches, first)) as clips:
            yield from self._batches(epoch, num_batches, first, clips)

    def _clips(self, epoch: int, num_batches: int, first: int) -> Generator[list[Clip], None, None]:
        """Yields what each batch is made of where that is read here: the clips of shards."""
        size = self.settings.batch_size
        if self._stream is None:
            while True:
                yield []
        count = (num_batches - first) * size
        with closing(self._stream.clips(epoch, first * size, count, 4 * size)) as clips:
            while batch := list(islice(clips, size)):
                yield batch

    def _batches(
        self, epoch: int, num_batches: int, first: int, clips: Iterator[list[Clip]]
    ) -> Iterator[Batch]:
        """Yields the batches of an epoch, made here or by the workers."""
        if self._pool is None:
            for number in range(first, num_batches):
                yield self.maker.batch(epoch, number, next(clips))
            return
        pending: deque[tuple[Future[Batch], SharedMemory | None]] = deque()
        free = deque(self._blocks)
        shape = (self.settings.batch_size, self.settings.crop_samples)
        submitted = first
        try:
            for _ in range(first, num_batches):
                while free and submitted < num_batches:
                    block = free.popleft()
                    name = block.name if block is not None else None
                    pending.append(
                        (self._pool.submit(_work, epoch, submitted, name, next(clips)), block)
                    )
                    submitted += 1
                future, block = pending.popleft()
                batch = future.result()
                if block is not None:
                    batch.waveforms = np.ndarray(shape, np.int16, buffer=block.buf).copy()
                free.append(block)
                yield batch
        except BrokenProcessPool as error:
            raise VoiceprintError(
                "a reader process was killed, most likely for want of memory; resume from the "
                "last checkpoint with fewer --num_workers"
            ) from error
        finally:
            for future, _ in pending:
                future.cancel()
            for future, _ in pending:
                if not future.cancelled():
                    future.exception()  # Its block must not be written by two at a time.

    def close(self) -> None:
        """Stops the workers and frees the shared memory."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        for block in self._blocks:
            if block is not None:
                block.close()
                block.unlink()
        self._blocks = []

    def __enter__(self) -> "TrainingReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def has_room(num_bytes: int) -> bool:
    """Tells whether shared memory of this size can be filled; where it is not known, yes."""
    return not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free > num_bytes


_maker: BatchMaker | None = None
"""The worker process's own batch maker."""


def _start_worker(utterances: Sequence[Utterance], settings: ReaderSettings, share: Share) -> None:
    """Prepares a worker process."""
    global _maker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle.
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _maker = BatchMaker(utterances, settings, share)


def _exit_with_parent() -> None:
    """Ends the worker when the trainer is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(epoch: int, number: int, block_name: str | None, clips: Sequence[Clip]) -> Batch:
    """Makes a batch in a worker; its waveforms go into the shared block, if any, the rest back."""
    assert _maker is not None
    batch = _maker.batch(epoch, number, clips)
    if block_name is None:
        return batch
    block = SharedMemory(name=block_name)
    try:
        np.ndarray(batch.waveforms.shape, np.int16, buffer=block.buf)[:] = batch.waveforms
    finally:
        block.close()
    batch.waveforms = np.empty((0, 0), np.int16)
    return batch

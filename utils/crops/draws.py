"""Which utterances a batch is made of: of a list, or of shards that are read in sequence.

What is drawn depends only on the seed, the epoch and the place in it, so that a resumed training
goes on at the exact sample.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.corpus.lists import Utterance

VIEW_MARGIN_FRAMES = 64
"""Frames by which a waveform is longer than each of several views."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of several hosts makes: rows of its own, in a row."""

    host_id: int = 0
    num_hosts: int = 1

    def places(self, number: int, size: int) -> Indices:
        """Returns the places in the epoch of the host's rows of a batch, shape `(size,)`.

        Args:
            number: Of the batch, from 0.
            size: Rows of each host.
        """
        first = (number * self.num_hosts + self.host_id) * size
        return np.arange(first, first + size)


class ListDraw:
    """Draws from a plain list: every utterance once before any repeats, or by weights."""

    def __init__(self, weights: npt.NDArray[np.float64], is_balanced: bool, seed: int) -> None:
        """Prepares the draw.

        Args:
            weights: From `draw_weights`, shape `(num_utterances,)`.
            is_balanced: Whether utterances are drawn by them, and may repeat.
            seed: Of the training.
        """
        self._bounds = np.cumsum(weights) if is_balanced else None
        self._num, self._seed = len(weights), seed
        self._order: Indices = np.empty(0, np.int64)
        self._order_epoch = -1

    def draw(self, epoch: int, places: Indices) -> Indices:
        """Returns the utterances at some places of an epoch."""
        if self._bounds is not None:
            drawn = [np.random.default_rng((self._seed, epoch, 1, int(p))).random() for p in places]
            found = np.searchsorted(self._bounds, drawn, side="right")
            return np.minimum(found, self._num - 1).astype(np.int64)
        # One long order, shuffled for each epoch.
        if self._order_epoch != epoch:
            order_rng = np.random.default_rng((self._seed, epoch))
            self._order = order_rng.permutation(self._num)
            self._order_epoch = epoch
        return self._order[places % self._num]


class ShardDraw:
    """The order in which a host reads shards, and hands out what it read.

    Shards are shuffled and dealt out to the hosts; what is read goes through a buffer, and leaves
    it at random. Both are known before anything is read.
    """

    def __init__(self, sizes: Sequence[int], buffer: int, seed: int, share: Share) -> None:
        """Prepares the draw.

        Args:
            sizes: Clips of each shard; clips are numbered through all shards.
            buffer: Clips in the buffer.
            seed: Of the training.
            share: The host.
        """
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._buffer, self._seed, self._share = buffer, seed, share

    def one_pass(self, epoch: int, number: int) -> tuple[Indices, Indices]:
        """Returns the shards of one pass, as they are read, and all their clips as they leave.

        Args:
            epoch: From 1.
            number: Of the pass, from 0: an epoch that has more steps than clips begins another.
        """
        rng = np.random.default_rng((self._seed, epoch, number, 2))
        shards = rng.permutation(len(self._starts) - 1)
        shards = shards[self._share.host_id :: self._share.num_hosts]
        parts = [np.arange(self._starts[s], self._starts[s + 1]) for s in shards]
        arriving = np.concatenate(parts)
        return shards, _shuffled(arriving, self._buffer, rng)

    def clips_of(self, shard: int) -> Indices:
        """Returns the numbers of a shard's clips, in its order."""
        return np.arange(self._starts[shard], self._starts[shard + 1])


def _shuffled(arriving: Indices, buffer: int, rng: np.random.Generator) -> Indices:
    """Returns clips as they leave a buffer: each new one takes the place of a random one."""
    held = arriving[:buffer].tolist()
    slots = rng.integers(0, len(held), max(0, len(arriving) - len(held))).tolist()
    leaving = []
    for clip, slot in zip(arriving[buffer:].tolist(), slots, strict=True):
        leaving.append(held[slot])
        held[slot] = clip
    rng.shuffle(held)
    return np.array(leaving + held, np.int64)


def draw_weights(utterances: Sequence[Utterance], balance: float) -> npt.NDArray[np.float64]:
    """Returns the probability of drawing each utterance, shape `(num_utterances,)`, sum 1.

    A corpus is the folder above the speaker's folder. Its share is its number of utterances to
    the power `balance`; likewise a speaker's share within it. A speaker's utterances are equally
    likely.
    """
    corpora = [str(PurePosixPath(utterance.path).parent.parent) for utterance in utterances]
    speakers = [(corpus, u.label) for corpus, u in zip(corpora, utterances, strict=True)]
    num_corpus, num_speaker = Counter(corpora), Counter(speakers)
    shares: Counter[str] = Counter()
    for (corpus, _), count in num_speaker.items():
        shares[corpus] += count**balance
    weights = np.array(
        [
            num_corpus[speaker[0]] ** balance
            * num_speaker[speaker] ** (balance - 1)
            / shares[speaker[0]]
            for speaker in speakers
        ]
    )
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def draw_views(rng: np.random.Generator, size: int, num_views: int) -> dict[str, npt.NDArray[Any]]:
    """Draws the position, frequency response and background level of each view.

    Half of the views get a random response of up to 8 dB either way; a third get another voice in
    the background, 3 to 20 dB below.

    Args:
        rng: Source of the random choices.
        size: Samples in the batch.
        num_views: Views of a sample; 1 means the whole waveform as it is.

    Returns:
        The arrays that `utils.training.views.cut_views` describes; nothing for a single view.
    """
    if num_views == 1:
        return {}
    shape = (size, num_views)
    is_coloured = rng.random(shape) < 0.5
    is_mixed = rng.random(shape) < 0.33
    gains = rng.uniform(-8.0, 8.0, (*shape, 8)) * is_coloured[..., None]
    return {
        "starts": rng.integers(0, VIEW_MARGIN_FRAMES + 1, shape).astype(np.int32),
        "gains_db": gains.astype(np.float32),
        "mix_db": np.where(is_mixed, rng.uniform(-20.0, -3.0, shape), -200.0).astype(np.float32),
    }

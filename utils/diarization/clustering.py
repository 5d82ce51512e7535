"""Which stretches are of one speaker, and how many speakers there are.

Stretches are joined from the bottom up by the mean of their scores (average linkage), until no two
groups score above a threshold; then each stretch goes to the group whose mean it resembles most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.diarization.stretches import Stretch

SAME_SPEAKER_SCORE = 0.25
"""Mean cosine from which two groups of stretches are one speaker. It lies below the threshold of
whole recordings, since 1.5 s tell less; 0.22 to 0.28 found the same numbers of speakers."""

CLUSTERED_S = 1.0
"""Seconds. Shorter stretches join a group, but don't make one."""

LEAST_SPEAKER_S = 4.0
"""Seconds that a speaker must have, or a twentieth of the speech if that is less: what remains of
laughter, noise and overlaps looks like speakers of a few seconds."""

LEAST_SPEAKER_SHARE = 0.05

CHANGE_COST = 0.05
"""Score that a change of the speaker must gain where two stretches touch."""

NUM_ROUNDS = 3
"""How often groups and their means are computed from each other; two change next to nothing."""

MAX_CLUSTERED = 3000
"""Stretches compared with each other at once, 1 h of speech: memory grows by the square."""


IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SpeakerCount:
    """How many speakers may be found.

    Attributes:
        least: At least so many, if there is speech enough.
        most: At most so many; None for any number.
    """

    least: int = 1
    most: int | None = None


def cluster_stretches(
    stretches: Sequence[Stretch], count: SpeakerCount
) -> tuple[IntArray, FloatArray]:
    """Finds the speakers.

    Args:
        stretches: In order of time, at least one.
        count: How many there may be.

    Returns:
        The number of each stretch's speaker, shape `(num_stretches,)`, from 0 in the order of their
        first stretches; and the embedding of each speaker, shape `(num_speakers, embedding_size)`.
    """
    durations = np.array([stretch.duration_s for stretch in stretches])
    embeddings = np.stack([stretch.embedding for stretch in stretches])
    chosen = np.flatnonzero(durations >= CLUSTERED_S)
    if len(chosen) == 0:
        chosen = np.arange(len(stretches))
    labels = _groups(embeddings[chosen], durations[chosen], count)
    means = _means(embeddings[chosen], durations[chosen], labels)
    for _ in range(NUM_ROUNDS):
        labels = _assign(stretches, embeddings, durations, means)
        means = _means(embeddings, durations, labels)
    # A group may have lost all its stretches; the others are numbered as they first appear.
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return np.argsort(order)[labels], means[order]


def _groups(embeddings: FloatArray, durations: FloatArray, count: SpeakerCount) -> IntArray:
    """Returns a group for each stretch; those of groups that are too small get -1."""
    least_s = min(LEAST_SPEAKER_S, LEAST_SPEAKER_SHARE * float(durations.sum()))
    best = np.zeros(len(embeddings), np.int64)
    for threshold in np.arange(SAME_SPEAKER_SCORE, 1.0, 0.05):
        labels = _merge_blocks(embeddings, float(threshold))
        seconds = np.bincount(labels, durations)
        large = np.flatnonzero(seconds >= least_s)
        if len(large) == 0:
            break
        if threshold == SAME_SPEAKER_SCORE or len(large) > best.max() + 1:
            best = np.where(np.isin(labels, large), np.searchsorted(large, labels), -1)
        if len(large) >= count.least:
            break
    return best if count.most is None else _merge_down(embeddings, best, count.most)


def _merge_blocks(embeddings: FloatArray, threshold: float) -> IntArray:
    """Returns a group for each stretch, however many there are: blocks first, then their groups."""
    blocks = range(0, len(embeddings), MAX_CLUSTERED)
    labels = np.zeros(len(embeddings), np.int64)
    for start in blocks:
        block = slice(start, start + MAX_CLUSTERED)
        labels[block] = _merge(embeddings[block], threshold) + (labels.max() + 1 if start else 0)
    return labels if len(blocks) == 1 else _merge_groups(embeddings, labels, threshold)


def _merge(embeddings: FloatArray, threshold: float) -> IntArray:
    """Joins stretches by average linkage; returns a group from 0 for each."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(embeddings) == 1:
        return np.zeros(1, np.int64)
    scores = embeddings @ embeddings.T
    distances = np.maximum(1 - scores[np.triu_indices(len(scores), 1)], 0)
    tree = linkage(distances, "average")
    return np.asarray(fcluster(tree, 1 - threshold, "distance"), np.int64) - 1


def _merge_groups(
    embeddings: FloatArray, labels: IntArray, threshold: float, most: int = 1
) -> IntArray:
    """Joins the two most alike groups, again and again, down to a score or a number of groups.

    The mean score of all pairs of two groups is the product of the means of their embeddings, so
    that this goes on exactly where `_merge` ended. Stretches of the group -1 stay there.
    """
    numbers = [number for number in np.unique(labels) if number >= 0]
    sizes = [float(np.sum(labels == number)) for number in numbers]
    means = [embeddings[labels == number].mean(axis=0) for number in numbers]
    while len(numbers) > most:
        stacked = np.stack(means)
        scores = stacked @ stacked.T
        scores[np.tril_indices(len(scores))] = -np.inf
        left, right = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[left, right] < threshold:
            break
        labels = np.where(labels == numbers[right], numbers[left], labels)
        size = sizes[left] + sizes[right]
        means[left] = (sizes[left] * means[left] + sizes[right] * means[right]) / size
        sizes[left] = size
        del numbers[right], means[right], sizes[right]
    return np.searchsorted(numbers, labels).astype(np.int64) - (labels < 0)


def _merge_down(embeddings: FloatArray, labels: IntArray, most: int) -> IntArray:
    """Joins groups until there are no more than `most`."""
    return _merge_groups(embeddings, labels, -np.inf, most)


def _means(embeddings: FloatArray, durations: FloatArray, labels: IntArray) -> FloatArray:
    """Returns the unit-length mean of each group, shape `(num_groups, embedding_size)`."""
    numbers = np.unique(labels[labels >= 0])
    weights = (labels == numbers[:, None]) * durations
    means = weights @ embeddings
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(lengths, 1e-9), np.float32)


def _assign(
    stretches: Sequence[Stretch], embeddings: FloatArray, durations: FloatArray, means: FloatArray
) -> IntArray:
    """Returns the most probable speaker of each stretch, with few changes (Viterbi's algorithm)."""
    scores = embeddings @ means.T * np.minimum(durations, 1.0)[:, None]
    num_stretches, num_speakers = scores.shape
    came_from = np.empty((num_stretches, num_speakers), np.int64)
    total = scores[0].copy()
    for number in range(1, num_stretches):
        touches = stretches[number].start - stretches[number - 1].end <= 1
        best = int(total.argmax())
        change = total[best] - CHANGE_COST * touches
        came_from[number] = np.where(total >= change, np.arange(num_speakers), best)
        total = np.maximum(total, change) + scores[number]
    labels = np.empty(num_stretches, np.int64)
    labels[-1] = total.argmax()
    for number in range(num_stretches - 1, 0, -1):
        labels[number - 1] = came_from[number, labels[number]]
    return labels

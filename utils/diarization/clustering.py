"""Which stretches are of one speaker, and how many speakers there are.

Stretches are joined from the bottom up by the mean of their scores (average linkage), until no two
groups score above a threshold; then groups whose mean embeddings are one voice's. The mean of many
stretches is exact where one of them is not: in conversations of unseen speakers, halves of one
speaker's stretches scored 0.78 to 1, those of different speakers up to 0.47, and 0.59 in one pair
over the telephone. In the end each stretch goes to the speaker whom it resembles most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.diarization.stretches import Stretch

STRETCHES_SCORE = 0.35
"""Mean cosine from which two groups of stretches are joined. It lies below the threshold of whole
recordings, since 1.5 s tell less; from 0.3 to 0.45 the same numbers of speakers are found."""

VOICES_SCORE = 0.6
"""Cosine of two groups' mean embeddings from which they are one voice."""

SCORE_STEP = 0.05
"""By how much both are raised, again and again, if there must be more speakers."""

CLUSTERED_S = 1.0
"""Seconds. Shorter stretches join a group, but don't make one."""

LEAST_SPEAKER_S = 4.0
"""Seconds that a speaker must have, or a tenth of the speech if that is less: what remains of
laughter, noise and overlaps looks like speakers of a few seconds."""

LEAST_SPEAKER_SHARE = 0.1

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
    """Returns a group from 0 for each stretch, -1 for those of groups that are too small."""
    best = np.zeros(len(embeddings), np.int64)
    for raised in np.arange(0, 1 - VOICES_SCORE, SCORE_STEP):
        labels = _join_stretches(embeddings, STRETCHES_SCORE + raised)
        labels = _without_small(labels, durations)
        labels = _join_groups(embeddings, durations, labels, VOICES_SCORE + raised, count.most)
        if raised == 0 or labels.max() > best.max():
            best = labels
        if best.max() + 1 >= count.least:
            break
    return best


def _join_stretches(embeddings: FloatArray, threshold: float) -> IntArray:
    """Joins stretches by average linkage, block by block; returns a group from 0 for each."""
    from scipy.cluster.hierarchy import fcluster, linkage

    labels = np.zeros(len(embeddings), np.int64)
    num_groups = 0
    for start in range(0, len(embeddings), MAX_CLUSTERED):
        block = slice(start, start + MAX_CLUSTERED)
        scores = embeddings[block] @ embeddings[block].T
        found = np.ones(len(scores), np.int64)
        if len(scores) > 1:
            distances = np.maximum(1 - scores[np.triu_indices(len(scores), 1)], 0)
            found = fcluster(linkage(distances, "average"), 1 - threshold, "distance")
        labels[block] = found - 1 + num_groups
        num_groups = int(labels.max()) + 1
    return labels


def _without_small(labels: IntArray, durations: FloatArray) -> IntArray:
    """Gives -1 to the stretches of groups with too little speech; the largest group stays."""
    seconds = np.bincount(labels, durations)
    least_s = min(LEAST_SPEAKER_S, LEAST_SPEAKER_SHARE * float(durations.sum()))
    large = np.flatnonzero(seconds >= min(least_s, seconds.max()))
    return np.where(np.isin(labels, large), np.searchsorted(large, labels), -1)


def _join_groups(
    embeddings: FloatArray, durations: FloatArray, labels: IntArray, threshold: float,
    most: int | None,
) -> IntArray:  # fmt: skip
    """Joins the two groups with the most alike means, again and again.

    Args:
        embeddings: Of the stretches, shape `(num_stretches, embedding_size)`.
        durations: Their seconds.
        labels: A group from 0 for each, -1 for none.
        threshold: Down to this score of the means.
        most: And further, until there are so few groups.
    """
    while True:
        means = _means(embeddings, durations, labels)
        scores = means @ means.T
        scores[np.tril_indices(len(scores))] = -np.inf
        left, right = np.unravel_index(int(scores.argmax()), scores.shape)
        is_too_many = most is not None and len(means) > most
        if len(means) == 1 or not (is_too_many or scores[left, right] >= threshold):
            return labels
        labels = np.where(labels == right, left, labels - (labels > right))


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

"""Scores: the cosine of two embeddings, for a list of trials or for all pairs of a data list.

All pairs of N clips are N * (N - 1) / 2 scores, 14.2 million for 5,332 clips. They are never held
at once: blocks of them are counted into fine bins, separately for target trials (same speaker) and
non-target trials (different speakers), and every figure of the evaluation comes from the counts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.arrays import RealArray
from utils.verification.cohort import CohortStatistics, normalised

CountArray = npt.NDArray[np.int64]

BINS_PER_UNIT = 10_000
"""Bins per unit of score. One bin is 0.0001 wide: finer than a threshold is ever told, and coarse
enough for both histograms (320 KB) to stay in the processor's cache while they are filled."""

NUM_BINS = 2 * BINS_PER_UNIT + 1
"""Bins over [-1, 1]. Bin k begins at the score k / 10000 - 1; the last one holds 1 alone."""

ROUNDING = 0.01
"""Bins by which scores are lifted against rounding: 0.000001 of a score, ten times the error."""

BLOCK_ROWS = 1024
"""Rows and columns of a block of scores: 4 MiB as float32, 8 MiB as bin numbers."""

TRIALS_PER_BLOCK = 8192
"""Trials of a list scored at a time: 32 MiB of gathered rows at 512 dimensions."""

SWEEP_STEPS = 100
"""Thresholds that the sweep tries: 0.00, 0.01, ... 0.99."""


@dataclass(frozen=True, eq=False)
class ScoreHistogram:
    """How often each score occurs, for target and for non-target trials.

    Attributes:
        target_counts: Trials of one speaker per bin. Shape `(NUM_BINS,)`.
        nontarget_counts: Trials of two speakers per bin. Shape `(NUM_BINS,)`.
    """

    target_counts: CountArray
    nontarget_counts: CountArray

    @property
    def num_target_trials(self) -> int:
        """Number of trials whose two clips are of one speaker."""
        return int(self.target_counts.sum())

    @property
    def num_nontarget_trials(self) -> int:
        """Number of trials whose two clips are of different speakers."""
        return int(self.nontarget_counts.sum())

    def errors_at(self, threshold: float) -> tuple[int, int]:
        """Returns the errors of answering "same" from `threshold` up.

        Args:
            threshold: A score; it is rounded to the nearest edge of a bin.

        Returns:
            `(num_false_accepts, num_misses)`.
        """
        edge = min(max(round((threshold + 1) * BINS_PER_UNIT), 0), NUM_BINS)
        return int(self.nontarget_counts[edge:].sum()), int(self.target_counts[:edge].sum())

    def accuracy_at(self, threshold: float) -> float:
        """Returns the fraction of all trials answered rightly by "same" from `threshold` up."""
        num_trials = self.num_target_trials + self.num_nontarget_trials
        return 1 - sum(self.errors_at(threshold)) / num_trials


def bin_edges() -> npt.NDArray[np.float64]:
    """Returns the lower edge of each bin and the upper edge of the last, `(NUM_BINS + 1,)`."""
    return (np.arange(NUM_BINS + 1) - BINS_PER_UNIT) / BINS_PER_UNIT


def score_all_pairs(
    embeddings: RealArray,
    labels: npt.ArrayLike,
    include_self: bool = False,
    progress: Callable[[int], object] | None = None,
    statistics: CohortStatistics | None = None,
) -> ScoreHistogram:
    """Scores every pair of clips once.

    Work grows with the square of the number of clips, memory only with the number: besides one
    index and one norm a clip, a few blocks of `BLOCK_ROWS` by `BLOCK_ROWS` scores.

    Args:
        embeddings: One row a clip, of any length but 0. Shape `(num_clips, embedding_size)`.
        labels: Speaker of each clip. Shape `(num_clips,)`.
        include_self: Whether each clip is paired with itself too (a target trial of score 1).
        progress: Called with the number of clips finished since the last call.
        statistics: Of each clip, for AS-norm of the cosines.

    Raises:
        ValueError: If the shapes don't fit, a value is not finite, or a row is zero.
    """
    speakers = np.asarray(labels)
    _check_rows(embeddings)
    if speakers.shape != (len(embeddings),):
        raise ValueError(
            f"labels have shape {speakers.shape}, expected ({len(embeddings)},) as there are "
            f"{len(embeddings)} embeddings"
        )
    norms = _norms(embeddings)
    # Sorted by speaker, target trials lie near the diagonal: most blocks hold none of them.
    order = np.argsort(speakers, kind="stable")
    speakers = speakers[order]
    all_counts = np.zeros(NUM_BINS, np.int64)
    target_counts = np.zeros(NUM_BINS, np.int64)
    for start in range(0, len(order), BLOCK_ROWS):
        rows = order[start : start + BLOCK_ROWS]
        left = _unit_rows(embeddings, norms, rows)
        left_speakers = speakers[start : start + BLOCK_ROWS]
        for column in range(start, len(order), BLOCK_ROWS):
            columns = order[column : column + BLOCK_ROWS]
            right = left if column == start else _unit_rows(embeddings, norms, columns)
            scores = left @ right.T
            if statistics is not None:
                scores = normalised(scores, statistics[rows[:, None]], statistics[columns])
            bins = _bins(scores)
            right_speakers = speakers[column : column + BLOCK_ROWS]
            wanted = None
            if column == start:
                wanted = np.triu(np.ones(bins.shape, np.bool_), 0 if include_self else 1)
            all_counts += _count(bins, wanted)
            if right_speakers[0] == left_speakers[-1] or column == start:
                same = left_speakers[:, None] == right_speakers
                target_counts += _count(bins, same if wanted is None else same & wanted)
        if progress is not None:
            progress(len(rows))
    return ScoreHistogram(target_counts, all_counts - target_counts)


def score_trials(
    embeddings: RealArray,
    rows1: npt.ArrayLike,
    rows2: npt.ArrayLike,
    statistics: CohortStatistics | None = None,
) -> npt.NDArray[np.float32]:
    """Scores a list of trials.

    Args:
        embeddings: One row a clip, of any length but 0. Shape `(num_clips, embedding_size)`.
        rows1: Row of the first clip of each trial. Shape `(num_trials,)`.
        rows2: Row of the second clip of each trial. Shape `(num_trials,)`.
        statistics: Of each clip, for AS-norm of the cosines.

    Returns:
        Scores in [-1, 1]. Shape `(num_trials,)`.

    Raises:
        ValueError: If the shapes don't fit, a value is not finite, or an embedding is zero.
    """
    first, second = np.asarray(rows1, np.intp), np.asarray(rows2, np.intp)
    _check_rows(embeddings)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"rows1 and rows2 have shapes {first.shape} and {second.shape}, expected (num_trials,)"
        )
    norms = _norms(embeddings)
    scores = np.empty(len(first), np.float32)
    for start in range(0, len(first), TRIALS_PER_BLOCK):
        part = slice(start, start + TRIALS_PER_BLOCK)
        left = _unit_rows(embeddings, norms, first[part])
        right = _unit_rows(embeddings, norms, second[part])
        scores[part] = np.einsum("ij,ij->i", left, right)
    if statistics is not None:
        scores = normalised(scores, statistics[first], statistics[second]).astype(np.float32)
    return np.clip(scores, -1, 1)


def histogram_of(scores: npt.ArrayLike, labels: npt.ArrayLike) -> ScoreHistogram:
    """Counts scores that are known one by one, as those of a list of trials.

    Args:
        scores: Cosine scores in [-1, 1]. Shape `(num_trials,)`.
        labels: 1 for a target trial, 0 for a non-target trial. Shape `(num_trials,)`.

    Raises:
        ValueError: If the shapes differ, a score is outside [-1, 1] or NaN, or a label is neither
            0 nor 1.
    """
    values, targets = np.array(scores, np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != targets.shape:
        raise ValueError(
            f"scores have shape {values.shape} and labels {targets.shape}, expected (num_trials,)"
        )
    if not np.all(np.abs(values) <= 1):
        raise ValueError("scores lie outside [-1, 1] or are NaN, expected cosine scores")
    if not np.all((targets == 0) | (targets == 1)):
        raise ValueError("labels hold other values than 0 (non-target) and 1 (target)")
    bins = _bins(values)
    is_target = targets == 1
    return ScoreHistogram(_count(bins, is_target), _count(bins, ~is_target))


def sweep_accuracy(
    histogram: ScoreHistogram, steps: Iterable[int] = range(SWEEP_STEPS)
) -> tuple[float, float]:
    """Tries the thresholds 0.00, 0.01, ... 0.99 and returns the one with the best accuracy.

    Args:
        histogram: The scores of the trials.
        steps: Which hundredths to try, by default all from 0 to 99; a progress bar around them
            shows the sweep.

    Returns:
        `(best_accuracy, best_threshold)`: a fraction in [0, 1] and the lowest threshold with it.
    """
    best_accuracy, best_threshold = 0.0, 0.0
    for step in steps:
        threshold = step / 100
        accuracy = histogram.accuracy_at(threshold)
        if accuracy > best_accuracy:
            best_accuracy, best_threshold = accuracy, threshold
    return best_accuracy, best_threshold


def _check_rows(embeddings: RealArray) -> None:
    """Raises ValueError unless `embeddings` is a matrix of floating-point rows."""
    if embeddings.ndim != 2 or not np.issubdtype(embeddings.dtype, np.floating):
        raise ValueError(
            f"embeddings have shape {embeddings.shape} and type {embeddings.dtype}, "
            "expected (num_clips, embedding_size) of floats"
        )


def _norms(embeddings: RealArray) -> npt.NDArray[np.float32]:
    """Returns the length of each row, `(num_clips,)`; ValueError names the first unusable row."""
    norms = np.empty(len(embeddings), np.float32)
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = embeddings[start : start + BLOCK_ROWS].astype(np.float32)
        norms[start : start + BLOCK_ROWS] = np.sqrt(np.einsum("ij,ij->i", block, block))
    usable = np.isfinite(norms) & (norms > 0)
    if not usable.all():
        row = int(np.argmin(usable))
        raise ValueError(f"embedding {row} has length {norms[row]}, expected finite and above 0")
    return norms


def _unit_rows(
    embeddings: RealArray, norms: npt.NDArray[np.float32], rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Returns the rows scaled to unit length, `(len(rows), embedding_size)`."""
    return np.divide(embeddings[rows], norms[rows, None], dtype=np.float32, casting="same_kind")


def _bins(scores: RealArray) -> npt.NDArray[np.intp]:
    """Returns the bin of each score, in place of the scores: their memory is overwritten.

    float32 products are off by a ten-millionth; `ROUNDING` lifts a score that lies so little under
    an edge (0.78999998 for 0.79, or a clip's 0.9999999 with itself) into the bin where it belongs.
    """
    scores *= BINS_PER_UNIT
    scores += BINS_PER_UNIT + ROUNDING
    return scores.astype(np.intp)


def _count(bins: npt.NDArray[np.intp], wanted: npt.NDArray[np.bool_] | None) -> CountArray:
    """Counts the bins, or those at `wanted`, `(NUM_BINS,)`."""
    chosen = bins.ravel() if wanted is None else bins[wanted]
    return np.bincount(chosen, minlength=NUM_BINS).astype(np.int64, copy=False)

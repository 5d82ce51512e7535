"""How true a model's probabilities are: Cllr, actual detection cost, and the counts of a picture.

Log-odds are counted in bins, as scores are in `utils.verification.scoring`: a list with millions of
pairs takes no more memory than one with a thousand.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.verification.calibration import Calibration
from utils.verification.cohort import CohortStatistics, normalised
from utils.verification.metrics import actual_dcf, cllr, min_cllr

BIN = 0.01
"""Width of a bin of natural log-odds."""

LIMIT = 30.0
"""Log-odds beyond this count as this: a probability of 1e-13 is as good as none."""

BLOCK_ROWS = 256
"""Rows of pairs whose log-odds are computed at a time."""

CountArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LogOddsHistogram:
    """How often each log-odds of "same person" occurs, for target and for non-target trials.

    Attributes:
        target_counts: Trials of one speaker per bin. Shape `(num_bins,)`.
        nontarget_counts: Trials of two speakers per bin. Shape `(num_bins,)`.
    """

    target_counts: CountArray
    nontarget_counts: CountArray

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """The log-odds in the middle of each bin, ascending, `(num_bins,)`."""
        return np.linspace(-LIMIT, LIMIT, len(self.target_counts))

    def figures(self) -> dict[str, float]:
        """Returns cllr, min_cllr and actual_dcf."""
        values = np.concatenate([self.values, self.values])
        counts = np.concatenate([self.target_counts, self.nontarget_counts])
        is_target = np.arange(len(values)) < len(self.values)
        return {
            "cllr": cllr(values, is_target, counts),
            "min_cllr": min_cllr(values, is_target, counts),
            "actual_dcf": actual_dcf(values, is_target, counts=counts),
        }


def count_pairs(
    embeddings: FloatArray,
    labels: npt.ArrayLike,
    calibration: Calibration,
    speech_s: npt.NDArray[np.float64] | None = None,
    statistics: CohortStatistics | None = None,
) -> LogOddsHistogram:
    """Counts the log-odds of every pair of different clips.

    Args:
        embeddings: Shape `(num_clips, embedding_size)`.
        labels: Speaker of each clip. Shape `(num_clips,)`.
        calibration: From scores to log-odds.
        speech_s: Seconds of speech in each clip, if known. Shape `(num_clips,)`.
        statistics: Of each clip, for AS-norm of the cosines.
    """
    speakers = np.asarray(labels)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    total = LogOddsHistogram(_no_counts(), _no_counts())
    for start in range(0, len(unit), BLOCK_ROWS):
        scores = unit[start : start + BLOCK_ROWS] @ unit[start:].T
        rows, columns = np.nonzero(np.triu(np.ones(scores.shape, bool), 1))
        scores = scores[rows, columns]
        first, second = start + rows, start + columns
        if statistics is not None:
            scores = normalised(scores, statistics[first], statistics[second])
        durations = None if speech_s is None else np.stack([speech_s[first], speech_s[second]], 1)
        is_target = speakers[first] == speakers[second]
        part = count_trials(scores, is_target, calibration, durations)
        total = LogOddsHistogram(
            total.target_counts + part.target_counts,
            total.nontarget_counts + part.nontarget_counts,
        )
    return total


def count_trials(
    scores: npt.ArrayLike,
    is_target: npt.ArrayLike,
    calibration: Calibration,
    speech_s: npt.NDArray[np.float64] | None = None,
) -> LogOddsHistogram:
    """Counts the log-odds of trials whose scores are known one by one.

    Args:
        scores: Cosines. Shape `(num_trials,)`.
        is_target: Whether each is of one speaker. Shape `(num_trials,)`.
        calibration: From scores to log-odds.
        speech_s: Seconds of speech of both sides, if known. Shape `(num_trials, 2)`.
    """
    log_odds = calibration.log_odds(np.clip(np.asarray(scores, np.float64), -1, 1), speech_s)
    bins = np.rint((np.clip(log_odds, -LIMIT, LIMIT) + LIMIT) / BIN).astype(np.intp)
    targets = np.asarray(is_target, bool)
    size = len(_no_counts())
    return LogOddsHistogram(
        np.bincount(bins[targets], minlength=size).astype(np.int64),
        np.bincount(bins[~targets], minlength=size).astype(np.int64),
    )


def _no_counts() -> CountArray:
    """Returns a zero for each bin."""
    return np.zeros(round(2 * LIMIT / BIN) + 1, np.int64)

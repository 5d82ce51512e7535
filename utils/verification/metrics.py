"""Metrics of speaker verification: equal error rate, detection costs, Cllr.

A trial is answered "same speaker" if its score is at or above the threshold. A miss is a target
trial answered "different", a false accept a non-target trial answered "same".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import RealArray
from utils.verification.scoring import ScoreHistogram, bin_edges

IntArray = npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]

P_TARGET = 0.01
"""Prior probability of a target trial in the detection cost, as in VoxCeleb's and NIST's plans."""

C_MISS = 1.0
"""Cost of a miss."""

C_FALSE_ACCEPT = 1.0
"""Cost of a false accept."""


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """The errors at every threshold that makes a difference, from "all same" to "all different".

    A threshold can move between two neighbouring scores without any effect; such a gap is one
    point of the curve and its threshold is the middle of the gap, the safest place for new scores.

    Attributes:
        thresholds: Ascending. Shape `(num_points,)`, at least 2.
        misses: Target trials below the threshold, from 0 to all of them. Shape `(num_points,)`.
        false_accepts: Non-target trials from the threshold up, from all to 0. Shape
            `(num_points,)`.
    """

    thresholds: npt.NDArray[np.float64]
    misses: npt.NDArray[np.int64]
    false_accepts: npt.NDArray[np.int64]

    @classmethod
    def from_scores(cls, scores: RealArray, labels: IntArray) -> "ErrorCurve":
        """Builds the exact curve; equal scores share one point.

        Args:
            scores: Trial scores, higher means "same speaker". Shape `(num_trials,)`, unitless.
            labels: 1 for a target trial, 0 for a non-target trial. Shape `(num_trials,)`.

        Raises:
            ValueError: If the shapes differ, a score is not finite, a label is neither 0 nor 1,
                or a class is absent.
        """
        values, targets = np.asarray(scores, np.float64), np.asarray(labels)
        if values.ndim != 1 or values.shape != targets.shape:
            raise ValueError(
                f"scores have shape {values.shape} and labels {targets.shape}, "
                "expected (num_trials,) of both"
            )
        if not np.isfinite(values).all():
            raise ValueError("a score is NaN or infinite, expected finite scores")
        if not np.all((targets == 0) | (targets == 1)):
            raise ValueError("labels hold other values than 0 (non-target) and 1 (target)")
        _check_classes(int((targets == 1).sum()), int((targets == 0).sum()))
        order = np.argsort(values, kind="stable")
        values, is_target = values[order], targets[order] == 1
        # First trial of each run of equal scores.
        starts = np.flatnonzero(np.r_[True, values[1:] > values[:-1]])
        distinct = values[starts]
        middles = distinct[:-1] + (distinct[1:] - distinct[:-1]) / 2
        # Between neighbouring floats there is no middle: take the upper, to leave the lower out.
        middles = np.where(middles > distinct[:-1], middles, distinct[1:])
        targets_below = np.r_[0, np.cumsum(is_target)][np.r_[starts, len(values)]]
        nontargets_below = np.r_[starts, len(values)] - targets_below
        return cls(
            np.r_[distinct[0], middles, np.nextafter(distinct[-1], np.inf)],
            targets_below,
            nontargets_below[-1] - nontargets_below,
        )

    @classmethod
    def from_histogram(cls, histogram: ScoreHistogram) -> "ErrorCurve":
        """Builds the curve from binned scores; it is exact at the edges of the bins.

        Raises:
            ValueError: If a class is absent.
        """
        _check_classes(histogram.num_target_trials, histogram.num_nontarget_trials)
        edges = bin_edges()
        filled = np.flatnonzero(histogram.target_counts + histogram.nontarget_counts)
        targets_below = np.r_[0, np.cumsum(histogram.target_counts[filled])]
        nontargets_below = np.r_[0, np.cumsum(histogram.nontarget_counts[filled])]
        # Empty bins between two filled ones are a gap: from the upper edge of one to the next.
        middles = (edges[filled[:-1] + 1] + edges[filled[1:]]) / 2
        return cls(
            np.r_[edges[filled[0]], middles, edges[filled[-1] + 1]],
            targets_below,
            nontargets_below[-1] - nontargets_below,
        )

    @property
    def miss_rates(self) -> npt.NDArray[np.float64]:
        """Misses as fractions of the target trials, ascending from 0 to 1, `(num_points,)`."""
        rates: npt.NDArray[np.float64] = self.misses / self.misses[-1]
        return rates

    @property
    def false_accept_rates(self) -> npt.NDArray[np.float64]:
        """False accepts as fractions of the non-target trials, from 1 to 0, `(num_points,)`."""
        rates: npt.NDArray[np.float64] = self.false_accepts / self.false_accepts[0]
        return rates

    def equal_error_rate(self) -> tuple[float, float]:
        """Returns the equal error rate and the threshold where it is reached.

        Misses and false accepts are interpolated linearly between thresholds.

        Returns:
            `(eer, threshold)`: a fraction in [0, 1], and a value on the scale of the scores.

        Source: NIST 2016 Speaker Recognition Evaluation Plan, section 3.
        """
        misses, accepts = self.miss_rates, self.false_accept_rates
        excess = accepts - misses  # descends from 1 to -1
        after = int(np.argmax(excess <= 0))
        before = after - 1
        weight = excess[before] / (excess[before] - excess[after])
        eer = misses[before] + weight * (misses[after] - misses[before])
        gap = self.thresholds[after] - self.thresholds[before]
        return float(eer), float(self.thresholds[before] + weight * gap)

    def min_dcf(
        self, p_target: float = P_TARGET, c_miss: float = C_MISS, c_fa: float = C_FALSE_ACCEPT
    ) -> tuple[float, float]:
        """Returns the minimum of the normalised detection cost and where it is reached.

        The cost `c_miss * p_target * miss_rate + c_fa * (1 - p_target) * false_accept_rate` is
        divided by that of the better constant answer, `min(c_miss * p_target, c_fa *
        (1 - p_target))`: 1 means no better than not listening.

        Args:
            p_target: Prior probability of a target trial, between 0 and 1.
            c_miss: Cost of a miss, above 0.
            c_fa: Cost of a false accept, above 0.

        Returns:
            `(min_dcf, threshold)`: a cost in [0, 1], and a value on the scale of the scores.

        Raises:
            ValueError: If a cost or the prior is out of its range.

        Source: NIST 2016 Speaker Recognition Evaluation Plan, section 3, equations 1 and 2.
        """
        if not 0 < p_target < 1:
            raise ValueError(f"p_target is {p_target}, expected between 0 and 1")
        if not (c_miss > 0 and c_fa > 0):
            raise ValueError(f"c_miss is {c_miss} and c_fa {c_fa}, expected above 0")
        miss_weight, accept_weight = c_miss * p_target, c_fa * (1 - p_target)
        costs = miss_weight * self.miss_rates + accept_weight * self.false_accept_rates
        best = int(np.argmin(costs))
        return float(costs[best] / min(miss_weight, accept_weight)), float(self.thresholds[best])

    def threshold_at_false_accept_rate(self, rate: float) -> float:
        """Returns the lowest threshold whose false accept rate is at most `rate`.

        Raises:
            ValueError: If `rate` is not in [0, 1].
        """
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate}, expected a fraction from 0 to 1")
        return float(self.thresholds[int(np.argmax(self.false_accept_rates <= rate))])


def actual_dcf(
    log_odds: RealArray,
    labels: IntArray,
    p_target: float = P_TARGET,
    c_miss: float = C_MISS,
    c_fa: float = C_FALSE_ACCEPT,
    counts: RealArray | None = None,
) -> float:
    """Returns the normalised detection cost of deciding by calibrated log-odds.

    `ErrorCurve.min_dcf` chooses the best threshold afterwards; this one is the threshold that
    log-odds mean: the Bayes threshold `log(c_fa * (1 - p_target) / (c_miss * p_target))`.

    Args:
        log_odds: Natural log-odds of "same speaker" at even odds beforehand (the log-likelihood
            ratio). Shape `(num_trials,)`.
        labels: 1 for a target trial, 0 for a non-target trial. Shape `(num_trials,)`.
        p_target: Prior probability of a target trial, between 0 and 1.
        c_miss: Cost of a miss, above 0.
        c_fa: Cost of a false accept, above 0.
        counts: How often each trial counts; 1 if left out. Shape `(num_trials,)`.

    Raises:
        ValueError: If a class is absent.

    Source: Brummer and du Preez, Application-independent evaluation of speaker detection, 2006.
    """
    values, is_target, weights = _weighted(log_odds, labels, counts)
    miss_weight, accept_weight = c_miss * p_target, c_fa * (1 - p_target)
    accepted = values >= np.log(accept_weight / miss_weight)
    cost = miss_weight * np.average(~accepted[is_target], weights=weights[is_target])
    cost += accept_weight * np.average(accepted[~is_target], weights=weights[~is_target])
    return float(cost / min(miss_weight, accept_weight))


def cllr(log_odds: RealArray, labels: IntArray, counts: RealArray | None = None) -> float:
    """Returns Cllr, the cost of calibrated log-odds in bits: 0 is perfect, 1 says nothing.

    Args:
        log_odds: Natural log-odds of "same speaker" at even odds beforehand. Shape
            `(num_trials,)`.
        labels: 1 for a target trial, 0 for a non-target trial. Shape `(num_trials,)`.
        counts: How often each trial counts; 1 if left out. Shape `(num_trials,)`.

    Raises:
        ValueError: If a class is absent.

    Source: Brummer and du Preez, Application-independent evaluation of speaker detection, 2006.
    """
    values, is_target, weights = _weighted(log_odds, labels, counts)
    misses = np.average(np.logaddexp(0, -values[is_target]), weights=weights[is_target])
    accepts = np.average(np.logaddexp(0, values[~is_target]), weights=weights[~is_target])
    return float((misses + accepts) / (2 * np.log(2)))


def min_cllr(scores: RealArray, labels: IntArray, counts: RealArray | None = None) -> float:
    """Returns the Cllr that the best rising map from scores to log-odds would reach.

    What `cllr` is above it is the fault of the calibration, not of the model. The map is found on
    the very trials: the log-odds of each step of the ROC curve's convex hull (pool adjacent
    violators).

    Args:
        scores: Trial scores or log-odds, higher means "same speaker". Shape `(num_trials,)`.
        labels: 1 for a target trial, 0 for a non-target trial. Shape `(num_trials,)`.
        counts: How often each trial counts; 1 if left out. Shape `(num_trials,)`.

    Raises:
        ValueError: If a class is absent.

    Source: Brummer and du Preez, Application-independent evaluation of speaker detection, 2006.
    """
    is_target = np.asarray(labels) == 1
    weights = np.ones(len(is_target)) if counts is None else np.asarray(counts, np.float64)
    num_target, num_nontarget = weights[is_target].sum(), weights[~is_target].sum()
    _check_classes(int(np.count_nonzero(num_target)), int(np.count_nonzero(num_nontarget)))
    _, run = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    targets = np.bincount(run, weights * is_target) / num_target
    nontargets = np.bincount(run, weights * ~is_target) / num_nontarget
    steps: list[tuple[float, float]] = []
    for step in zip(targets.tolist(), nontargets.tolist(), strict=True):
        # A step that is less a target's than the one below it is pooled with that.
        while steps and step[0] * steps[-1][1] <= steps[-1][0] * step[1]:
            below = steps.pop()
            step = (below[0] + step[0], below[1] + step[1])
        steps.append(step)
    target, nontarget = np.array(steps).T
    # Steps of one class only cost nothing; 0 * log(...) is left out.
    mixed = (target > 0) & (nontarget > 0)
    ratio = target[mixed] / nontarget[mixed]
    cost = target[mixed] @ np.log2(1 + 1 / ratio) + nontarget[mixed] @ np.log2(1 + ratio)
    return float(cost / 2)


def _weighted(
    log_odds: RealArray, labels: IntArray, counts: RealArray | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Returns log-odds, whether each trial is a target, and its count; raises if a class lacks."""
    values, is_target = np.asarray(log_odds, np.float64), np.asarray(labels) == 1
    weights = np.ones(len(values)) if counts is None else np.asarray(counts, np.float64)
    _check_classes(int((weights[is_target] != 0).sum()), int((weights[~is_target] != 0).sum()))
    return values, is_target, weights


def _check_classes(num_target_trials: int, num_nontarget_trials: int) -> None:
    """Raises ValueError unless there are trials of both classes."""
    if not num_target_trials or not num_nontarget_trials:
        raise ValueError(
            f"received {num_target_trials} target and {num_nontarget_trials} non-target trials, "
            "expected some of both"
        )

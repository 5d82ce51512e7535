"""Calibration: the thresholds of a model, and what a score means as a probability.

A model is trained once and used by many; the thresholds that belong to it are found on development
speakers, whom it never heard in training, and are stored in the model file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import RealArray
from utils.messages import translate
from utils.verification.metrics import ErrorCurve, IntArray
from utils.verification.scoring import BINS_PER_UNIT, ScoreHistogram, bin_edges

STRICT_FALSE_ACCEPT_RATE = 0.001
"""False accepts at the strict threshold: at most one stranger in a thousand is let in."""

PRIOR = 0.5
"""Probability of "same person" before listening. Who asks has a reason for either answer."""

SLOPE_PRIOR_SD = 10.0
"""Standard deviation of the normal prior on the slope, per standard deviation of the scores. Wide
enough to move a fit on 1,000 trials by only 2 %, and finite where the classes don't overlap."""

MAX_NEWTON_STEPS = 100
"""Newton's method on this smooth convex loss needs about 10; more means a mistake in the code."""


@dataclass(frozen=True)
class Calibration:
    """What a model's scores mean.

    Attributes:
        threshold: Score where misses and false accepts are equally frequent.
        strict_threshold: Score from which at most 0.1 % of strangers are accepted, never lower
            than `threshold`.
        slope: Log-odds of "same person" per unit of score.
        offset: Log-odds of "same person" at score 0, for even odds before listening.
    """

    threshold: float
    strict_threshold: float
    slope: float
    offset: float

    def probability(self, score: float) -> float:
        """Returns the probability of "same person", a fraction in (0, 1), for a cosine score."""
        log_odds = self.slope * score + self.offset
        return 0.5 * (1 + math.tanh(log_odds / 2))

    def to_dict(self) -> dict[str, Any]:
        """Returns the form in which a model's metadata holds it, ready for JSON."""
        return {
            "threshold": self.threshold,
            "strict_threshold": self.strict_threshold,
            "calibration": {"slope": self.slope, "offset": self.offset},
        }

    @classmethod
    def from_dict(cls, metadata: Mapping[str, Any]) -> "Calibration":
        """Reads what `to_dict` wrote, also out of metadata that holds more.

        Raises:
            ValueError: If an entry is missing or not a finite number.
        """
        logistic = metadata.get("calibration")
        sources: dict[str, Any] = {
            "threshold": metadata,
            "strict_threshold": metadata,
            "slope": logistic,
            "offset": logistic,
        }
        values = {}
        for name, source in sources.items():
            value = source.get(name) if isinstance(source, Mapping) else None
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"calibration entry {name!r} is {value!r}, expected a number")
            if not math.isfinite(value):
                raise ValueError(f"calibration entry {name!r} is {value!r}, expected a finite one")
            values[name] = float(value)
        return cls(**values)


def fit_calibration(histogram: ScoreHistogram, prior: float = PRIOR) -> Calibration:
    """Finds the thresholds and the probability scale on development trials.

    Args:
        histogram: Scores of trials among speakers that the model never heard in training.
        prior: Probability of "same person" that the calibrated probability starts from.

    Returns:
        The calibration.

    Raises:
        ValueError: If a class of trials is absent or `prior` is not between 0 and 1.
    """
    edges = bin_edges()
    middles = (edges[:-1] + edges[1:]) / 2
    return _fit(
        ErrorCurve.from_histogram(histogram),
        middles,
        histogram.target_counts,
        histogram.nontarget_counts,
        prior,
    )


def fit_calibration_to_scores(
    scores: RealArray, labels: IntArray, prior: float = PRIOR
) -> Calibration:
    """Finds the thresholds and the probability scale on trials whose scores are held one by one.

    Args:
        scores: Trial scores, higher means "same speaker". Shape `(num_trials,)`, unitless.
        labels: 1 for a target trial, 0 for a non-target trial. Shape `(num_trials,)`.
        prior: Probability of "same person" that the calibrated probability starts from.

    Returns:
        The calibration.

    Raises:
        ValueError: If the shapes differ, a score is not finite, a label is neither 0 nor 1, a
            class is absent, or `prior` is not between 0 and 1.
    """
    curve = ErrorCurve.from_scores(scores, labels)
    is_target = np.asarray(labels) == 1
    return _fit(curve, np.asarray(scores, np.float64), is_target, ~is_target, prior)


def threshold_at_false_accept_rate(
    scores: RealArray, labels: IntArray, rate: float = STRICT_FALSE_ACCEPT_RATE
) -> float:
    """Returns the lowest threshold whose false accept rate is at most `rate`.

    With fewer than `1 / rate` non-target trials that is just above the highest of them: such a
    list is too short to measure the rate.

    Args:
        scores: Trial scores, higher means "same speaker". Shape `(num_trials,)`, unitless.
        labels: 1 for a target trial, 0 for a non-target trial. Shape `(num_trials,)`.
        rate: Fraction of the non-target trials that may be accepted.

    Raises:
        ValueError: As `equal_error_rate`, or if `rate` is not in [0, 1].
    """
    return ErrorCurve.from_scores(scores, labels).threshold_at_false_accept_rate(rate)


def _fit(
    curve: ErrorCurve,
    scores: npt.NDArray[np.float64],
    target_counts: npt.NDArray[Any],
    nontarget_counts: npt.NDArray[Any],
    prior: float,
) -> Calibration:
    """Fits thresholds by the curve, slope and offset by counted scores; all arrays `(n,)`."""
    if not 0 < prior < 1:
        raise ValueError(f"prior is {prior}, expected between 0 and 1")
    used = (target_counts > 0) | (nontarget_counts > 0)
    slope, offset = _fit_logistic(
        scores[used],
        target_counts[used] * (prior / target_counts.sum()),
        nontarget_counts[used] * ((1 - prior) / nontarget_counts.sum()),
        penalty=1 / (SLOPE_PRIOR_SD**2 * min(target_counts.sum(), nontarget_counts.sum())),
    )
    threshold = curve.equal_error_rate()[1]
    strict_threshold = curve.threshold_at_false_accept_rate(STRICT_FALSE_ACCEPT_RATE)
    return Calibration(
        threshold=threshold,
        # With an EER under 0.1 % the EER point is the stricter of the two.
        strict_threshold=max(strict_threshold, threshold),
        slope=slope,
        offset=offset,
    )


def _fit_logistic(
    scores: npt.NDArray[np.float64],
    target_weights: npt.NDArray[np.float64],
    nontarget_weights: npt.NDArray[np.float64],
    penalty: float,
) -> tuple[float, float]:
    """Returns the `(slope, offset)` that minimise the weighted, regularised cross-entropy.

    Newton's method with halved steps, on standardised scores. The weights are 1 in total, so that
    `penalty` is 1 over the product of the number of trials and the variance of the slope's prior.
    """
    weights = target_weights + nontarget_weights
    mean = float(weights @ scores)
    # Scores that differ by less than a bin say nothing.
    spread = max(float(np.sqrt(weights @ (scores - mean) ** 2)), 1 / BINS_PER_UNIT)
    inputs = np.stack([(scores - mean) / spread, np.ones_like(scores)])
    penalties = np.array([penalty, 0.0])

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        log_odds = parameters @ inputs
        entropy = target_weights @ np.logaddexp(0, -log_odds)
        entropy += nontarget_weights @ np.logaddexp(0, log_odds)
        return float(entropy + penalties @ parameters**2 / 2)

    parameters = np.zeros(2)
    for _ in range(MAX_NEWTON_STEPS):
        probabilities = 0.5 * (1 + np.tanh(parameters @ inputs / 2))
        gradient = inputs @ (weights * probabilities - target_weights) + penalties * parameters
        curvature = (inputs * (weights * probabilities * (1 - probabilities))) @ inputs.T
        # The tiny constant keeps the matrix invertible where all probabilities are 0 or 1.
        step = np.linalg.solve(curvature + np.diag(penalties) + 1e-12 * np.eye(2), gradient)
        size = 1.0
        while loss(parameters - size * step) > loss(parameters) and size > 1e-6:
            size /= 2
        parameters = parameters - size * step
        if float(np.abs(step).max()) < 1e-9:
            break
    slope = float(parameters[0]) / spread
    return slope, float(parameters[1]) - slope * mean


def describe_probability(probability: float) -> str:
    """Writes a probability in percent; no model is so sure that 0 or 100 would be honest."""
    if probability < 0.001:
        return translate("小于0.1%")
    return translate("大于99.9%") if probability > 0.999 else f"{probability:.1%}"

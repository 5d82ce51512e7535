"""Calibration: the thresholds of a model, and what a score means as a probability.

A model is trained once and used by many; the thresholds that belong to it are found on development
speakers, whom it never heard in training, and are stored in the model file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import RealArray
from utils.messages import translate
from utils.verification.metrics import ErrorCurve
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

REFERENCE_SPEECH_S = 3.0
"""Seconds of speech that count where nobody knows how much there was."""

SPEECH_RANGE_S = (1.0, 10.0)
"""Seconds of speech beyond which the probability changes no more: nothing was measured there."""


@dataclass(frozen=True)
class ThresholdRates:
    """What a threshold leads to among the people on whom it was found.

    Attributes:
        false_accept_rate: Mean over the groups of trials, a fraction.
        miss_rate: The same of refused pairs of one person.
        worst_rate: False accepts in the group where they are most frequent, a fraction.
        worst_group: That group.
        num_trials: Pairs of different people, in all groups.
    """

    false_accept_rate: float
    miss_rate: float
    worst_rate: float
    worst_group: str
    num_trials: int

    def __str__(self) -> str:
        """Says it in one line."""
        return (
            f"{self.false_accept_rate:.2%} false accepts, at worst {self.worst_rate:.2%} "
            f"({self.worst_group}), {self.miss_rate:.1%} misses, {self.num_trials:,} pairs of "
            "different people"
        )


@dataclass(frozen=True)
class Calibration:
    """What a model's scores mean.

    Attributes:
        threshold: Score from which two recordings count as one person's.
        strict_threshold: Score from which somebody is let in, never lower than `threshold`.
        slope: Log-odds of "same person" per unit of score.
        offset: Log-odds of "same person" at score 0, for even odds before listening.
        slope_by_speech: How much `slope` grows per unit of `speech_quality`.
        offset_by_speech: How much `offset` grows per unit of it.
        rates: What `threshold` led to where it was found, if that was measured.
        strict_rates: The same of `strict_threshold`.
    """

    threshold: float
    strict_threshold: float
    slope: float
    offset: float
    slope_by_speech: float = 0.0
    offset_by_speech: float = 0.0
    rates: ThresholdRates | None = None
    strict_rates: ThresholdRates | None = None

    def log_odds(
        self, scores: npt.ArrayLike, speech_s: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.float64]:
        """Returns the natural log-odds of "same person", for even odds before listening.

        Args:
            scores: Cosine scores. Shape `(...)`.
            speech_s: Seconds of speech in both recordings, if known. Shape `(..., 2)`.
        """
        values = np.asarray(scores, np.float64)
        if speech_s is None:
            return np.asarray(self.slope * values + self.offset)
        quality = speech_quality(speech_s)
        slope = self.slope + self.slope_by_speech * quality
        return np.asarray(slope * values + self.offset + self.offset_by_speech * quality)

    def probability(
        self, score: float, speech_s: tuple[float | None, float | None] | None = None
    ) -> float:
        """Returns the probability of "same person", a fraction in (0, 1), for a cosine score.

        Args:
            score: The cosine.
            speech_s: Seconds of speech in both recordings. With less of it all scores are lower,
                those of strangers too, so that the same score says more. What is not known counts
                as 3 s.
        """
        known = [REFERENCE_SPEECH_S if s is None else s for s in speech_s or (None, None)]
        return 0.5 * (1 + math.tanh(float(self.log_odds(score, known)) / 2))

    def to_dict(self) -> dict[str, Any]:
        """Returns the form in which a model's metadata holds it, ready for JSON."""
        logistic = {"slope": self.slope, "offset": self.offset}
        if self.slope_by_speech or self.offset_by_speech:
            logistic["slope_by_speech"] = self.slope_by_speech
            logistic["offset_by_speech"] = self.offset_by_speech
        told: dict[str, Any] = {
            "threshold": self.threshold,
            "strict_threshold": self.strict_threshold,
            "calibration": logistic,
        }
        for name in ("rates", "strict_rates"):
            rates = getattr(self, name)
            if rates is not None:
                told[name] = asdict(rates)
        return told

    @classmethod
    def from_dict(cls, metadata: Mapping[str, Any]) -> "Calibration":
        """Reads what `to_dict` wrote, also out of metadata that holds more.

        Raises:
            ValueError: If an entry is missing or not a finite number.
        """
        logistic = metadata.get("calibration")
        logistic = logistic if isinstance(logistic, Mapping) else {}
        found = {name: metadata.get(name) for name in ("threshold", "strict_threshold")}
        found |= {name: logistic.get(name) for name in ("slope", "offset")}
        # Older files know no durations.
        optional = ("slope_by_speech", "offset_by_speech")
        found |= {name: logistic[name] for name in optional if name in logistic}
        values: dict[str, Any] = {}
        for name, value in found.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"calibration entry {name!r} is {value!r}, expected a number")
            if not math.isfinite(value):
                raise ValueError(f"calibration entry {name!r} is {value!r}, expected a finite one")
            values[name] = float(value)
        for name in ("rates", "strict_rates"):
            if metadata.get(name) is not None:
                try:
                    values[name] = ThresholdRates(**metadata[name])
                except TypeError as error:
                    raise ValueError(f"calibration entry {name!r} is damaged: {error}") from error
        return cls(**values)


def speech_quality(speech_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns how much speech a comparison rests on: 0 for 3 s on both sides, -1.1 for 1 s.

    The mean of the natural logarithms of both durations over 3 s, each held between 1 and 10 s.

    Args:
        speech_s: Seconds of speech of both sides. Shape `(..., 2)`.

    Source: Mandasari et al., Quality measure functions for calibration of speaker recognition
        systems in various duration conditions, 2013.
    """
    durations = np.clip(np.asarray(speech_s, np.float64), *SPEECH_RANGE_S)
    return np.asarray(np.log(durations / REFERENCE_SPEECH_S).mean(axis=-1))


def fit_calibration(histogram: ScoreHistogram, prior: float = PRIOR) -> Calibration:
    """Finds the thresholds and the probability scale on one set of trials.

    The threshold is the point of equal error, the strict one lets 0.1 % of the non-target trials
    in. They hold for trials like these only; `utils.verification.thresholds` finds those of a
    model.

    Args:
        histogram: Scores of trials among speakers that the model never heard in training.
        prior: Probability of "same person" that the calibrated probability starts from.

    Raises:
        ValueError: If a class of trials is absent or `prior` is not between 0 and 1.
    """
    if not 0 < prior < 1:
        raise ValueError(f"prior is {prior}, expected between 0 and 1")
    curve = ErrorCurve.from_histogram(histogram)
    targets, nontargets = histogram.target_counts, histogram.nontarget_counts
    edges = bin_edges()
    used = (targets > 0) | (nontargets > 0)
    slope, offset = fit_log_odds(
        [((edges[:-1] + edges[1:]) / 2)[used]],
        targets[used] * (prior / targets.sum()),
        nontargets[used] * ((1 - prior) / nontargets.sum()),
        num_trials=int(min(targets.sum(), nontargets.sum())),
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


def fit_log_odds(
    features: Sequence[RealArray],
    target_weights: npt.NDArray[np.float64],
    nontarget_weights: npt.NDArray[np.float64],
    num_trials: int,
) -> tuple[float, ...]:
    """Fits log-odds that are linear in some features: logistic regression, by Newton's method.

    Args:
        features: What is known of each trial, the score first. Each of shape `(n,)`.
        target_weights: How much each trial counts as one person's. Shape `(n,)`.
        nontarget_weights: How much as two people's; all weights together are 1. Shape `(n,)`.
        num_trials: Trials of the rarer class, against which the prior on the slopes is held.

    Returns:
        A slope for each feature, and the offset.
    """
    weights = target_weights + nontarget_weights
    matrix = np.stack([np.asarray(feature, np.float64) for feature in features])
    means = matrix @ weights
    # Scores that differ by less than a bin say nothing.
    spreads = np.sqrt(((matrix - means[:, None]) ** 2) @ weights)
    spreads = np.maximum(spreads, 1 / BINS_PER_UNIT)
    standard = (matrix - means[:, None]) / spreads[:, None]
    inputs = np.concatenate([standard, np.ones((1, matrix.shape[1]))])
    penalties = np.full(len(inputs), 1 / (SLOPE_PRIOR_SD**2 * num_trials))
    penalties[-1] = 0

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        log_odds = parameters @ inputs
        entropy = target_weights @ np.logaddexp(0, -log_odds)
        entropy += nontarget_weights @ np.logaddexp(0, log_odds)
        return float(entropy + penalties @ parameters**2 / 2)

    parameters = np.zeros(len(inputs))
    for _ in range(MAX_NEWTON_STEPS):
        probabilities = 0.5 * (1 + np.tanh(parameters @ inputs / 2))
        gradient = inputs @ (weights * probabilities - target_weights) + penalties * parameters
        curvature = (inputs * (weights * probabilities * (1 - probabilities))) @ inputs.T
        # The tiny constant keeps the matrix invertible where all probabilities are 0 or 1.
        ridge = np.diag(penalties) + 1e-12 * np.eye(len(inputs))
        step = np.linalg.solve(curvature + ridge, gradient)
        size, before = 1.0, loss(parameters)
        # Close to the minimum only rounding is left of the loss, and the full step is right.
        while float(np.abs(size * step).max()) > 1e-6 and loss(parameters - size * step) > before:
            size /= 2
        parameters = parameters - size * step
        if float(np.abs(step).max()) < 1e-7:
            break
    slopes = parameters[:-1] / spreads
    return (*slopes.tolist(), float(parameters[-1] - slopes @ means))


def describe_probability(probability: float) -> str:
    """Writes a probability in percent; no model is so sure that 0 or 100 would be honest."""
    if probability < 0.001:
        return translate("小于0.1%")
    return translate("大于99.9%") if probability > 0.999 else f"{probability:.1%}"

"""How sure an error rate is that was measured on few people.

Trials are not independent: fifty recordings of ten people are a thousand pairs, but the same ten
people. What counts are pairs of people, and fewer of them where one person causes the errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.verification.trial_groups import TrialGroup

CONFIDENCE = 0.95
"""How often the limits hold, in the long run."""

CURVE_STEPS = 201
"""Thresholds at which the rates of a calibration are told."""


@dataclass(frozen=True)
class Certainty:
    """A false accept rate and the limit that it has with 95 % confidence.

    Attributes:
        rate: Mean over the pairs of people, a fraction.
        lower_limit: The true rate is not lower, with 95 % confidence.
        upper_limit: Nor higher.
        num_people: How many people there were.
        num_pairs: Pairs of people that were compared.
    """

    rate: float
    lower_limit: float
    upper_limit: float
    num_people: int
    num_pairs: int

    def sentence(self, promised: float = 0.001) -> str:
        """Says what can be promised, in one sentence."""
        limit = f"at most {_percent(self.upper_limit)} with {CONFIDENCE:.0%} confidence"
        people, rate = f"{self.num_people} people ({self.num_pairs}", _percent(promised)
        if self.upper_limit > promised:
            return f"{people} pairs of them) are too few to promise {rate} false accepts: {limit}"
        return f"{people} pairs of them) promise {rate} false accepts: {limit}"


@dataclass(frozen=True, eq=False)
class RateCurve:
    """Error rates with their limits against the threshold.

    Attributes:
        thresholds: Ascending, shape `(n,)`.
        false_accepts: Rate, lower and upper limit at each, fractions, shape `(n, 3)`.
        misses: The same of pairs of one person.
    """

    thresholds: npt.NDArray[np.float64]
    false_accepts: npt.NDArray[np.float64]
    misses: npt.NDArray[np.float64]

    def lowest_promising(self, rate: float) -> float | None:
        """Returns the lowest threshold at and above which no more than `rate` pass, surely.

        None if these people are too few to promise that of any threshold.
        """
        holds = np.logical_and.accumulate(self.false_accepts[::-1, 2] <= rate)[::-1]
        return float(self.thresholds[holds][0]) if holds.any() else None


def rate_curve(groups: Sequence[TrialGroup], *marked: float) -> RateCurve:
    """Returns the rates over all thresholds that matter, `marked` ones included.

    Args:
        groups: Trials, some of them of one person.
        marked: Thresholds that the curve reaches to in any case.
    """
    ends = [*marked, *(float(end(group.scores)) for group in groups for end in (np.min, np.max))]
    thresholds = np.linspace(min(ends), max(ends), CURVE_STEPS)
    pairs = _PairsOfPeople(groups)
    accepts = [pairs.certainty(float(threshold)) for threshold in thresholds]
    with_targets = [group for group in groups if group.has_targets]
    return RateCurve(
        thresholds,
        np.array([(found.rate, found.lower_limit, found.upper_limit) for found in accepts]),
        np.array([miss_certainty(with_targets, float(threshold)) for threshold in thresholds]),
    )


def certainty_of(groups: Sequence[TrialGroup], threshold: float) -> Certainty:
    """Returns the false accept rate at a threshold with its confidence limits."""
    return _PairsOfPeople(groups).certainty(threshold)


def miss_certainty(groups: Sequence[TrialGroup], threshold: float) -> tuple[float, float, float]:
    """Returns `(rate, lower_limit, upper_limit)` of misses, each person counting once."""
    people = np.concatenate([group.speakers[group.is_target, 0] for group in groups])
    missed = np.concatenate([group.target_scores < threshold for group in groups])
    _, rows = np.unique(people, return_inverse=True)
    rate = float((np.bincount(rows, missed) / np.bincount(rows)).mean())
    num_people = int(rows.max()) + 1
    return (rate, *binomial_limits(rate * num_people, num_people))


def binomial_limits(num_errors: float, num_trials: float) -> tuple[float, float]:
    """Returns the limits of an error rate, each with 95 % confidence on its own side.

    Without errors the upper one is close to `3 / num_trials`, the rule of three.

    Args:
        num_errors: Errors, also a fraction of one.
        num_trials: Independent trials, above 0.

    Source: Clopper and Pearson, The use of confidence or fiducial limits, 1934.
    """
    from scipy.special import betaincinv

    lower = 0.0
    if num_errors > 0:
        rest = num_trials - num_errors + 1
        lower = float(betaincinv(num_errors, rest, 1 - CONFIDENCE))
    if num_errors >= num_trials:
        return lower, 1.0
    return lower, float(betaincinv(num_errors + 1, num_trials - num_errors, CONFIDENCE))


class _PairsOfPeople:
    """The trials of two people, counted by pair of people."""

    def __init__(self, groups: Sequence[TrialGroup]) -> None:
        pairs = np.concatenate([group.speakers[~group.is_target] for group in groups])
        self._scores = np.concatenate([group.nontarget_scores for group in groups])
        people, rows = np.unique(pairs, return_inverse=True)
        rows = rows.reshape(pairs.shape)
        self._num_people = len(people)
        self._cells = rows[:, 0] * len(people) + rows[:, 1]
        self._num_trials = self._table(np.ones(len(pairs)))
        self._is_pair = self._num_trials > 0

    def _table(self, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Returns the sum of the weights of each pair, shape `(num_people, num_people)`."""
        size = self._num_people
        table = np.bincount(self._cells, weights, minlength=size**2).reshape(size, size)
        return np.asarray(table + table.T)

    def certainty(self, threshold: float) -> Certainty:
        """Returns the false accept rate at a threshold with its confidence limits."""
        accepted, is_pair = self._table((self._scores >= threshold).astype(float)), self._is_pair
        rates = np.divide(accepted, self._num_trials, out=np.zeros_like(accepted), where=is_pair)
        num_pairs = int(is_pair.sum()) // 2
        rate = float(rates.sum() / is_pair.sum())
        effective = num_pairs / _design_effect(rates, is_pair, rate)
        lower, upper = binomial_limits(rate * effective, effective)
        return Certainty(rate, lower, upper, self._num_people, num_pairs)


def _design_effect(
    rates: npt.NDArray[np.float64], is_pair: npt.NDArray[np.bool_], rate: float
) -> float:
    """Returns how much less the pairs of people say than as many independent trials would.

    The variance of the rate when one person after the other is left out (jackknife), over that of
    independent pairs; 1 where that is higher or there are no errors to tell.
    """
    num_people, num_pairs = len(rates), is_pair.sum() / 2
    if not 0 < rate < 1 or num_people < 3:
        return 1.0
    left = is_pair.sum() - 2 * is_pair.sum(axis=1)
    if (left <= 0).any():
        return 1.0
    without = (rates.sum() - 2 * rates.sum(axis=1)) / left
    variance = (num_people - 1) * float(np.mean((without - without.mean()) ** 2))
    return float(max(variance / (rate * (1 - rate) / num_pairs), 1.0))


def _percent(rate: float) -> str:
    """Writes a rate in percent with two digits that count."""
    return f"{100 * rate:.2g} %"

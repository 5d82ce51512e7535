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


def certainty_of(groups: Sequence[TrialGroup], threshold: float) -> Certainty:
    """Returns the false accept rate at a threshold with its confidence limits."""
    accepted, num_trials, people = _pair_table(groups, threshold)
    is_pair = num_trials > 0
    rates = np.divide(accepted, num_trials, out=np.zeros_like(accepted), where=is_pair)
    num_pairs = int(is_pair.sum()) // 2
    rate = float(rates.sum() / is_pair.sum())
    effective = num_pairs / _design_effect(rates, is_pair, rate)
    lower, upper = binomial_limits(rate * effective, effective)
    return Certainty(rate, lower, upper, len(people), num_pairs)


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


def _pair_table(
    groups: Sequence[TrialGroup], threshold: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns accepted trials and trials of each pair of people, `(n, n)`, symmetric, and who."""
    pairs = np.concatenate([group.speakers[~group.is_target] for group in groups])
    accepted = np.concatenate([group.nontarget_scores >= threshold for group in groups])
    people, rows = np.unique(pairs, return_inverse=True)
    rows = rows.reshape(pairs.shape)
    cells = rows[:, 0] * len(people) + rows[:, 1]
    shape = (len(people), len(people))
    num_trials = np.bincount(cells, minlength=len(people) ** 2).reshape(shape).astype(np.float64)
    num_accepted = np.bincount(cells, accepted, minlength=len(people) ** 2).reshape(shape)
    return num_accepted + num_accepted.T, num_trials + num_trials.T, people


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

"""What a calibration on a few people may change of thresholds that are in use.

The thresholds of a model were found on more people and other microphones. A few people can show
that they are too low here, hardly that they are too high: a threshold is lowered only as far as
these people promise its rate with 95 % confidence, which takes a dozen of them for 5 % and half a
hundred for 0.3 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from utils.verification.calibration import Calibration
from utils.verification.certainty import Certainty, RateCurve, certainty_of, rate_curve
from utils.verification.thresholds import (
    PROMISED_RATE,
    PROMISED_STRICT_RATE,
    STRICT_AIM,
    calibrate,
    measured,
    rates_at,
    upper_score,
)
from utils.verification.trial_groups import TrialGroup


@dataclass(frozen=True)
class ProposedThreshold:
    """One of the two thresholds.

    Attributes:
        promised: False accepts that it may lead to, a fraction.
        in_use: What is in use.
        found: What these people alone would make of it.
        proposed: What is proposed.
        certainty: False accepts at what is proposed.
    """

    promised: float
    in_use: float
    found: float
    proposed: float
    certainty: Certainty

    @property
    def is_promised(self) -> bool:
        """Whether these people are enough to promise its rate."""
        return self.certainty.upper_limit <= self.promised


@dataclass(frozen=True, eq=False)
class Proposal:
    """Thresholds for the people and the microphone of a calibration.

    Attributes:
        calibration: What is proposed; the probability scale is the one in use unless these people
            promise the default threshold's rate.
        strict: The strict threshold.
        default: The default threshold.
        curve: The rates at all thresholds.
    """

    calibration: Calibration
    strict: ProposedThreshold
    default: ProposedThreshold
    curve: RateCurve


def propose(groups: Sequence[TrialGroup], in_use: Calibration) -> Proposal:
    """Calibrates on a few people, and keeps what they are too few to lower.

    Args:
        groups: Their trials under every condition.
        in_use: The calibration of the model as it is used.

    Raises:
        DataListError: If there are no pairs of one person, or none of two people.
    """
    found, trials = calibrate(groups), measured(groups)
    curve = rate_curve(trials, in_use.threshold, in_use.strict_threshold, found.strict_threshold)
    needed, strictly_needed = (
        round(upper_score(trials, rate), 4) for rate in (PROMISED_RATE, STRICT_AIM)
    )
    lowest, strictly_lowest = (
        curve.lowest_promising(rate) for rate in (PROMISED_RATE, PROMISED_STRICT_RATE)
    )
    threshold = _careful(in_use.threshold, found.threshold, needed, lowest)
    strict = _careful(
        in_use.strict_threshold, found.strict_threshold, strictly_needed, strictly_lowest
    )
    strict = max(strict, threshold)
    proposed = replace(
        found,
        threshold=threshold,
        strict_threshold=strict,
        rates=rates_at(trials, threshold),
        strict_rates=rates_at(trials, strict),
    )
    default = ProposedThreshold(
        PROMISED_RATE,
        in_use.threshold,
        found.threshold,
        threshold,
        certainty_of(trials, threshold),
    )
    if not default.is_promised:
        proposed = replace(
            proposed,
            slope=in_use.slope,
            offset=in_use.offset,
            slope_by_speech=in_use.slope_by_speech,
            offset_by_speech=in_use.offset_by_speech,
        )
    return Proposal(
        proposed,
        ProposedThreshold(
            PROMISED_STRICT_RATE,
            in_use.strict_threshold,
            found.strict_threshold,
            strict,
            certainty_of(trials, strict),
        ),
        default,
        curve,
    )


def _careful(in_use: float, found: float, needed: float, promising: float | None) -> float:
    """Returns the threshold in use, or what is surely better.

    Args:
        in_use: What is in use.
        found: What these people alone would make of it.
        needed: What the strangers among them need; it may be lower than `found`, which is also
            half-way between strangers and own voices.
        promising: The lowest that these people promise the rate of, if there is one.
    """
    lowered = in_use
    if promising is not None:
        # As finely as scores are told.
        lowered = min(in_use, max(found, math.ceil(1e4 * promising) / 1e4))
    return max(needed, lowered)

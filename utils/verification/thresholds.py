"""The thresholds that a model carries: found on hard trials, checked on corpora left out.

The default threshold lets at most 5 % of strangers in, the strict one at most 0.3 %, among people
of one sex and one kind of recording that nobody has measured yet. Each is the score that a share of
the strangers in the worst group reaches, plus what that score varies between groups.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.corpus.lists import LabelledClip
from utils.errors import DataListError
from utils.verification.calibration import (
    SPEECH_RANGE_S,
    Calibration,
    ThresholdRates,
    fit_log_odds,
    speech_quality,
)
from utils.verification.certainty import certainty_of
from utils.verification.metrics import ErrorCurve, cllr, min_cllr
from utils.verification.trial_groups import FULL_LENGTH, TrialGroup

PROMISED_RATE = 0.05
"""False accepts at the default threshold, in every group."""

PROMISED_STRICT_RATE = 0.003
"""False accepts at the strict threshold, in every group."""

STRICT_AIM = 0.002
"""False accepts in the worst group at which the strict threshold begins, before its margin."""

THRESHOLD_CONDITIONS = (FULL_LENGTH, "3 s")
"""The thresholds hold for these; of shorter speech the probability tells how little it says."""

FEWEST_ERRORS = 10
"""Errors that a group must expect at a rate to measure it; a smaller one is smoothed."""


@dataclass(frozen=True)
class LeftOut:
    """How a calibration on all other corpora does in a group of the corpus left out.

    Attributes:
        group: The group.
        false_accept_rate: At the default threshold, a fraction.
        strict_false_accept_rate: At the strict threshold.
        miss_rate: Misses at the default threshold; NaN where nobody has two recordings.
        strict_miss_rate: Misses at the strict threshold.
        num_trials: Pairs of different people in it.
    """

    group: str
    false_accept_rate: float
    strict_false_accept_rate: float
    miss_rate: float
    strict_miss_rate: float
    num_trials: int


def calibrate(groups: Sequence[TrialGroup]) -> Calibration:
    """Finds thresholds, probability scale, and what both lead to.

    Raises:
        DataListError: If there are no pairs of one person, or none of two people.
    """
    if not any(group.has_targets for group in groups):
        raise DataListError(
            f"{len(groups)} groups of recordings without a pair of one person and one of two, "
            "expected several people with several recordings each"
        )
    clean = measured(groups)
    equal_errors = [
        ErrorCurve.from_scores(group.scores, group.is_target).equal_error_rate()[1]
        for group in clean
        if group.has_targets
    ]
    threshold = max(upper_score(clean, PROMISED_RATE), float(np.mean(equal_errors)))
    strict_threshold = max(upper_score(clean, STRICT_AIM), threshold)
    # Four digits are as fine as scores are told.
    threshold, strict_threshold = round(threshold, 4), round(strict_threshold, 4)
    slope, offset, slope_by_speech, offset_by_speech = fit_speech_log_odds(groups)
    return Calibration(
        threshold=threshold,
        strict_threshold=strict_threshold,
        slope=round(slope, 4),
        offset=round(offset, 4),
        slope_by_speech=round(slope_by_speech, 4),
        offset_by_speech=round(offset_by_speech, 4),
        rates=rates_at(clean, threshold),
        strict_rates=rates_at(clean, strict_threshold),
    )


def upper_score(groups: Sequence[TrialGroup], rate: float) -> float:
    """Returns the score that at most `rate` of the strangers of a new group should reach."""
    scores = [_score_at_rate(group.nontarget_scores, rate) for group in groups]
    spread = float(np.std(scores, ddof=1)) if len({group.corpus for group in groups}) > 1 else 0.0
    return min(max(scores) + spread, 1.0)


def _score_at_rate(scores: npt.NDArray[np.float64], rate: float) -> float:
    """Returns the score that a share of the non-target trials reaches.

    Too few trials to measure the rate have a normal tail too: the higher of both counts.
    """
    from statistics import NormalDist

    score = float(np.quantile(scores, 1 - rate, method="higher"))
    if rate * len(scores) < FEWEST_ERRORS:
        deviate = NormalDist().inv_cdf(1 - rate)
        score = max(score, float(scores.mean() + deviate * scores.std()))
    return score


def fit_speech_log_odds(groups: Sequence[TrialGroup]) -> tuple[float, float, float, float]:
    """Fits the log-odds of "same person" by score and duration of speech, each group alike.

    Returns:
        Slope, offset, and what one unit of `speech_quality` adds to each.
    """
    with_targets = sum(1 for group in groups if group.has_targets)
    scores = np.concatenate([group.scores for group in groups])
    quality = np.concatenate([speech_quality(group.speech_s) for group in groups])
    targets = [group.is_target / max(group.is_target.sum(), 1) for group in groups]
    nontargets = [~group.is_target / (~group.is_target).sum() for group in groups]
    weights = (
        np.concatenate(targets) / (2 * with_targets),
        np.concatenate(nontargets) / (2 * len(groups)),
    )
    num_trials = min(
        sum(int(group.is_target.sum()) for group in groups),
        sum(int((~group.is_target).sum()) for group in groups),
    )
    slope, by_product, by_quality, offset = fit_log_odds(
        [scores, scores * quality, quality], *weights, num_trials=num_trials
    )
    extremes = [speech_quality((s, s)) for s in SPEECH_RANGE_S]
    if min(slope + by_product * float(extreme) for extreme in extremes) <= 0:
        # A list that says nothing of durations: a higher score must never be less sure.
        slope, offset = fit_log_odds([scores], *weights, num_trials=num_trials)
        by_product = by_quality = 0.0
    return slope, offset, by_product, by_quality


def rates_at(groups: Sequence[TrialGroup], threshold: float) -> ThresholdRates:
    """Measures a threshold on groups that count alike."""
    accepts, misses = np.array([group.rates_at(threshold) for group in groups]).T
    worst = int(np.argmax(accepts))
    return ThresholdRates(
        false_accept_rate=round(float(np.mean(accepts)), 6),
        miss_rate=round(float(np.nanmean(misses)), 6),
        worst_rate=round(float(accepts[worst]), 6),
        worst_group=groups[worst].name,
        num_trials=sum(int((~group.is_target).sum()) for group in groups),
    )


def leave_one_corpus_out(groups: Sequence[TrialGroup]) -> list[LeftOut]:
    """Calibrates on all corpora but one and measures on that one, for each in turn."""
    rows = []
    for own, others in _each_corpus_left_out(groups):
        calibration = calibrate(others)
        for group in measured(own):
            accepts, misses = group.rates_at(calibration.threshold)
            strict_accepts, strict_misses = group.rates_at(calibration.strict_threshold)
            num_trials = len(group.nontarget_scores)
            rows.append(
                LeftOut(group.name, accepts, strict_accepts, misses, strict_misses, num_trials)
            )
    return rows


def left_out_cllr(groups: Sequence[TrialGroup]) -> dict[str, tuple[float, float]]:
    """Returns Cllr and min Cllr of each corpus and condition, calibrated on the other corpora.

    Within a corpus its groups count alike.
    """
    found = {}
    for own, others in _each_corpus_left_out(groups):
        calibration = Calibration(0, 0, *fit_speech_log_odds(others))
        with_targets = [group for group in own if group.has_targets]
        for condition in dict.fromkeys(group.condition for group in with_targets):
            same = [group for group in with_targets if group.condition == condition]
            values = np.concatenate([calibration.log_odds(g.scores, g.speech_s) for g in same])
            is_target = np.concatenate([g.is_target for g in same])
            weights = np.concatenate(
                [1 / np.where(g.is_target, g.is_target.sum(), (~g.is_target).sum()) for g in same]
            )
            found[f"{same[0].corpus}, {condition}"] = (
                cllr(values, is_target, weights),
                min_cllr(values, is_target, weights),
            )
    return found


def _each_corpus_left_out(
    groups: Sequence[TrialGroup],
) -> Iterator[tuple[list[TrialGroup], list[TrialGroup]]]:
    """Yields the groups of a corpus and those of all others, where these have target trials."""
    for corpus in dict.fromkeys(group.corpus for group in groups):
        own = [group for group in groups if group.corpus == corpus]
        others = [group for group in groups if group.corpus != corpus]
        if any(group.has_targets for group in others):
            yield own, others


def measured(groups: Sequence[TrialGroup]) -> list[TrialGroup]:
    """Returns the groups on which the thresholds are found."""
    return [group for group in groups if group.condition in THRESHOLD_CONDITIONS]


def calibration_entries(
    source: str, clips: Sequence[LabelledClip], groups: Sequence[TrialGroup], found: Calibration
) -> dict[str, Any]:
    """Returns what a model's metadata says of its calibration."""
    scores = measured(groups)
    return {
        **found.to_dict(),
        "calibrated_on": {
            "list": Path(source).name,
            "num_speakers": len({clip.label for clip in clips}),
            "num_groups": len({(group.corpus, group.people) for group in scores}),
            "num_target_trials": sum(int(group.is_target.sum()) for group in scores),
            "num_nontarget_trials": sum(int((~group.is_target).sum()) for group in scores),
        },
    }


def describe(groups: Sequence[TrialGroup], calibration: Calibration) -> list[str]:
    """Returns the lines that tell what was found, how sure it is, and how it travels."""
    lines = []
    for group in measured(groups):
        if group.has_targets:
            eer = ErrorCurve.from_scores(group.scores, group.is_target).equal_error_rate()[0]
            lines.append(f"{group.name or 'all'}: {group.num_people} people, EER {100 * eer:.2f} %")
    lines += [
        f"threshold {calibration.threshold:.4f}: {calibration.rates}",
        f"strict threshold {calibration.strict_threshold:.4f}: {calibration.strict_rates}",
    ]
    for threshold in (calibration.threshold, calibration.strict_threshold):
        lines.append(certainty_of(measured(groups), threshold).sentence())
    rows = leave_one_corpus_out(groups)
    if rows:
        lines += [
            "",
            "left out: false accepts, strict; misses, strict (%); pairs of different people",
            *(
                f"{row.group}: {100 * row.false_accept_rate:.2f}, "
                f"{100 * row.strict_false_accept_rate:.3f}; {100 * row.miss_rate:.1f}, "
                f"{100 * row.strict_miss_rate:.1f}; {row.num_trials:,}"
                for row in rows
            ),
            "",
            "left out: Cllr, min Cllr",
            *(
                f"{name}: {actual:.3f}, {least:.3f}"
                for name, (actual, least) in left_out_cllr(groups).items()
            ),
        ]
    return lines

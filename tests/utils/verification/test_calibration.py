"""Thresholds and probabilities on scores whose truth is known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.verification.calibration import (
    Calibration,
    ThresholdRates,
    describe_probability,
    fit_calibration,
    fit_log_odds,
    speech_quality,
)
from utils.verification.scoring import BINS_PER_UNIT, histogram_of

CALIBRATION = Calibration(threshold=0.41, strict_threshold=0.55, slope=20.0, offset=-8.0)


def normal_scores(num_targets: int = 5000, num_nontargets: int = 60000) -> tuple[np.ndarray, ...]:
    """Returns scores of two normal classes of one width: the log-odds are linear in the score."""
    rng = np.random.default_rng(5)
    targets = rng.normal(0.5, 0.1, num_targets)
    nontargets = rng.normal(0.1, 0.1, num_nontargets)
    scores = np.clip(np.r_[targets, nontargets], -1, 1)
    return scores, np.r_[np.ones(num_targets, int), np.zeros(num_nontargets, int)]


def test_recovers_the_true_log_odds() -> None:
    # Normal classes with means m1, m0 and width s: slope (m1 - m0) / s^2 = 40, even at their
    # middle, 0.3.
    fitted = fit_calibration(histogram_of(*normal_scores()))
    assert fitted.slope == pytest.approx(40, rel=0.05)
    assert -fitted.offset / fitted.slope == pytest.approx(0.3, abs=0.005)
    assert fitted.probability(0.3) == pytest.approx(0.5, abs=0.05)
    assert fitted.probability(0.35) == pytest.approx(1 / (1 + math.exp(-2)), abs=0.02)


def test_thresholds_mean_what_they_say() -> None:
    scores, labels = normal_scores()
    fitted = fit_calibration(histogram_of(scores, labels))
    nontargets, targets = scores[labels == 0], scores[labels == 1]
    at_eer = (nontargets >= fitted.threshold).mean(), (targets < fitted.threshold).mean()
    assert at_eer[0] == pytest.approx(at_eer[1], abs=1e-3)
    assert (nontargets >= fitted.strict_threshold).mean() <= 0.001
    assert (nontargets >= fitted.strict_threshold - 2 / BINS_PER_UNIT).mean() > 0.001 - 1e-4
    assert fitted.strict_threshold > fitted.threshold


@pytest.mark.parametrize("count", [4, 400])
def test_fit_is_the_minimum_of_the_cross_entropy(count: int) -> None:
    # 4 targets and 8 others don't overlap: the prior alone keeps the slope finite.
    scores, labels = normal_scores(count, 2 * count)
    fitted = fit_calibration(histogram_of(scores, labels))
    weights = np.where(labels == 1, 0.5 / count, 0.25 / count)
    spread = np.sqrt(np.cov(scores, aweights=weights, ddof=0))

    def loss(slope: float, offset: float) -> float:
        log_odds = np.where(labels == 1, 1, -1) * (slope * scores + offset)
        penalty = (slope * spread) ** 2 / (2 * 10**2 * count)
        return float(weights @ np.logaddexp(0, -log_odds) + penalty)

    best = loss(fitted.slope, fitted.offset)
    for change in (-0.03, 0.03):
        assert loss(fitted.slope + change, fitted.offset - 0.3 * change) > best
        assert loss(fitted.slope, fitted.offset + change) > best


def test_prior_moves_the_probability_by_its_log_odds() -> None:
    histogram = histogram_of(*normal_scores())
    even, rare = fit_calibration(histogram), fit_calibration(histogram, prior=0.1)
    assert rare.slope == pytest.approx(even.slope, rel=0.1)
    middle = 0.3
    difference = (rare.slope - even.slope) * middle + rare.offset - even.offset
    assert difference == pytest.approx(math.log(0.1 / 0.9), abs=0.2)


def test_number_of_trials_of_a_class_does_not_move_the_probability() -> None:
    scores, labels = normal_scores(2000, 2000)
    repeated = np.r_[scores, np.tile(scores[labels == 0], 9)]
    more_labels = np.r_[labels, np.zeros(9 * 2000, int)]
    few = fit_calibration(histogram_of(scores, labels))
    many = fit_calibration(histogram_of(repeated, more_labels))
    assert many.probability(0.33) == pytest.approx(few.probability(0.33), abs=1e-6)


def test_classes_that_do_not_overlap_get_a_finite_slope() -> None:
    fitted = fit_calibration(histogram_of([0.1, 0.2, 0.7, 0.8], [0, 0, 1, 1]))
    assert fitted.threshold == pytest.approx(0.45, abs=1e-3)  # bins are 0.0001 wide
    assert 5 < fitted.slope < 100
    assert fitted.probability(0.45) == pytest.approx(0.5, abs=1e-3)
    assert 0.5 < fitted.probability(0.7) < 1


@pytest.mark.parametrize("scores", [[0.3, 0.3, 0.3], [0.3, 0.3, 0.3 + 1e-12]])
def test_scores_that_say_nothing_give_even_odds(scores: list[float]) -> None:
    fitted = fit_calibration(histogram_of(scores, [1, 0, 0]))
    assert fitted.probability(0.3) == pytest.approx(0.5, abs=0.1)


@given(
    st.lists(st.tuples(st.integers(-100, 100), st.booleans()), min_size=2, max_size=60),
    st.floats(0.01, 0.99),
)
def test_any_trials_give_finite_numbers(trials: list[tuple[int, bool]], prior: float) -> None:
    trials = [*trials, (40, True), (20, False)]
    scores = np.array([score / 100 for score, _ in trials])
    fitted = fit_calibration(histogram_of(scores, [label for _, label in trials]), prior)
    assert all(math.isfinite(value) for value in vars(fitted).values() if value is not None)
    assert fitted.threshold <= fitted.strict_threshold


def test_strict_threshold_of_a_nearly_errorless_model() -> None:
    # One stranger of 2,000 scores as high as the middle of the targets' gap.
    scores, labels = np.r_[np.full(1999, 0.1), 0.5, 0.9], np.r_[np.zeros(2000, int), 1]
    fitted = fit_calibration(histogram_of(scores, labels))
    # Bins are 0.0001 wide.
    assert fitted.threshold == fitted.strict_threshold == pytest.approx(0.7, abs=1e-3)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_probability_rises_with_the_score(score: float, other: float) -> None:
    low, high = sorted((score, other))
    assert 0 < CALIBRATION.probability(low) <= CALIBRATION.probability(high) < 1
    log_odds = 20 * score - 8
    assert CALIBRATION.probability(score) == pytest.approx(1 / (1 + math.exp(-log_odds)))


def test_probability_of_a_steep_slope_does_not_overflow() -> None:
    steep = Calibration(0.4, 0.5, 1e6, 0.0)
    assert (steep.probability(-1), steep.probability(0), steep.probability(1)) == (0, 0.5, 1)


def test_round_trip_through_json() -> None:
    text = json.dumps({**CALIBRATION.to_dict(), "embedding_size": 256})
    assert Calibration.from_dict(json.loads(text)) == CALIBRATION
    assert CALIBRATION.to_dict() == {
        "threshold": 0.41,
        "strict_threshold": 0.55,
        "calibration": {"slope": 20.0, "offset": -8.0},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": None}, "'threshold' is None, expected a number"),
        ({"strict_threshold": "0.5"}, "'strict_threshold' is '0.5'"),
        ({"threshold": True}, "'threshold' is True"),
        ({"threshold": math.nan}, "expected a finite one"),
        ({"calibration": None}, "'slope' is None"),
        ({"calibration": {"slope": 3.0}}, "'offset' is None"),
        ({"calibration": {"slope": 3, "offset": 1, "slope_by_speech": "x"}}, "'slope_by_speech'"),
        ({"rates": {"worst_rate": 1.0}}, "'rates' is damaged"),
    ],
)
def test_damaged_metadata(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict({**CALIBRATION.to_dict(), **change})


def test_little_speech_makes_less_sure() -> None:
    fitted = Calibration(0.4, 0.6, 20.0, -8.0, slope_by_speech=5.0, offset_by_speech=-2.0)
    # Even odds stay at 0.4; above it 1 s says less, and 3 s is what counts if nothing is known.
    assert fitted.probability(0.4, (1.0, 1.0)) == pytest.approx(0.5)
    probabilities = [fitted.probability(0.6, (s, s)) for s in (0.1, 0.5, 1.0, 3.0, 10.0, 99.0)]
    assert probabilities == sorted(probabilities)
    assert probabilities[0] == probabilities[1] and probabilities[4] == probabilities[5]
    assert fitted.probability(0.6) == fitted.probability(0.6, (None, 3.0)) == probabilities[3]
    log_odds = fitted.log_odds([0.6, 0.6], [(1.0, 1.0), (1.0, 9.0)])
    assert log_odds[1] == pytest.approx(4.0)  # their geometric mean is 3 s
    assert log_odds[0] == pytest.approx(4.0 - math.log(3) * (5 * 0.6 - 2))


def test_speech_quality_is_the_mean_logarithm_over_3_s() -> None:
    assert speech_quality((3.0, 3.0)) == 0
    assert speech_quality((1.0, 3.0)) == pytest.approx(-math.log(3) / 2)
    assert speech_quality((0.01, 1e9)) == pytest.approx((math.log(1.0 / 3) + math.log(10 / 3)) / 2)


def test_several_features_are_weighed_together() -> None:
    # The log-odds of two normal features that are independent add up: 2 * x + 3 * y.
    rng = np.random.default_rng(3)
    count = 20_000
    is_target = np.arange(2 * count) < count
    x, y = (rng.normal(np.where(is_target, mean, -mean), 1) for mean in (1.0, 1.5))
    weights = np.full(2 * count, 0.5 / count)
    fitted = fit_log_odds([x, y], weights * is_target, weights * ~is_target, count)
    # The standard error of a slope is about 0.03 here.
    assert fitted == pytest.approx((2.0, 3.0, 0.0), abs=0.15)


def test_rates_travel_with_the_thresholds() -> None:
    rates = ThresholdRates(0.01, 0.06, 0.03, "corpus, male, 3 s", 12345)
    made = Calibration(0.4, 0.5, 20.0, -8.0, 4.0, -2.0, rates, rates)
    assert Calibration.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert str(rates) == (
        "1.00% false accepts, at worst 3.00% (corpus, male, 3 s), 6.0% misses, 12,345 pairs of "
        "different people"
    )


@pytest.mark.parametrize("prior", [0, 1, -1, math.nan])
def test_useless_prior(prior: float) -> None:
    with pytest.raises(ValueError, match="prior is"):
        fit_calibration(histogram_of([0.1, 0.9], [0, 1]), prior)


def test_one_class_is_not_enough() -> None:
    with pytest.raises(ValueError, match="expected some of both"):
        fit_calibration(histogram_of([0.1, 0.9], [1, 1]))
    with pytest.raises(ValueError, match="expected some of both"):
        fit_calibration(histogram_of([0.1, 0.9], [0, 0]))


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, "小于0.1%"), (0.0314, "3.1%"), (0.5, "50.0%"), (0.9987, "99.9%"), (1.0, "大于99.9%")],
)
def test_describe_probability(probability: float, text: str) -> None:
    assert describe_probability(probability) == text

"""Metrics against trials worked out by hand, a plain search, and what must not change them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from utils.verification.metrics import ErrorCurve
from utils.verification.scoring import (
    BINS_PER_UNIT,
    histogram_of,
    score_all_pairs,
    score_trials,
)

# Few distinct values, so that ties are common.
SCORES = st.integers(-20, 20).map(lambda number: number / 20)
TRIALS = st.lists(st.tuples(SCORES, st.booleans()), min_size=2, max_size=40)


def arrays(trials: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.array([t[0] for t in trials]), np.array([t[1] for t in trials])
    assume(0 < labels.sum() < len(labels))
    return scores, labels


def equal_error_rate(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    return ErrorCurve.from_scores(scores, labels).equal_error_rate()


def min_dcf(scores: np.ndarray, labels: np.ndarray, *costs: float, **named: float) -> Any:
    return ErrorCurve.from_scores(scores, labels).min_dcf(*costs, **named)


def plain_rates(scores: np.ndarray, labels: np.ndarray) -> list[tuple[float, float, float]]:
    """Returns (threshold, miss rate, false accept rate) at each score and above the highest."""
    return [
        (t, float((scores[labels] < t).mean()), float((scores[~labels] >= t).mean()))
        for t in [*sorted(set(scores)), np.inf]
    ]


@pytest.mark.parametrize(
    ("targets", "nontargets", "eer", "threshold"),
    [
        # Apart: any threshold in the gap serves, the middle is the safest.
        ([0.8, 0.9], [0.1, 0.2], 0.0, 0.5),
        # One of four on the wrong side each.
        ([0.3, 0.6, 0.7, 0.8], [0.1, 0.2, 0.25, 0.65], 0.25, 0.45),
        # The wrong way round: every answer is wrong.
        ([0.1, 0.2], [0.8, 0.9], 1.0, 0.5),
        # All alike: from (0, 1) straight to (1, 0).
        ([0.4, 0.4], [0.4], 0.5, 0.4),
        # False accepts are 1/3 at 0.3 and at 0.45, misses 0 and 1/2: 1/3 two thirds of the way.
        ([0.4, 0.9], [0.1, 0.2, 0.5], 1 / 3, 0.4),
    ],
)
def test_equal_error_rate_by_hand(
    targets: list[float], nontargets: list[float], eer: float, threshold: float
) -> None:
    scores = np.array(targets + nontargets)
    labels = np.array([1] * len(targets) + [0] * len(nontargets))
    assert equal_error_rate(scores, labels) == pytest.approx((eer, threshold))
    binned = ErrorCurve.from_histogram(histogram_of(scores, labels)).equal_error_rate()
    assert binned == pytest.approx((eer, threshold), abs=1 / BINS_PER_UNIT)


def test_min_dcf_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.4, 0.2] + [0.5] + [0.1] * 99)
    labels = np.array([1] * 4 + [0] * 100)
    # Above 0.5: misses 2/4, no false accept. Between 0.2 and 0.4: miss 1/4, one of 100 accepted,
    # cost 0.01 * 0.25 + 0.99 * 0.01 > 0.01 * 0.5. At 0.2: no miss, 0.99 * 0.01 is worse too.
    assert min_dcf(scores, labels) == pytest.approx((0.5, 0.65))
    # Even odds: at 0.15 no miss and 1 % accepted.
    assert min_dcf(scores, labels, p_target=0.5) == pytest.approx((0.01, 0.15))
    # A false accept that costs a hundredth makes the odds even too.
    assert min_dcf(scores, labels, c_fa=1 / 99)[0] == pytest.approx(0.01)


def test_min_dcf_of_useless_scores_is_one() -> None:
    scores, labels = np.array([0.1, 0.2, 0.8, 0.9]), np.array([1, 1, 0, 0])
    assert min_dcf(scores, labels)[0] == 1
    assert min_dcf(scores, labels, p_target=0.9)[0] == 1


@given(TRIALS)
def test_points_of_the_curve_equal_the_plain_way(trials: list[tuple[float, bool]]) -> None:
    scores, labels = arrays(trials)
    curve = ErrorCurve.from_scores(scores, labels)
    plain = plain_rates(scores, labels)
    assert curve.miss_rates == pytest.approx([misses for _, misses, _ in plain])
    assert curve.false_accept_rates == pytest.approx([accepts for _, _, accepts in plain])
    for threshold, misses, accepts in zip(
        curve.thresholds, curve.misses, curve.false_accepts, strict=True
    ):
        assert misses == (scores[labels] < threshold).sum()
        assert accepts == (scores[~labels] >= threshold).sum()
    binned = ErrorCurve.from_histogram(histogram_of(scores, labels))
    assert np.array_equal(binned.misses, curve.misses)
    assert np.array_equal(binned.false_accepts, curve.false_accepts)
    np.testing.assert_allclose(binned.thresholds, curve.thresholds, atol=1.01 / BINS_PER_UNIT)


@given(TRIALS)
def test_costs_equal_the_plain_search(trials: list[tuple[float, bool]]) -> None:
    scores, labels = arrays(trials)
    plain = plain_rates(scores, labels)
    cost, threshold = min_dcf(scores, labels, 0.05, 2, 3)
    costs = [2 * 0.05 * misses + 3 * 0.95 * accepts for _, misses, accepts in plain]
    assert cost == pytest.approx(min(costs) / 0.1)
    at_threshold = 2 * 0.05 * (scores[labels] < threshold).mean()
    at_threshold += 3 * 0.95 * (scores[~labels] >= threshold).mean()
    assert at_threshold == pytest.approx(min(costs))


@given(TRIALS)
def test_equal_error_rate_lies_between_the_errors_around_its_threshold(
    trials: list[tuple[float, bool]],
) -> None:
    scores, labels = arrays(trials)
    eer, _ = equal_error_rate(scores, labels)
    assert 0 <= eer <= 1
    plain = plain_rates(scores, labels)
    assert max(misses for _, misses, accepts in plain if misses <= accepts) <= eer + 1e-12
    assert min(accepts for _, misses, accepts in plain if misses <= accepts) >= eer - 1e-12


@given(TRIALS, st.sampled_from([np.exp, np.tanh, lambda x: 3 * x - 7, lambda x: x**3]))
def test_only_the_order_of_the_scores_matters(
    trials: list[tuple[float, bool]], transform: Callable[[np.ndarray], np.ndarray]
) -> None:
    scores, labels = arrays(trials)
    assert equal_error_rate(transform(scores), labels)[0] == equal_error_rate(scores, labels)[0]
    assert min_dcf(transform(scores), labels)[0] == min_dcf(scores, labels)[0]


@given(TRIALS, st.randoms(use_true_random=False))
def test_the_order_of_the_trials_does_not_matter(
    trials: list[tuple[float, bool]], random: object
) -> None:
    scores, labels = arrays(trials)
    random.shuffle(trials)  # type: ignore[attr-defined]
    assert equal_error_rate(*arrays(trials)) == equal_error_rate(scores, labels)
    assert min_dcf(*arrays(trials)) == min_dcf(scores, labels)


@given(TRIALS)
def test_flipped_scores_and_swapped_classes(trials: list[tuple[float, bool]]) -> None:
    scores, labels = arrays(trials)
    eer = equal_error_rate(scores, labels)[0]
    assert equal_error_rate(-scores, labels)[0] == pytest.approx(1 - eer)
    assert equal_error_rate(-scores, ~labels)[0] == pytest.approx(eer)
    assert min(eer, equal_error_rate(-scores, labels)[0]) <= 0.5


@given(TRIALS, st.integers(2, 5))
def test_repeated_trials_change_nothing(trials: list[tuple[float, bool]], times: int) -> None:
    scores, labels = arrays(trials)
    repeated = np.repeat(scores, times), np.repeat(labels, times)
    assert equal_error_rate(*repeated) == pytest.approx(equal_error_rate(scores, labels))
    assert min_dcf(*repeated) == pytest.approx(min_dcf(scores, labels))


def test_bins_agree_with_the_exact_figures() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 12, 400)
    embeddings = rng.normal(size=(12, 64))[labels] + 1.6 * rng.normal(size=(400, 64))
    first, second = np.triu_indices(400, 1)
    scores = score_trials(embeddings, first, second)
    exact = ErrorCurve.from_scores(scores, labels[first] == labels[second])
    binned = ErrorCurve.from_histogram(score_all_pairs(embeddings, labels))
    one_bin = 1 / BINS_PER_UNIT
    eer, threshold = exact.equal_error_rate()
    assert 0.01 < eer < 0.3
    # What lies in one bin around the threshold can be miscounted, no more.
    share = (np.abs(scores - threshold) <= one_bin).mean() + 1e-3
    assert binned.equal_error_rate()[0] == pytest.approx(eer, abs=share)
    assert binned.equal_error_rate()[1] == pytest.approx(threshold, abs=one_bin)
    assert binned.min_dcf()[0] == pytest.approx(exact.min_dcf()[0], abs=2e-3)


def test_threshold_between_neighbouring_floats() -> None:
    low = 0.5
    high = np.nextafter(low, 1)
    curve = ErrorCurve.from_scores(np.array([high, low]), np.array([1, 0]))
    assert curve.equal_error_rate() == (0, high)


def test_threshold_at_false_accept_rate() -> None:
    scores = np.r_[np.linspace(0, 0.999, 1000), 0.5, 0.9995]
    labels = np.r_[np.zeros(1000, int), 1, 1]
    curve = ErrorCurve.from_scores(scores, labels)
    for rate in (0, 0.001, 0.01, 0.5, 1):
        threshold = curve.threshold_at_false_accept_rate(rate)
        accepted = (scores[:1000] >= threshold).mean()
        assert accepted <= rate
        assert accepted == pytest.approx(rate)
    for rate in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="rate is"):
            curve.threshold_at_false_accept_rate(rate)


@pytest.mark.parametrize("metric", [equal_error_rate, min_dcf])
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [1], "scores have shape"),
        ([[0.1], [0.2]], [[1], [0]], "expected \\(num_trials,\\)"),
        ([0.1, np.nan], [1, 0], "NaN or infinite"),
        ([0.1, np.inf], [1, 0], "NaN or infinite"),
        ([0.1, 0.2], [1, 2], "other values"),
        ([0.1, 0.2], [1, 1], "2 target and 0 non-target"),
        ([0.1, 0.2], [0, 0], "0 target and 2 non-target"),
        ([], [], "0 target and 0 non-target"),
    ],
)
def test_useless_trials(
    metric: Callable[..., object], scores: list[float], labels: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric(np.array(scores), np.array(labels))


def test_a_histogram_of_one_class() -> None:
    with pytest.raises(ValueError, match="expected some of both"):
        ErrorCurve.from_histogram(histogram_of([0.5], [1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_target": 0}, "p_target is 0"),
        ({"p_target": 1}, "p_target is 1"),
        ({"c_miss": 0}, "c_miss is 0"),
        ({"c_fa": -1}, "c_fa -1"),
    ],
)
def test_useless_costs(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        min_dcf(np.array([0.1, 0.2]), np.array([0, 1]), **options)

"""Cllr and its kin on log-odds whose truth is known."""

import numpy as np
import pytest

from utils.verification.calibration import Calibration
from utils.verification.log_odds import count_pairs, count_trials
from utils.verification.metrics import ErrorCurve, actual_dcf, cllr, min_cllr

COUNT = 20_000


def calibrated() -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that are true: normal, of variance 4, with means 2 and -2."""
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(2, 2, COUNT), rng.normal(-2, 2, COUNT)]
    return values, np.arange(2 * COUNT) < COUNT


def test_cllr_by_hand() -> None:
    # log2(1 + e^0) = 1 for each class: nothing said, nothing lost.
    assert cllr(np.zeros(5), np.array([1, 0, 0, 0, 0])) == pytest.approx(1)
    expected = (np.log2(1 + 1 / 3) + np.log2(1 + 2)) / 2
    assert cllr(np.log([3.0, 2.0]), np.array([1, 0])) == pytest.approx(expected)
    repeated = cllr(np.log([3.0, 2.0, 2.0]), np.array([1, 0, 0]))
    assert repeated == pytest.approx(cllr(np.log([3.0, 2.0]), np.array([1, 0]), np.array([1, 2])))


def test_true_log_odds_cost_the_least() -> None:
    values, labels = calibrated()
    least = min_cllr(values, labels)
    # The isotonic fit follows chance a little: 0.01 at this size.
    assert least <= cllr(values, labels) <= least + 0.01
    assert cllr(2 * values + 1, labels) > least + 0.1
    assert min_cllr(2 * values + 1, labels) == pytest.approx(least)
    best = ErrorCurve.from_scores(values, labels).min_dcf(0.1)[0]
    assert actual_dcf(values, labels, 0.1) <= best + 0.02
    assert actual_dcf(values - 3, labels, 0.1) > best + 0.1


def test_min_cllr_of_parted_and_reversed_classes() -> None:
    scores = np.array([0.1, 0.2, 0.7, 0.8])
    assert min_cllr(scores, np.array([0, 0, 1, 1])) == 0
    assert min_cllr(scores, np.array([1, 1, 0, 0])) == pytest.approx(1)
    assert min_cllr(np.zeros(4), np.array([0, 1, 0, 1])) == pytest.approx(1)


@pytest.mark.parametrize("metric", [cllr, min_cllr, actual_dcf])
def test_one_class_is_not_enough(metric: object) -> None:
    with pytest.raises(ValueError, match="expected some of both"):
        metric(np.zeros(3), np.ones(3))  # type: ignore[operator]


def test_counts_of_pairs_equal_those_of_their_list() -> None:
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(300, 6)).astype(np.float32)  # more rows than a block
    labels = rng.integers(0, 40, 300)
    speech_s = rng.uniform(0.5, 9, 300)
    calibration = Calibration(0.4, 0.5, 8.0, -2.0, 3.0, -1.0)
    pairs = count_pairs(embeddings, labels, calibration, speech_s)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(300, 1)
    scores = np.einsum("ij,ij->i", unit[first], unit[second])
    is_target = labels[first] == labels[second]
    durations = np.stack([speech_s[first], speech_s[second]], axis=1)
    listed = count_trials(scores, is_target, calibration, durations)
    assert pairs.target_counts.sum() == listed.target_counts.sum() == is_target.sum()
    figures = listed.figures()
    assert pairs.figures() == pytest.approx(figures, abs=1e-4)
    # A bin is 0.01 wide.
    exact = cllr(calibration.log_odds(scores, durations), is_target)
    assert figures["cllr"] == pytest.approx(exact, abs=0.005)

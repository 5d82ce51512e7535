"""AS-norm against hand-worked scores, in all ways of scoring."""

import numpy as np
import pytest

from utils.corpus.lists import LabelledClip
from utils.verification.calibration import Calibration
from utils.verification.cohort import DEVIATIONS, Cohort, CohortStatistics, normalised
from utils.verification.log_odds import count_pairs, count_trials
from utils.verification.scoring import histogram_of, score_all_pairs, score_trials
from utils.verification.trial_groups import Condition, make_groups


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


RANDOM = np.random.default_rng(5)
COHORT = Cohort(unit(RANDOM.normal(size=(60, 16)) + 0.3), top=10)
LABELS = np.repeat(np.arange(8), 5)
EMBEDDINGS = unit(RANDOM.normal(size=(8, 16))[LABELS] + 0.6 * RANDOM.normal(size=(40, 16)) + 0.3)


def plain(first: np.ndarray, second: np.ndarray) -> float:
    """The formula, pair by pair, in 64 bits."""
    score = float(first.astype(np.float64) @ second)
    total = 0.0
    for side in (first, second):
        best = sorted(float(side.astype(np.float64) @ other) for other in COHORT.embeddings)[-10:]
        total += (score - np.mean(best)) / np.std(best)
    return float(np.clip(total / 2 / DEVIATIONS, -1, 1))


def test_worked_by_hand() -> None:
    # The two most alike of three score 0.8 and 0.6 with the one side, 0.6 and 0 with the other.
    cohort = Cohort(np.array([[0.8, 0.6], [0.6, 0.8], [-1.0, 0.0]], np.float32), top=2)
    first, second = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
    statistics = cohort.statistics(np.stack([first, second]))
    np.testing.assert_allclose(statistics.means, [0.7, 0.7], atol=1e-6)
    np.testing.assert_allclose(statistics.deviations, [0.1, 0.1], atol=1e-6)
    # (0 - 0.7) / 0.1 = -7 on both sides.
    assert cohort.score(first, second) == pytest.approx(-7 / 20, abs=1e-5)
    assert cohort.score(first, first) == pytest.approx(3 / 20, abs=1e-5)


def test_both_sides_count_alike() -> None:
    left, right = CohortStatistics(0.2, 0.1), CohortStatistics(0.4, 0.05)
    assert normalised(0.6, left, right) == pytest.approx((4 + 4) / 2 / 20)
    assert normalised(0.5, left, right) == normalised(0.5, right, left)
    assert normalised(9.0, left, right) == 1


def test_equals_the_formula() -> None:
    for first, second in ((0, 1), (0, 39), (7, 7)):
        expected = plain(EMBEDDINGS[first], EMBEDDINGS[second])
        assert COHORT.score(EMBEDDINGS[first], EMBEDDINGS[second]) == pytest.approx(
            expected, abs=1e-4
        )


def test_a_cohort_smaller_than_its_best_counts_whole() -> None:
    few = Cohort(COHORT.embeddings[:5], top=10)
    scores = EMBEDDINGS @ few.embeddings.T
    np.testing.assert_allclose(few.statistics(EMBEDDINGS).means, scores.mean(axis=1), atol=1e-6)


def test_pairs_and_trials_are_scored_alike() -> None:
    statistics = COHORT.statistics(EMBEDDINGS)
    first, second = np.triu_indices(len(LABELS), 1)
    expected = [plain(EMBEDDINGS[i], EMBEDDINGS[j]) for i, j in zip(first, second, strict=True)]
    scores = score_trials(EMBEDDINGS, first, second, statistics)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    is_target = LABELS[first] == LABELS[second]
    found = score_all_pairs(EMBEDDINGS, LABELS, statistics=statistics)
    listed = histogram_of(scores, is_target)
    assert found.num_target_trials == listed.num_target_trials
    difference = np.cumsum(found.nontarget_counts) - np.cumsum(listed.nontarget_counts)
    assert np.abs(difference).max() <= 2
    calibration = Calibration(0.1, 0.2, 30.0, -5.0)
    pairs = count_pairs(EMBEDDINGS, LABELS, calibration, statistics=statistics)
    trials = count_trials(scores, is_target, calibration)
    assert np.abs(np.cumsum(pairs.target_counts) - np.cumsum(trials.target_counts)).max() <= 2
    # Lengths of embeddings don't matter.
    longer = COHORT.statistics(3 * EMBEDDINGS)
    np.testing.assert_allclose(longer.means, statistics.means, atol=1e-6)


def test_groups_of_trials_are_normalised() -> None:
    clips = [LabelledClip(str(index), int(label)) for index, label in enumerate(LABELS)]
    seconds = np.full(len(clips), 3.0)
    condition = Condition("3 s", EMBEDDINGS, seconds, COHORT.statistics(EMBEDDINGS))
    (group,) = make_groups(clips, [(condition, condition)])
    first, second = np.triu_indices(len(LABELS), 1)
    expected = [plain(EMBEDDINGS[i], EMBEDDINGS[j]) for i, j in zip(first, second, strict=True)]
    np.testing.assert_allclose(group.scores, expected, atol=1e-4)


def test_8_bits_are_enough() -> None:
    numbers = COHORT.to_bytes()
    assert numbers.dtype == np.int8 and np.abs(numbers).max() == 127
    again = Cohort.from_bytes(numbers, top=10)
    cosines = np.sum(again.embeddings * COHORT.embeddings, axis=1)
    assert cosines.min() > 0.9999
    np.testing.assert_array_equal(again.to_bytes(), numbers)


@pytest.mark.parametrize(
    "numbers",
    [np.zeros((2, 3), np.int8), np.ones((2, 3), np.int16), np.ones(3, np.int8)],
    ids=["zeros", "16 bits", "one axis"],
)
def test_refuses_other_arrays(numbers: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a cohort of shape"):
        Cohort.from_bytes(numbers)

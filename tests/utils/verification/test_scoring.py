"""All pairs and listed trials against the plain way of computing them."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.script_runs import run_here
from utils.verification import scoring
from utils.verification.scoring import (
    BINS_PER_UNIT,
    NUM_BINS,
    ScoreHistogram,
    bin_edges,
    histogram_of,
    score_all_pairs,
    score_trials,
    sweep_accuracy,
)


def clustered(num_clips: int, num_speakers: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings of any length around a centre per speaker, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_speakers, num_clips)
    centres = rng.normal(size=(num_speakers, 24))
    embeddings = centres[labels] + rng.normal(size=(num_clips, 24))
    return embeddings.astype(np.float32), labels


def plain_pairs(
    embeddings: np.ndarray, labels: np.ndarray, include_self: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores and truth of all pairs in double precision, pair by pair."""
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    first, second = np.triu_indices(len(labels), 0 if include_self else 1)
    return np.einsum("ij,ij->i", unit[first], unit[second]), labels[first] == labels[second]


def cumulative_difference(counts: np.ndarray, expected: np.ndarray) -> int:
    """Returns how many scores lie on the other side of some edge: 0 for equal histograms."""
    return int(np.abs(np.cumsum(counts) - np.cumsum(expected)).max())


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("block", [7, 64, 1000])
def test_all_pairs_equal_the_plain_way(
    include_self: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BLOCK_ROWS", block)
    embeddings, labels = clustered(150, 11)
    histogram = score_all_pairs(embeddings, labels, include_self)
    scores, is_target = plain_pairs(embeddings, labels, include_self)
    expected = histogram_of(np.clip(scores, -1, 1), is_target)
    assert histogram.num_target_trials == is_target.sum()
    assert histogram.num_nontarget_trials == (~is_target).sum()
    # Rounding may put a score that lies on an edge into the neighbouring bin.
    assert cumulative_difference(histogram.target_counts, expected.target_counts) <= 1
    assert cumulative_difference(histogram.nontarget_counts, expected.nontarget_counts) <= 2


def test_self_pairs_are_target_trials_of_score_1() -> None:
    embeddings, labels = clustered(40, 40)
    labels = np.arange(40)
    without = score_all_pairs(embeddings, labels)
    histogram = score_all_pairs(embeddings, labels, include_self=True)
    assert without.num_target_trials == 0
    assert histogram.target_counts[-1] == histogram.num_target_trials == 40
    assert np.array_equal(histogram.nontarget_counts, without.nontarget_counts)


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
def test_order_and_length_of_the_embeddings_do_not_matter(
    labels: list[int], scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Small whole numbers: products are exact, so that no score moves to another bin.
    embeddings = rng.integers(1, 4, (len(labels), 4)).astype(np.float32)
    order = rng.permutation(len(labels))
    histogram = score_all_pairs(embeddings, labels)
    other = score_all_pairs(embeddings[order] * np.float32(scale), np.array(labels)[order])
    assert cumulative_difference(histogram.target_counts, other.target_counts) <= 1
    assert histogram.num_target_trials == other.num_target_trials
    assert histogram.num_nontarget_trials == other.num_nontarget_trials


def test_labels_may_be_any_numbers() -> None:
    embeddings, labels = clustered(30, 3)
    histogram = score_all_pairs(embeddings, labels)
    renamed = score_all_pairs(embeddings, np.array([900, -5, 7])[labels])
    assert cumulative_difference(histogram.target_counts, renamed.target_counts) <= 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions(dtype: type) -> None:
    embeddings, labels = clustered(60, 5)
    rounded = embeddings.astype(dtype)
    histogram = score_all_pairs(rounded, labels)
    expected = score_all_pairs(rounded.astype(np.float32), labels)
    assert cumulative_difference(histogram.target_counts, expected.target_counts) <= 1


def test_progress_counts_every_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "BLOCK_ROWS", 64)
    done: list[int] = []
    score_all_pairs(*clustered(150, 3), progress=done.append)
    assert done == [64, 64, 22]


def test_memory_grows_with_the_clips_not_with_the_pairs() -> None:
    peaks = []
    for num_clips in (2048, 6144):
        embeddings, labels = clustered(num_clips, 100)
        tracemalloc.start()
        score_all_pairs(embeddings, labels)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 60e6
    assert peaks[1] < peaks[0] + 200 * (6144 - 2048)


def test_trials_equal_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "TRIALS_PER_BLOCK", 50)
    embeddings, labels = clustered(40, 4)
    first, second = np.triu_indices(40, 0)
    scores = score_trials(embeddings, first, second)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, plain_pairs(embeddings, labels, True)[0], atol=1e-6)
    assert scores.max() <= 1
    assert score_trials(embeddings, [], []).shape == (0,)


def test_hand_made_histogram() -> None:
    scores = np.array([-1.0, 0.79, 0.78999, 0.5, 1.0])
    histogram = histogram_of(scores, [0, 1, 0, 0, 1])
    assert scores.tolist() == [-1.0, 0.79, 0.78999, 0.5, 1.0], "the input is left alone"
    edges = bin_edges()
    assert len(edges) == NUM_BINS + 1
    assert edges[np.flatnonzero(histogram.target_counts)].tolist() == [0.79, 1.0]
    assert edges[np.flatnonzero(histogram.nontarget_counts)].tolist() == [-1.0, 0.5, 0.7899]
    assert histogram.errors_at(0.79) == (0, 0)
    assert histogram.errors_at(0.5) == (2, 0)
    assert histogram.errors_at(0.80) == (0, 1)
    assert histogram.errors_at(-2) == (3, 0)
    assert histogram.errors_at(2) == (0, 2)
    assert histogram.accuracy_at(0.79) == 1
    assert histogram.accuracy_at(0.5) == pytest.approx(3 / 5)


def test_rounding_does_not_move_a_score_under_its_edge() -> None:
    for edge in (-1.0, -0.3, 0.29, 0.57, 0.79, 1.0):
        counts = histogram_of([max(edge - 5e-7, -1), edge], [1, 1]).target_counts
        assert counts[round((edge + 1) * BINS_PER_UNIT)] == 2
    assert histogram_of([0.79 - 2e-6], [1]).errors_at(0.79) == (0, 1)


@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=1, max_size=60))
def test_errors_at_equal_the_plain_way(trials: list[tuple[float, bool]]) -> None:
    scores, labels = map(np.array, zip(*trials, strict=True))
    histogram = histogram_of(scores, labels)
    for step in range(0, 100, 7):
        threshold = step / 100
        if np.abs(scores - threshold).min() < 2 / BINS_PER_UNIT:
            continue
        expected = (
            int((~labels & (scores >= threshold)).sum()),
            int((labels & (scores < threshold)).sum()),
        )
        assert histogram.errors_at(threshold) == expected


def test_sweep_takes_the_lowest_of_the_best_thresholds() -> None:
    histogram = histogram_of([0.785, 0.9, 0.3, 0.1], [0, 1, 0, 0])
    steps: list[int] = []

    def counted() -> object:
        for step in range(100):
            steps.append(step)
            yield step

    assert sweep_accuracy(histogram, counted()) == (1.0, 0.79)
    assert steps == list(range(100))
    assert sweep_accuracy(histogram) == (1.0, 0.79)


def test_random_embeddings_reach_the_seeds_accuracy_with_self_pairs() -> None:
    """The published 0.999787 is what clips of strangers paired with themselves give."""
    embeddings = np.random.default_rng(0).normal(size=(1000, 128)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 3242, 1000)
    accuracy, _ = sweep_accuracy(score_all_pairs(embeddings, labels, include_self=True))
    assert accuracy > 0.9995


@pytest.mark.slow
def test_benchmark_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--dimensions=16", "--clips=120", "--speakers=20", "--baseline_clips=60"]
    assert run_here(root / "benchmarks" / "scoring.py", [*options, "--large_clips=200"]) == 0
    shown = capsys.readouterr().out
    assert "120 clips x 16, 7,140 pairs" in shown
    assert "1,770 pairs measured" in shown
    assert "ratio:" in shown


ONE = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (np.ones(3, np.float32), [0, 0, 0], "expected \\(num_clips, embedding_size\\)"),
        (np.ones((2, 3), np.int64), [0, 0], "of floats"),
        (ONE, [0, 0, 0], "labels have shape"),
        (ONE * np.float32([[1], [0]]), [0, 1], "embedding 1 has length 0.0"),
        (ONE * np.float32([[np.nan], [1]]), [0, 1], "embedding 0 has length nan"),
        (ONE * np.float32([[1], [np.inf]]), [0, 1], "embedding 1 has length inf"),
    ],
)
def test_useless_embeddings(embeddings: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_all_pairs(embeddings, labels)


def test_useless_trials() -> None:
    with pytest.raises(ValueError, match="rows1 and rows2"):
        score_trials(ONE, [0, 1], [0])
    with pytest.raises(ValueError, match="expected \\(num_trials,\\)"):
        histogram_of([0.1, 0.2], [1])
    for bad in (1.01, -1.01, np.nan):
        with pytest.raises(ValueError, match="outside"):
            histogram_of([bad], [1])
    with pytest.raises(ValueError, match="other values"):
        histogram_of([0.1], [2])


def test_histograms_are_plain_counts() -> None:
    counts = np.zeros(NUM_BINS, np.int64)
    counts[5] = 3
    histogram = ScoreHistogram(counts, counts)
    assert histogram.num_target_trials == histogram.num_nontarget_trials == 3

"""Thresholds on groups of trials whose rates are known, and what is said of them."""

import numpy as np
import pytest

from utils.corpus.lists import LabelledClip
from utils.errors import DataListError
from utils.verification import thresholds
from utils.verification.certainty import binomial_limits, certainty_of, miss_certainty
from utils.verification.thresholds import calibrate, leave_one_corpus_out, left_out_cllr
from utils.verification.trial_groups import Condition, TrialGroup, make_groups


def group(
    corpus: str, mean: float, seed: int, condition: str = "3 s", speech_s: float = 3.0
) -> TrialGroup:
    """Normal scores of 20 people: strangers around `mean`, one person's recordings around 0.8."""
    rng = np.random.default_rng(seed)
    pairs = np.array([(a, b) for a in range(20) for b in range(a, 20) for _ in range(100)])
    is_target = pairs[:, 0] == pairs[:, 1]
    scores = np.where(is_target, rng.normal(0.8, 0.05, len(pairs)), 0)
    scores[~is_target] = rng.normal(mean, 0.1, (~is_target).sum())
    durations = np.full((len(pairs), 2), speech_s)
    return TrialGroup(corpus, "", condition, np.clip(scores, -1, 1), is_target, pairs, durations)


GROUPS = [group("a", 0.10, 1), group("b", 0.16, 2), group("c", 0.13, 3)]


def test_the_worst_group_decides_with_a_margin() -> None:
    found = calibrate(GROUPS)
    # One-sided 5 % and 0.2 % points of the normal distribution: 1.645 and 2.878 deviations; the
    # means 0.10, 0.16, 0.13 have the standard deviation 0.03. Quantiles of 19,000 trials are
    # known to about 0.002 and 0.006.
    equal_error = 0.13 + 0.1 * (0.8 - 0.13) / 0.15  # of the mean group
    assert found.threshold == pytest.approx(equal_error, abs=0.02)
    assert found.strict_threshold >= found.threshold
    upper = thresholds.upper_score(GROUPS, 0.05)
    assert upper == pytest.approx(0.16 + 1.645 * 0.1 + 0.03, abs=0.008)
    strict = thresholds.upper_score(GROUPS, 0.002)
    assert strict == pytest.approx(0.16 + 2.878 * 0.1 + 0.03, abs=0.02)
    # One corpus alone has nothing to tell a margin from.
    assert thresholds.upper_score(GROUPS[1:2], 0.05) == pytest.approx(0.16 + 0.1645, abs=0.006)


def test_rates_are_means_over_groups_and_the_worst_is_named() -> None:
    rates = thresholds.rates_at(GROUPS, 0.26)
    # 1.6, 1.0 and 1.3 deviations above the means.
    assert rates.false_accept_rate == pytest.approx((0.0548 + 0.1587 + 0.0968) / 3, abs=0.01)
    assert rates.worst_group == "b, 3 s"
    assert rates.worst_rate == pytest.approx(0.1587, abs=0.01)
    assert rates.miss_rate == 0
    assert rates.num_trials == 3 * 19_000


def test_small_groups_get_a_normal_tail() -> None:
    few = np.array([0.1, 0.2, 0.3])
    assert thresholds._score_at_rate(few, 0.001) == pytest.approx(0.2 + 3.09 * few.std(), abs=1e-3)
    many = np.linspace(0, 1, 20_001)
    assert thresholds._score_at_rate(many, 0.001) == pytest.approx(0.999, abs=1e-4)


def test_each_corpus_is_left_out_in_turn() -> None:
    rows = leave_one_corpus_out(GROUPS)
    assert [row.group for row in rows] == ["a, 3 s", "b, 3 s", "c, 3 s"]
    assert all(row.false_accept_rate <= 0.05 and row.num_trials == 19_000 for row in rows)
    assert leave_one_corpus_out(GROUPS[:1]) == []
    for actual, least in left_out_cllr(GROUPS).values():
        assert 0 <= least <= actual < 0.05


def test_probability_learns_what_durations_say() -> None:
    # With 1 s the strangers come closer to the people themselves.
    short = [group("a", 0.4, 4, "1 s", 1.0), group("b", 0.5, 5, "1 s", 1.0)]
    found = calibrate([*GROUPS, *short])
    assert found.threshold == calibrate(GROUPS).threshold  # found on long recordings only
    assert found.probability(0.6, (1.0, 1.0)) < found.probability(0.6, (3.0, 3.0))
    scores = np.linspace(-1, 1, 21)
    for seconds in (0.5, 10.0):
        assert (np.diff(found.log_odds(scores, [(seconds, seconds)] * 21)) > 0).all()


def test_nobody_twice_is_an_error() -> None:
    strangers = GROUPS[0]
    only = ~strangers.is_target
    alone = TrialGroup(
        "a", "", "3 s", strangers.scores[only], strangers.is_target[only],
        strangers.speakers[only], strangers.speech_s[only],
    )  # fmt: skip
    with pytest.raises(DataListError, match="expected several people with several recordings"):
        calibrate([alone])


def test_groups_hold_pairs_of_one_corpus_and_sex() -> None:
    sexes = ["male"] * 6 + ["female"] * 3 + [""] * 4
    clips = [
        LabelledClip(f"{n}.wav", label, corpus, sex)
        for n, (label, corpus, sex) in enumerate(
            (label, corpus, sex)
            for corpus in ("x", "y")
            for label, sex in enumerate(sexes, start=100 * (corpus == "y"))
            for _ in range(2)
        )
    ]
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(len(clips), 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings[0] = np.nan
    long = Condition("full length", embeddings, np.full(len(clips), 5.0))
    short = Condition("1 s", np.roll(embeddings, 1, axis=1), np.full(len(clips), 1.0))
    groups = make_groups(clips, [(long, long), (long, short)])
    # Three women and four undeclared people are too few each: joined, but not paired.
    assert {(g.corpus, g.people) for g in groups[:4]} == {
        (corpus, people) for corpus in "xy" for people in ("male", "undeclared and female")
    }
    by_name = {g.name: g for g in groups}
    assert len(by_name["y, male, full length"].scores) == 12 * 11 // 2
    assert len(by_name["x, male, full length"].scores) == 11 * 10 // 2  # one can't be used
    joined = by_name["y, undeclared and female, full length"]
    assert len(joined.scores) == 8 * 7 // 2 + 6 * 5 // 2
    assert joined.is_target.sum() == 7
    crossed = by_name["y, male, full length against 1 s"]
    assert np.allclose(np.sort(crossed.speech_s, axis=1), [1.0, 5.0])
    pair = by_name["y, male, full length"]
    rows = [n for n, clip in enumerate(clips) if (clip.corpus, clip.sex) == ("y", "male")]
    assert pair.scores[0] == pytest.approx(float(embeddings[rows[0]] @ embeddings[rows[1]]))


def test_limits_of_a_rate() -> None:
    # Without errors: 1 - 0.05 ** (1 / n); 3 of 10: from tables of Clopper and Pearson.
    assert binomial_limits(0, 45) == (0, pytest.approx(1 - 0.05 ** (1 / 45)))
    assert binomial_limits(3, 10) == (
        pytest.approx(0.0873, abs=1e-4),
        pytest.approx(0.6066, abs=1e-4),
    )
    assert binomial_limits(10, 10)[1] == 1


def test_ten_people_are_too_few() -> None:
    ten = group("a", 0.1, 1)
    some = (ten.speakers < 10).all(axis=1)
    few = TrialGroup(
        "a", "", "3 s", ten.scores[some], ten.is_target[some], ten.speakers[some],
        ten.speech_s[some],
    )  # fmt: skip
    certainty = certainty_of([few], 0.9)
    assert certainty.sentence() == (
        "10 people (45 pairs of them) are too few to promise 0.1 % false accepts: at most 6.4 % "
        "with 95% confidence"
    )
    # One person whom everybody is taken for says less than as many errors everywhere.
    scores = few.scores.copy()
    scores[(few.speakers == 0).any(axis=1)] = 1.0
    one = TrialGroup(
        "a", "", "3 s", scores, few.is_target, few.speakers, few.speech_s,
    )  # fmt: skip
    found = certainty_of([one], 0.9)
    assert found.rate == pytest.approx(9 / 45)
    assert found.upper_limit > binomial_limits(9, 45)[1]
    # Each person counts once: all recordings of one of ten are missed.
    scores = np.where((few.speakers == 0).all(axis=1), 0.0, few.scores)
    missed = TrialGroup("a", "", "3 s", scores, few.is_target, few.speakers, few.speech_s)
    rate, low, high = miss_certainty([missed], 0.3)
    assert (rate, low, high) == (pytest.approx(0.1), *binomial_limits(1, 10))

"""Error rates of diarizations on cases worked out by hand, and what must not change them."""

import random

import pytest

from utils.diarization.error_rates import measure_errors, total
from utils.diarization.turns import Turn

REFERENCE = [Turn(0, 10, "a"), Turn(10, 20, "b"), Turn(18, 22, "a")]


def test_the_truth_has_no_errors() -> None:
    rates = measure_errors(REFERENCE, REFERENCE)
    assert (rates.der, rates.jer, rates.count_errors) == (0, 0, (0,))
    assert rates.speech_s == pytest.approx(24)


def test_each_kind_of_error() -> None:
    # a: 0-10 and 18-22; b: 10-20. Found: x for a until 12 (2 s confused), y for b from 12 to 18 and
    # alone until 20 (2 s of overlap missed), x again 20-23 (1 s false alarm).
    found = [Turn(0, 12, "x"), Turn(12, 20, "y"), Turn(20, 23, "x")]
    rates = measure_errors(REFERENCE, found)
    assert rates.missed_s == pytest.approx(2)
    assert rates.false_alarm_s == pytest.approx(1)
    assert rates.confusion_s == pytest.approx(2)
    assert rates.der == pytest.approx(5 / 24)
    # Together 12 s of a and x, either 17 s; together 8 s of b and y, either 10 s.
    assert rates.jaccard_errors == pytest.approx((1 - 12 / 17, 1 - 8 / 10))


def test_nothing_found_and_one_speaker_found() -> None:
    assert measure_errors(REFERENCE, []).der == 1
    assert measure_errors(REFERENCE, []).count_errors == (-2,)
    assert measure_errors([], [Turn(0, 1, "x")]).der == 1
    assert measure_errors([], []).der == 0
    everything = measure_errors(REFERENCE, [Turn(0, 22, "x")])
    assert everything.confusion_s == pytest.approx(8)
    assert everything.missed_s == pytest.approx(2)


def test_collar_leaves_out_the_borders_of_the_reference() -> None:
    late = [Turn(0.2, 10.2, "a"), Turn(10.2, 20.2, "b"), Turn(18.2, 22.2, "a")]
    assert measure_errors(REFERENCE, late).der == pytest.approx(1 / 24)
    rates = measure_errors(REFERENCE, late, collar_s=0.25)
    assert rates.der == pytest.approx(0)
    # Borders at 0, 10, 18, 20 and 22, each less its collar; two speak between 18 and 20.
    assert rates.speech_s == pytest.approx(24 - 0.25 - 0.5 - 0.75 - 0.75 - 0.25)


def test_names_order_and_cuts_change_nothing() -> None:
    random_source = random.Random(1)
    for _ in range(20):
        reference, found = (
            [
                Turn(
                    start := random_source.uniform(0, 50), start + random_source.uniform(1, 9), name
                )
                for name in random_source.choices("abcd", k=12)
            ]
            for _ in range(2)
        )
        rates = measure_errors(reference, found)
        renamed = [Turn(t.start_s, t.end_s, f"speaker {t.speaker}") for t in found[::-1]]
        cut = [
            Turn(*times, t.speaker)
            for t in reference
            for middle in [(t.start_s + t.end_s) / 2]
            for times in ((t.start_s, middle), (middle, t.end_s))
        ]
        again = measure_errors(cut, renamed)
        assert again.der == pytest.approx(rates.der)
        assert again.jer == pytest.approx(rates.jer)
        assert rates.missed_s + rates.confusion_s <= rates.speech_s + 1e-9


def test_recordings_add_up() -> None:
    rates = total([measure_errors(REFERENCE, REFERENCE), measure_errors(REFERENCE, [])])
    assert rates.der == pytest.approx(0.5)
    assert rates.jer == pytest.approx(0.5)
    assert rates.right_counts == 1
    assert total([]).der == 0

"""A few people raise thresholds, many lower them, and the file of them is read again."""

import json
from pathlib import Path

import numpy as np
import pytest

from utils.errors import ModelError
from utils.verification.calibration import Calibration
from utils.verification.calibration_file import CalibrationFile
from utils.verification.certainty import certainty_of, rate_curve
from utils.verification.proposal import propose
from utils.verification.trial_groups import TrialGroup

IN_USE = Calibration(0.42, 0.55, 12.0, -5.0, 1.0, 0.5)


def people(num_people: int, strangers: float, own: float = 0.6) -> list[TrialGroup]:
    """Everybody twice: strangers score around `strangers`, one person's recordings around `own`."""
    rng = np.random.default_rng(num_people)
    labels = np.repeat(np.arange(num_people), 2)
    first, second = np.triu_indices(len(labels), 1)
    is_target = labels[first] == labels[second]
    scores = np.clip(rng.normal(np.where(is_target, own, strangers), 0.05), -1, 1)
    speakers = np.stack([labels[first], labels[second]], axis=1)
    return [
        TrialGroup("", "", name, scores, is_target, speakers, np.full(speakers.shape, 3.0))
        for name in ("full length", "3 s")
    ]


def test_few_people_never_lower_a_threshold() -> None:
    found = propose(people(5, 0.0), IN_USE)
    assert found.strict.found < IN_USE.strict_threshold
    assert found.default.found < IN_USE.threshold
    proposed = found.calibration
    assert (proposed.threshold, proposed.strict_threshold) == (0.42, 0.55)
    assert not found.default.is_promised and not found.strict.is_promised
    # Nor do they change what a score means.
    assert (proposed.slope, proposed.offset, proposed.slope_by_speech) == (12.0, -5.0, 1.0)
    assert proposed.rates is not None and proposed.rates.false_accept_rate == 0


def test_few_people_raise_a_threshold_that_strangers_reach() -> None:
    found = propose(people(5, 0.6, own=0.9), IN_USE)
    for one in (found.default, found.strict):
        # Half-way to the own voices is not needed.
        assert one.in_use < 0.6 < one.proposed <= one.found
    # 1.645 and 2.878 deviations above the mean of the strangers.
    assert found.calibration.threshold == pytest.approx(0.6 + 1.645 * 0.05, abs=0.03)
    assert found.calibration.strict_threshold == pytest.approx(0.6 + 2.878 * 0.05, abs=0.04)


def test_a_wide_gap_between_strangers_and_own_voices_raises_nothing() -> None:
    found = propose(people(5, 0.0, own=0.95), IN_USE)
    assert found.default.found > 0.45 > IN_USE.threshold
    assert found.calibration.threshold == IN_USE.threshold


def test_many_people_lower_thresholds_as_far_as_they_promise_the_rate() -> None:
    groups = people(60, 0.0)
    found = propose(groups, IN_USE)
    for one, lowered in ((found.default, 0.42), (found.strict, 0.55)):
        assert one.found <= one.proposed < lowered
        assert one.is_promised
        assert certainty_of(groups, one.proposed).upper_limit <= one.promised
    assert found.calibration.slope != IN_USE.slope


def test_twelve_people_promise_the_default_rate_only() -> None:
    found = propose(people(12, 0.0), IN_USE)
    assert found.default.is_promised and found.default.proposed < IN_USE.threshold
    assert not found.strict.is_promised and found.strict.proposed == IN_USE.strict_threshold


def test_the_curve_has_the_rates_of_each_threshold() -> None:
    groups = people(12, 0.3)
    curve = rate_curve(groups, 0.9, -0.5)
    assert (curve.thresholds[0], curve.thresholds[-1]) == (-0.5, max(0.9, groups[0].scores.max()))
    assert curve.false_accepts[0].tolist() == [1, pytest.approx(0.05 ** (1 / 66)), 1]
    assert curve.false_accepts[-1, 0] == 0
    assert curve.misses[0, 0] == 0 and curve.misses[-1, 0] > 0.9
    middle = len(curve.thresholds) // 2
    one = certainty_of(groups, float(curve.thresholds[middle]))
    assert curve.false_accepts[middle].tolist() == [one.rate, one.lower_limit, one.upper_limit]
    assert curve.lowest_promising(0.01) is None, "66 pairs are too few"
    lowest = curve.lowest_promising(0.05)
    assert lowest is not None and certainty_of(groups, lowest).upper_limit <= 0.05


def test_a_file_of_thresholds_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    saved = CalibrationFile("abc", "none", IN_USE.to_dict())
    path.write_text(json.dumps(saved.to_dict()), encoding="utf-8")
    assert CalibrationFile.read(path) == saved
    for content in ("", "[]", "{}", json.dumps(saved.to_dict() | {"entries": {"threshold": 1}})):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ModelError, match=r"no calibration that the web page saved .*save it"):
            CalibrationFile.read(path)
    path.write_text(json.dumps(saved.to_dict() | {"score_norm": "x"}), encoding="utf-8")
    with pytest.raises(ModelError, match="for the score norm 'x', expected one of none, asnorm"):
        CalibrationFile.read(path)
    with pytest.raises(ModelError, match="No such file"):
        CalibrationFile.read(tmp_path / "missing.json")

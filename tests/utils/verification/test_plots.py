"""The pictures: written as PNG, whatever the scores, and with what they shall show."""

import struct
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from utils.verification import plots
from utils.verification.calibration import Calibration
from utils.verification.certainty import Certainty
from utils.verification.metrics import ErrorCurve
from utils.verification.plots import Mark, format_rate, plot_det, plot_scores, plot_thresholds
from utils.verification.scoring import ScoreHistogram, histogram_of
from utils.verification.trial_groups import TrialGroup

MARKS = [Mark("EER threshold", 0.3, 0.02, 0.02), Mark("Model's threshold", 0.42, 0.0, 0.1)]


def overlapping(seed: int = 0) -> ScoreHistogram:
    rng = np.random.default_rng(seed)
    scores = np.r_[rng.normal(0.5, 0.1, 300), rng.normal(0.1, 0.1, 5000)]
    return histogram_of(np.clip(scores, -1, 1), np.r_[np.ones(300), np.zeros(5000)])


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collects the figures that are saved."""
    saved: list[Figure] = []
    save = plots._save

    def collect(figure: Figure, path: Path) -> None:
        saved.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", collect)
    return saved


def size_of_png(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_det_curve(tmp_path: Path, figures: list[Figure]) -> None:
    curve = ErrorCurve.from_histogram(overlapping())
    plot_det(curve, tmp_path / "det.png", "EER 2 %", MARKS)
    assert size_of_png(tmp_path / "det.png") == (960, 960)
    (axes,) = figures[0].axes
    assert axes.get_xlim() == axes.get_ylim()
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == [
        "EER threshold 0.3000: 2 % false accepts, 2 % misses",
        "Model's threshold 0.4200: 0 % false accepts, 10 % misses",
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()][:3] == ["0.01 %", "0.1 %", "1 %"]
    # The axes are normal deviates: 50 % lies at 0, and 2.275 % at -2.
    assert plots._probit(np.array([0.5, 0.02275])) == pytest.approx([0, -2], abs=1e-4)


def test_score_histograms(tmp_path: Path, figures: list[Figure]) -> None:
    plot_scores(overlapping(), tmp_path / "scores.png", "EER 2 %", MARKS)
    assert size_of_png(tmp_path / "scores.png") == (1200, 750)
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == [
        "5,000 non-target trials (different speakers)",
        "300 target trials (same speaker)",
        "EER threshold 0.3000",
        "Model's threshold 0.4200",
    ]
    (axes,) = figures[0].axes
    low, high = axes.get_xlim()
    assert low < 0 < 0.42 < high
    outlines = [patch for patch in axes.patches if not patch.get_fill()]
    for outline in outlines:
        assert outline.get_data().values.sum() == pytest.approx(1), "shares of one class"


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ([0.9, 0.1], [1, 0]),  # without an error
        ([0.1, 0.9], [1, 0]),  # every answer wrong
        ([0.5, 0.5], [1, 0]),  # all alike
        ([-1.0, 1.0], [0, 1]),  # both ends of the scale
    ],
)
def test_extreme_scores(scores: list[float], labels: list[int], tmp_path: Path) -> None:
    histogram = histogram_of(scores, labels)
    plot_det(ErrorCurve.from_histogram(histogram), tmp_path / "det.png", "", [])
    plot_scores(histogram, tmp_path / "scores.png", "", [Mark("above all", 1.2, 0, 1)])
    assert size_of_png(tmp_path / "det.png")[0] == 960
    assert size_of_png(tmp_path / "scores.png")[0] == 1200


def test_headline_in_chinese_warns_of_no_font(tmp_path: Path) -> None:
    plot_scores(overlapping(), tmp_path / "scores.png", "模型/声纹.keras", MARKS)
    assert (tmp_path / "scores.png").exists()


def test_an_old_picture_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "det.png"
    path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_det(ErrorCurve.from_histogram(overlapping()), path, "", [])
    assert [file.name for file in tmp_path.iterdir()] == ["det.png"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.99996, "100 %"),
        (0.456, "45.6 %"),
        (0.2, "20 %"),
        (0.0321, "3.21 %"),
        (0.001, "0.1 %"),
        (0.00012345, "0.012 %"),
        (1e-5, "0.001 %"),
    ],
)
def test_format_rate(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize("num_people", [20, 46, 1000])
def test_headline_of_the_thresholds_fits(
    num_people: int, tmp_path: Path, figures: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    people = np.array([[a, b] for a in range(20) for b in range(a, 20)])
    is_target = people[:, 0] == people[:, 1]
    scores = np.clip(rng.normal(np.where(is_target, 0.6, 0.1), 0.1), -1, 1)
    group = TrialGroup("voices", "", "3 s", scores, is_target, people, np.full(people.shape, 3.0))
    certainty = Certainty(0.0023, 0.001, 0.0045, num_people, num_people * (num_people - 1) // 2)
    monkeypatch.setattr(plots, "certainty_of", lambda *_: certainty)
    plot_thresholds([group], Calibration(0.4, 0.5, 20.0, -8.0), tmp_path / "thresholds.png")
    (axes,) = figures[0].axes
    headline = axes.get_title(loc="left")
    lines = headline.splitlines()
    assert len(lines) == 2
    assert " ".join(lines) == f"At the strict threshold: {certainty.sentence()}"
    # Letters of common fonts are in the mean less wide than 0.6 of their size, here 11 points.
    width_inches = max(map(len, lines)) * 0.6 * 11 / 72
    assert width_inches < figures[0].get_size_inches()[0] - 0.6

"""Pictures of an evaluation: the DET curve and the distribution of the scores, as PNG files.

matplotlib is imported inside the functions: it takes half a second, which `--help` shall not.
Figures are drawn without `pyplot`, so no display is needed and no state is left behind.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from utils.files import atomic_path
from utils.verification.calibration import Calibration
from utils.verification.certainty import CONFIDENCE, certainty_of, rate_curve
from utils.verification.metrics import ErrorCurve
from utils.verification.scoring import BINS_PER_UNIT, ScoreHistogram, bin_edges
from utils.verification.trial_groups import TrialGroup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TARGET_COLOUR, NONTARGET_COLOUR = "#0072B2", "#D55E00"
"""Blue and vermilion of the Okabe-Ito palette, told apart with any kind of colour vision."""

MARKERS = "osD^v"
LINE_STYLES = ("-", "--", ":", "-.", (0, (1, 4)))
"""Symbols on the DET curve and lines among the scores for the marked thresholds, in order."""

RATE_TICKS = (1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Error rates that the axes of the DET curve may name; it is drawn from 0.01 % to 95 % at most."""

MAX_LOWEST_RATE = 0.01
"""The axes of the DET curve begin at 1 % or below, however few trials there are."""

BAR_WIDTH = 0.01
"""Width of the bars of the score histograms, on the scale of the score."""

PERCENT_FLOOR = 0.01
"""Lowest rate in % that they show."""

RELIABILITY_BINS = 10
"""Ranges of claimed probability in which the truth is counted."""

TITLE_WIDTH = 78
"""Characters in a line of a headline that is a sentence; as many fit over the axes."""

DPI = 150
"""Dots per inch of the PNG files."""


class Mark(NamedTuple):
    """A threshold to mark in a picture, with the error rates that it leads to."""

    name: str
    threshold: float
    false_accept_rate: float
    miss_rate: float


def plot_det(curve: ErrorCurve, path: str | Path, title: str, marks: Sequence[Mark]) -> None:
    """Draws misses against false accepts on normal-deviate axes, where good models are straight.

    Source: Martin et al., The DET curve in assessment of detection task performance, 1997.
    """
    figure, axes = _new_figure((6.4, 6.4), title)
    # A rate of 0 lies infinitely far away: the axes end below the smallest rate of one error, and
    # what is smaller runs along the edge.
    num_trials = max(int(curve.false_accepts[0]), int(curve.misses[-1]))
    low = max((rate for rate in RATE_TICKS if rate <= 1 / num_trials), default=RATE_TICKS[0])
    low = min(low, MAX_LOWEST_RATE)
    # A model close to chance or worse gets axes that show it.
    high = 0.6 if curve.equal_error_rate()[0] < 0.4 else RATE_TICKS[-1]
    axes.plot([0, 1], [0, 1], ":", color="0.7", linewidth=1, zorder=1, transform=axes.transAxes)
    axes.plot(
        _probit(np.clip(curve.false_accept_rates, low, RATE_TICKS[-1])),
        _probit(np.clip(curve.miss_rates, low, RATE_TICKS[-1])),
        color=TARGET_COLOUR,
        linewidth=2,
        solid_joinstyle="round",
        zorder=2.7,  # above the axes, along which an errorless curve runs
    )
    for marker, mark in zip(MARKERS, marks, strict=False):
        rates = np.clip([mark.false_accept_rate, mark.miss_rate], low, high)
        axes.plot(
            *_probit(rates)[:, None],
            marker,
            markersize=9,
            markerfacecolor="white",
            markeredgecolor="black",
            clip_on=False,
            zorder=3,
            label=(
                f"{mark.name} {mark.threshold:.4f}: "
                f"{format_rate(mark.false_accept_rate)} false accepts, "
                f"{format_rate(mark.miss_rate)} misses"
            ),
        )
    ticks = [rate for rate in RATE_TICKS if low <= rate <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(_probit(np.array(ticks)), [format_rate(rate) for rate in ticks])
    axes.set_xlim(*_probit(np.array([low, high])))
    axes.set_ylim(*_probit(np.array([low, high])))
    axes.set_xlabel("False accepts (share of non-target trials)")
    axes.set_ylabel("Misses (share of target trials)")
    axes.tick_params(labelsize=9)
    if marks:
        # Under the picture: wherever inside, it could hide the curve.
        figure.legend(loc="outside lower center", fontsize=8.5, frameon=False)
    _save(figure, path)


def plot_scores(
    histogram: ScoreHistogram, path: str | Path, title: str, marks: Sequence[Mark]
) -> None:
    """Draws how the scores of target and of non-target trials are distributed."""
    figure, axes = _new_figure((8.0, 5.0), title)
    width = round(BAR_WIDTH * BINS_PER_UNIT)
    edges = np.r_[bin_edges()[:-1:width], 1 + BAR_WIDTH]
    starts = np.arange(0, len(histogram.target_counts), width)
    filled = np.zeros(len(starts), np.bool_)
    classes = (
        ("non-target trials (different speakers)", histogram.nontarget_counts, NONTARGET_COLOUR),
        ("target trials (same speaker)", histogram.target_counts, TARGET_COLOUR),
    )
    peak = 0.0
    for name, counts, colour in classes:
        num_trials = int(counts.sum())
        shares = np.add.reduceat(counts, starts) / max(num_trials, 1)
        filled |= shares > 0
        peak = max(peak, float(shares.max()))
        label = f"{num_trials:,} {name}"
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(shares, edges, color=colour, linewidth=1.5, label=label)
    used = np.flatnonzero(filled)
    low, high = edges[used[0]], edges[used[-1] + 1]
    for style, mark in zip(LINE_STYLES, marks, strict=False):
        low, high = min(low, mark.threshold), max(high, mark.threshold)
        label = f"{mark.name} {mark.threshold:.4f}"
        axes.axvline(mark.threshold, color="black", linewidth=1.4, linestyle=style, label=label)
    margin = 0.03 * (high - low)
    axes.set_xlim(max(low - margin, -1.02), min(high + margin, 1.02))
    axes.set_ylim(0, peak * 1.08)
    axes.set_xlabel("Score (cosine of the two embeddings)")
    axes.set_ylabel(f"Share of the class's trials per {BAR_WIDTH} of score")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    axes.yaxis.set_major_formatter(lambda share, _: format_rate(share))
    _save(figure, path)


def plot_thresholds(
    groups: Sequence[TrialGroup], calibration: Calibration, path: str | Path
) -> None:
    """Draws false accepts and misses against the threshold, with what few people leave open."""
    marked = (calibration.threshold, calibration.strict_threshold)
    sentence = certainty_of(groups, calibration.strict_threshold).sentence()
    title = textwrap.fill(f"At the strict threshold: {sentence}", TITLE_WIDTH)
    figure, axes = _new_figure((8.0, 4.8), title)
    curve = rate_curve(groups, *marked)
    thresholds = curve.thresholds
    for name, rows, colour in (
        ("strangers accepted", curve.false_accepts, NONTARGET_COLOUR),
        ("right speakers refused", curve.misses, TARGET_COLOUR),
    ):
        rate, lower, upper = np.maximum(100 * rows.T, PERCENT_FLOOR)
        axes.plot(thresholds, rate, color=colour, linewidth=2, label=name)
        axes.fill_between(thresholds, lower, upper, color=colour, alpha=0.2, linewidth=0)
    for threshold, style, name in zip(marked, ("-", "--"), ("threshold", "strict"), strict=True):
        label = f"{name} {threshold:.4f}"
        axes.axvline(threshold, color="black", linestyle=style, linewidth=1, label=label)
    axes.set_yscale("log")
    axes.set_ylim(PERCENT_FLOOR, 100)
    axes.set_xlim(thresholds[0], thresholds[-1])
    axes.set_xlabel("Threshold on the score")
    axes.set_ylabel(f"Rate in % (bands: limits with {CONFIDENCE:.0%} confidence)")
    figure.legend(loc="outside lower center", fontsize=8.5, frameon=False, ncols=4)
    _save(figure, path)


def plot_reliability(
    target_counts: npt.NDArray[Any],
    nontarget_counts: npt.NDArray[Any],
    log_odds: npt.NDArray[np.float64],
    path: str | Path,
    title: str,
) -> None:
    """Draws how often the answer was "same person" among trials that claim a probability.

    Both classes weigh alike, as the probability supposes. On the diagonal every claim is true.

    Args:
        target_counts: Trials of one speaker at each log-odds. Shape `(n,)`.
        nontarget_counts: Trials of two speakers. Shape `(n,)`.
        log_odds: Natural log-odds of "same person", ascending. Shape `(n,)`.
        path: The PNG file to write, replaced in one step.
        title: Headline of the picture.
    """
    figure, axes = _new_figure((5.6, 5.6), title)
    claimed = 0.5 * (1 + np.tanh(log_odds / 2))
    targets = target_counts / target_counts.sum()
    nontargets = nontarget_counts / nontarget_counts.sum()
    bins = np.minimum((claimed * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    weights = np.bincount(bins, targets + nontargets, RELIABILITY_BINS)
    used = weights > 0
    means = np.bincount(bins, (targets + nontargets) * claimed, RELIABILITY_BINS)[used]
    right = np.bincount(bins, targets, RELIABILITY_BINS)[used]
    axes.plot([0, 100], [0, 100], ":", color="0.5", linewidth=1, label="true to its word")
    axes.plot(
        100 * means / weights[used],
        100 * right / weights[used],
        "o-",
        color=TARGET_COLOUR,
        label="this model",
    )
    axes.bar(
        100 * means / weights[used],
        100 * weights[used] / weights.sum(),
        width=2,
        color="0.75",
        label="share of the trials",
    )
    axes.set_xlim(-2, 102)
    axes.set_ylim(0, 102)
    axes.set_xlabel("Probability of one person that the model claims, in %")
    axes.set_ylabel("Trials that are of one person, in %")
    figure.legend(loc="outside lower center", fontsize=8.5, frameon=False, ncols=3)
    _save(figure, path)


def format_rate(rate: float) -> str:
    """Writes a fraction as percent with two or three digits that count: 0.12 %, 3.21 %, 45.6 %."""
    percent = 100 * float(rate)
    if percent == 0 or percent >= 99.95:
        return f"{percent:.0f} %"
    digits = 1 if percent >= 10 else 2
    while digits < 4 and percent < 10 ** (1 - digits):
        digits += 1
    text = f"{percent:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.')} %"


def _probit(rates: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns the normal deviate of each rate in (0, 1), same shape."""
    inverse = NormalDist().inv_cdf
    return np.array([inverse(float(rate)) for rate in rates])


def _new_figure(size_inches: tuple[float, float], title: str) -> tuple[Figure, Any]:
    """Returns an empty figure and its axes, with a headline and a light grid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: str | Path) -> None:
    """Writes the figure as PNG in one step."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # A Chinese path in the headline, and no installed font with its characters.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(temporary, format="png", dpi=DPI)

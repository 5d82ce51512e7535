"""A picture of who spoke when: a row a speaker, a bar a turn, as a PNG file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from utils.diarization.turns import Turn, speaking_seconds
from utils.errors import VoiceprintError
from utils.files import atomic_path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A500", "#555555")
"""The Okabe-Ito palette, told apart with any kind of colour vision; its yellow darker, to be seen
on white. More speakers take the colours again, in other rows."""

FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Zen Hei",
    "Microsoft YaHei", "PingFang SC", "SimHei", "Arial Unicode MS",
)  # fmt: skip
"""Fonts to look for, some of them with Chinese characters; those that are installed are used."""

WIDTH_INCHES = 12.0
ROW_INCHES = 0.5
EDGES_INCHES = 1.3
"""Headline and time axis together."""

DPI = 150
"""Dots per inch of the PNG file."""


def plot_timeline(turns: Sequence[Turn], duration_s: float, path: str | Path, title: str) -> None:
    """Draws the turns over time.

    Args:
        turns: In order of time.
        duration_s: Length of the recording in seconds.
        path: The PNG file to write, replaced in one step.
        title: Headline of the picture.

    Raises:
        VoiceprintError: If matplotlib is not installed, or the file's suffix is no picture's.
    """
    try:
        from matplotlib import font_manager, rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, MaxNLocator
    except ImportError as error:
        raise VoiceprintError(
            "--plot needs the package matplotlib; pip install matplotlib"
        ) from error
    seconds = speaking_seconds(turns)
    installed = set(font_manager.get_font_names())
    fonts = [name for name in FONTS if name in installed] or ["sans-serif"]
    height = EDGES_INCHES + ROW_INCHES * max(len(seconds), 1)
    with rc_context({"font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a box is drawn then
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for row, name in enumerate(seconds):
            bars = [(t.start_s, t.duration_s) for t in turns if t.speaker == name]
            axes.broken_barh(bars, (row - 0.38, 0.76), color=COLOURS[row % len(COLOURS)])
        axes.set_ylim(max(len(seconds), 1) - 0.5, -0.5)
        axes.set_xlim(0, duration_s)
        axes.set_yticks(range(len(seconds)), list(seconds))
        shares = axes.secondary_yaxis("right")
        whole = sum(seconds.values())
        shares.set_yticks(
            range(len(seconds)), [f"{s:.1f} s  {100 * s / whole:.0f} %" for s in seconds.values()]
        )
        axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 3, 5, 6, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock_time(value)))
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        for part in (axes, shares):
            part.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        shares.spines["right"].set_visible(False)
        axes.set_title(title, loc="left")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png")


def clock_time(seconds: float) -> str:
    """Returns minutes and seconds, hours before them where there are any."""
    whole = max(round(seconds), 0)
    hours, rest = divmod(whole, 3600)
    text = f"{rest // 60}:{rest % 60:02}"
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else text

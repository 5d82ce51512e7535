"""What an evaluation tells: lines for people, and a folder with figures and plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import VoiceprintError
from utils.files import write_text_atomically
from utils.messages import translate
from utils.verification.calibration import (
    STRICT_FALSE_ACCEPT_RATE,
    ThresholdRates,
)
from utils.verification.evaluation import Clips
from utils.verification.log_odds import LogOddsHistogram
from utils.verification.metrics import ErrorCurve
from utils.verification.plots import Mark, format_rate, plot_det, plot_reliability, plot_scores
from utils.verification.scoring import (
    ScoreHistogram,
)

NUM_NAMED_DEFECTS = 5
"""Clips left out that are named on stderr; all of them are in report.json."""


def name_defects(clips: Clips) -> None:
    """Says on stderr how many clips were left out, and names the first of them with the reason."""
    tell_defects(clips.defects, len(clips.rows) + len(clips.defects))


def tell_defects(defects: Mapping[str, str], num_clips: int) -> None:
    """Says on stderr how many of some clips can't be used, and names the first with the reason."""
    if not defects:
        return
    print(translate(f"left out {len(defects)} of {num_clips} clips:"), file=sys.stderr)
    for path, reason in list(defects.items())[:NUM_NAMED_DEFECTS]:
        line = translate(reason)
        print(f"  {line}" if path in line else f"  {path}: {line}", file=sys.stderr)
    if len(defects) > NUM_NAMED_DEFECTS:
        rest = f"  ... and {len(defects) - NUM_NAMED_DEFECTS} more"
        print(translate(rest), file=sys.stderr)


def describe_groups(groups: Mapping[str, dict[str, Any]]) -> list[str]:
    """Returns a line for each group: EER, and the errors at the model's thresholds."""
    lines = []
    for name, rates in groups.items():
        parts = [translate(f"EER {format_rate(rates['eer'])}")]
        for key, title in (("model_threshold", "threshold"), ("model_strict_threshold", "strict")):
            if key in rates:
                accepts, misses = (rates[key][n] for n in ("false_accept_rate", "miss_rate"))
                part = f"{title} {format_rate(accepts)} false accepts, {format_rate(misses)} misses"
                parts.append(translate(part))
        lines.append(f"Group {name}: {'; '.join(parts)}")
    return lines


def describe(report: dict[str, Any]) -> list[str]:
    """Returns the lines that eval.py prints after those of the baseline."""
    strict = report["strict_point"]
    lines = [
        f"EER: {100 * report['eer']:.3f} % at threshold {report['eer_threshold']:.4f}",
        f"minDCF: {report['min_dcf']:.4f} at threshold {report['min_dcf_threshold']:.4f} "
        f"(p_target {report['p_target']:g}, c_miss {report['c_miss']:g}, c_fa {report['c_fa']:g})",
        f"Misses at {format_rate(STRICT_FALSE_ACCEPT_RATE)} false accepts: "
        f"{format_rate(strict['miss_rate'])} at threshold {strict['threshold']:.4f}",
        f'Accuracy of always answering "different": {report["always_different_accuracy"]:.6f}',
        f"Speakers: {_or_unknown(report['num_speakers'])}, clips: {report['num_clips']:,}, "
        f"target trials: {report['num_target_trials']:,}, "
        f"non-target trials: {report['num_nontarget_trials']:,}",
    ]
    for mark in model_marks(report):
        lines.append(
            f"{mark.name} {mark.threshold:.4f}: {format_rate(mark.false_accept_rate)} false "
            f"accepts, {format_rate(mark.miss_rate)} misses"
        )
    for name, key in (("threshold", "rates"), ("strict threshold", "strict_rates")):
        if key in report.get("promised", {}):
            rates = ThresholdRates(**report["promised"][key])
            lines.append(f"Where the model's {name} was found: {rates}")
    if "cllr" in report:
        lines.append(
            f"Cllr: {report['cllr']:.4f}, min Cllr: {report['min_cllr']:.4f}, "
            f"actual DCF: {report['actual_dcf']:.4f}"
        )
    return [*lines, *describe_groups(report.get("groups", {}))]


def model_marks(report: dict[str, Any]) -> list[Mark]:
    """Returns the thresholds stored with the model, if any, and what they lead to on this list."""
    names = {
        "model_threshold": "Model's threshold",
        "model_strict_threshold": "Model's strict threshold",
    }
    return [Mark(name, **report[key]) for key, name in names.items() if key in report]


def make_folder(folder: str | Path) -> None:
    """Makes a folder for a report, so that a wrong name is told before the work, not after.

    Raises:
        VoiceprintError: If the folder can't be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VoiceprintError(f"{folder}: can't be made a folder ({error.strerror})") from error


def write_report(
    folder: str | Path,
    report: dict[str, Any],
    histogram: ScoreHistogram,
    log_odds: LogOddsHistogram | None = None,
) -> list[Path]:
    """Writes report.json, det.png, scores.png, and reliability.png if the model is calibrated.

    Returns:
        The files written.
    """
    paths = [Path(folder) / name for name in ("report.json", "det.png", "scores.png")]
    text = json.dumps(report, indent=2, ensure_ascii=False)
    write_text_atomically(paths[0], text + "\n")
    eer = report["eer"]
    marks = [Mark("EER threshold", report["eer_threshold"], eer, eer), *model_marks(report)]
    subject = f"{report['model']} on {report['list']}"
    headline = f"EER {format_rate(eer)}, minDCF {report['min_dcf']:.3f}\n{subject}"
    plot_det(ErrorCurve.from_histogram(histogram), paths[1], headline, marks)
    plot_scores(histogram, paths[2], headline, marks)
    if log_odds is not None:
        paths.append(Path(folder) / "reliability.png")
        headline = f"Cllr {report['cllr']:.3f}, min Cllr {report['min_cllr']:.3f}\n{subject}"
        plot_reliability(
            log_odds.target_counts, log_odds.nontarget_counts, log_odds.values, paths[3], headline
        )
    return paths


def _or_unknown(count: int | None) -> str:
    """Writes a count; a list of trials doesn't say how many speakers there are."""
    return "unknown" if count is None else f"{count:,}"

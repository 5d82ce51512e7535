r"""Measures the scoring of all pairs and the sweep over 100 thresholds, against plain Python loops.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --baseline_clips 5332    # the loops in full: minutes and 1 GB
    python benchmarks/scoring.py --large_clips 100000     # 5 billion pairs: minutes

5,332 clips of 3,242 speakers as in zhvoice's test list, 512 dimensions, clustered by speaker. The
loops score one pair at a time into a list, then compare the whole array with the labels for each
threshold. By default they run on the first 1,200 clips and are scaled by the number of pairs. Each
side runs in its own process. Time is the wall time of scoring and sweep, for ours with EER and
minDCF; memory is the peak resident size minus that before scoring (Linux only). Ours then runs
again on a larger list, whose pairs would not fit into memory.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import (
    Row,
    add_json_option,
    num_cores,
    run_json,
    table,
    write_results,
)
from utils.arguments import make_parser, positive_int
from utils.verification.metrics import ErrorCurve
from utils.verification.scoring import score_all_pairs, sweep_accuracy

Figures = dict[str, float]


def make_options() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--clips", type=positive_int, default=5332)
    parser.add_argument("--speakers", type=positive_int, default=3242)
    parser.add_argument("--dimensions", type=positive_int, default=512)
    parser.add_argument("--baseline_clips", type=positive_int, default=1200)
    parser.add_argument("--large_clips", type=positive_int, default=20_000)
    parser.add_argument(
        "--only_large", action="store_true", help="measure nothing but the large list"
    )
    add_json_option(parser)
    parser.add_argument("--side", choices=("loops", "blocks", "large"), help=argparse.SUPPRESS)
    return parser


def make_clips(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Returns clustered embeddings `(clips, dimensions)` in float32, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, args.speakers, args.clips)
    centres = rng.standard_normal((args.speakers, args.dimensions), np.float32)
    embeddings = rng.standard_normal((args.clips, args.dimensions), np.float32)
    for clip, label in enumerate(labels):
        embeddings[clip] = centres[label] + 1.5 * embeddings[clip]
    return embeddings, labels


def run_loops(embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Scores pair by pair, then sweeps with masks; returns best accuracy and threshold."""
    scores: list[float] = []
    truth: list[int] = []
    for first in range(len(embeddings)):
        for second in range(first + 1, len(embeddings)):
            a, b = embeddings[first], embeddings[second]
            scores.append(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
            truth.append(int(labels[first] == labels[second]))
    all_scores, all_truth = np.array(scores), np.array(truth)
    best_accuracy, best_threshold = 0.0, 0.0
    for step in range(100):
        accepted = all_scores >= step / 100
        accuracy = float(np.mean(accepted.astype(int) == all_truth))
        if accuracy > best_accuracy:
            best_accuracy, best_threshold = accuracy, step / 100
    return best_accuracy, best_threshold


def run_blocks(embeddings: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Scores in blocks into a histogram; returns best accuracy and threshold."""
    histogram = score_all_pairs(embeddings, labels)
    curve = ErrorCurve.from_histogram(histogram)
    curve.equal_error_rate()
    curve.min_dcf()
    return sweep_accuracy(histogram)


def resident_bytes(field: str) -> int | None:
    """Returns the resident size now (`VmRSS`) or at most (`VmHWM`), None without /proc."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def forget_peak() -> None:
    """Resets the peak, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def measure_side(args: argparse.Namespace) -> Figures:
    """Runs one side in this process and returns its figures."""
    if args.side == "large":
        args.clips = args.large_clips
    embeddings, labels = make_clips(args)
    part = embeddings[: args.baseline_clips], labels[: args.baseline_clips]
    _ = embeddings[:64] @ embeddings[:64].T  # starts the threads of the matrix library
    forget_peak()
    before = resident_bytes("VmRSS")
    start = time.perf_counter()
    if args.side == "loops":
        accuracy, threshold = run_loops(*part)
    else:
        accuracy, threshold = run_blocks(embeddings, labels)
    seconds = time.perf_counter() - start
    peak = resident_bytes("VmHWM")
    figures: Figures = {"seconds": seconds, "accuracy": accuracy, "threshold": threshold}
    if before is not None and peak is not None:
        figures["extra_bytes"] = peak - before
    if args.side == "blocks":
        figures["part_accuracy"], figures["part_threshold"] = run_blocks(*part)
    return figures


def start_side(side: str, argv: list[str]) -> Figures:
    """Runs one side in a separate process and returns its figures."""
    figures: Figures = run_json([sys.executable, __file__, *argv, "--side", side])
    return figures


def in_mb(figures: Figures, factor: float = 1.0) -> str:
    if "extra_bytes" not in figures:
        return "unknown"
    return f"{figures['extra_bytes'] * factor / 1e6:,.0f} MB"


def num_pairs(num_clips: int) -> int:
    return num_clips * (num_clips - 1) // 2


def compare(args: argparse.Namespace, argv: list[str]) -> tuple[list[Row], str] | None:
    """Measures both sides; returns their row and text, or None if they disagree."""
    blocks, loops = start_side("blocks", argv), start_side("loops", argv)
    if abs(loops["accuracy"] - blocks["part_accuracy"]) > 1e-6:
        print(f"the two sides disagree: {loops}, {blocks}", file=sys.stderr)
        return None
    factor = num_pairs(args.clips) / num_pairs(args.baseline_clips)
    seconds = loops["seconds"] * factor
    ratio = f"{seconds / blocks['seconds']:.0f}"
    lines = [
        ["plain loops", f"{seconds:.1f}", in_mb(loops, factor)],
        ["utils/verification/scoring.py", f"{blocks['seconds']:.2f}", in_mb(blocks)],
    ]
    text = (
        f"{args.clips:,} clips x {args.dimensions}, {num_pairs(args.clips):,} pairs, the sweep of "
        f"100 thresholds, EER and minDCF, {num_cores()} cores; ratio: {ratio}.\n\n"
        + table(["", "s", "more memory than the embeddings"], lines)
    )
    if factor > 1:
        text += (
            f"\n\nLoops: {num_pairs(args.baseline_clips):,} pairs measured in "
            f"{loops['seconds']:.1f} s, scaled by {factor:.1f}."
        )
    row = Row(
        f"pairs, sweep and EER of {args.clips:,} embeddings",
        f"loops over pairs: {seconds:.1f} s, {in_mb(loops, factor)}",
        f"{blocks['seconds']:.2f} s, {in_mb(blocks)}",
        f"{ratio}x",
        ">= 15x, <= 200 MB",
    )
    return [row], text


def score_large(args: argparse.Namespace, argv: list[str]) -> tuple[Row, str]:
    """Measures ours on the large list."""
    large = start_side("large", argv)
    pairs = num_pairs(args.large_clips)
    text = (
        f"{args.large_clips:,} clips x {args.dimensions}: {pairs:,} pairs in "
        f"{large['seconds']:.1f} s, {pairs / large['seconds'] / 1e6:.0f} million a second; memory "
        f"beyond the embeddings: {in_mb(large)}."
    )
    row = Row(
        f"pairs, sweep and EER of {args.large_clips:,} embeddings",
        f"{pairs:,} pairs",
        f"{large['seconds']:.0f} s, {in_mb(large)}",
        "",
        "bounded memory",
    )
    return row, text


def main(argv: list[str]) -> int:
    args = make_options().parse_args(argv)
    args.baseline_clips = min(args.baseline_clips, args.clips)
    if args.side:
        print(json.dumps(measure_side(args)))
        return 0
    rows: list[Row] = []
    texts: list[str] = []
    if not args.only_large:
        compared = compare(args, argv)
        if compared is None:
            return 1
        rows, texts = compared[0], [compared[1]]
    row, text = score_large(args, argv)
    details = "\n\n".join([*texts, text])
    print(details)
    write_results(args.json, [*rows, row], details, ["numpy"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

r"""Measures the scoring of all pairs and the sweep over 100 thresholds, against plain Python loops.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --baseline_clips 5332    # the loops in full: minutes and 1 GB

5,332 clips of 3,242 speakers as in zhvoice's test list, 512 dimensions, clustered by speaker. The
loops score one pair at a time into a list and compare the whole array with the truth for each
threshold. By default they run on the first 1,200 clips and are scaled by the number of pairs.
Each side runs in a process of its own. Its time is the wall time of scoring and sweep, for ours
with EER and minDCF; its memory is the peak resident size less that before scoring (Linux only).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.arguments import make_parser, positive_int
from utils.metrics import ErrorCurve
from utils.scoring import score_all_pairs, sweep_accuracy

Figures = dict[str, float]


def make_options() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--clips", type=positive_int, default=5332)
    parser.add_argument("--speakers", type=positive_int, default=3242)
    parser.add_argument("--dimensions", type=positive_int, default=512)
    parser.add_argument("--baseline_clips", type=positive_int, default=1200)
    parser.add_argument("--side", choices=("loops", "blocks"), help=argparse.SUPPRESS)
    return parser


def make_clips(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Returns clustered embeddings `(clips, dimensions)` in float32, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, args.speakers, args.clips)
    centres = rng.standard_normal((args.speakers, args.dimensions), np.float32)
    noise = rng.standard_normal((args.clips, args.dimensions), np.float32)
    return centres[labels] + 1.5 * noise, labels


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


def measure_side(args: argparse.Namespace) -> Figures:
    """Runs one side in this process and returns its figures."""
    embeddings, labels = make_clips(args)
    part = embeddings[: args.baseline_clips], labels[: args.baseline_clips]
    _ = embeddings[:64] @ embeddings[:64].T  # starts the threads of the matrix library
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
    """Runs one side in a process of its own and returns its figures."""
    command = [sys.executable, __file__, *argv, "--side", side]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def in_mb(figures: Figures, factor: float = 1.0) -> str:
    if "extra_bytes" not in figures:
        return "unknown memory"
    return f"{figures['extra_bytes'] * factor / 1e6:,.0f} MB"


def main(argv: list[str]) -> int:
    args = make_options().parse_args(argv)
    args.baseline_clips = min(args.baseline_clips, args.clips)
    if args.side:
        print(json.dumps(measure_side(args)))
        return 0
    num_pairs = args.clips * (args.clips - 1) // 2
    num_part = args.baseline_clips * (args.baseline_clips - 1) // 2
    print(f"{args.clips:,} clips x {args.dimensions}, {num_pairs:,} pairs, {os.cpu_count()} cores")
    blocks, loops = start_side("blocks", argv), start_side("loops", argv)
    if abs(loops["accuracy"] - blocks["part_accuracy"]) > 1e-6:
        print(f"the two sides disagree: {loops}, {blocks}", file=sys.stderr)
        return 1
    factor = num_pairs / num_part
    seconds = loops["seconds"] * factor
    note = f"; {num_part:,} pairs measured in {loops['seconds']:.1f} s, scaled by {factor:.1f}"
    print(f"loops:  {seconds:8.2f} s, {in_mb(loops, factor)} more{note if factor > 1 else ''}")
    print(f"blocks: {blocks['seconds']:8.2f} s, {in_mb(blocks)} more than the embeddings")
    print(f"ratio:  {seconds / blocks['seconds']:8.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Measures time and memory of comparing two files, from the shell to the answer.

    python benchmarks/comparison.py
    python benchmarks/comparison.py --peers peers/bin/python

infer_contrast.py against the baseline's script (TensorFlow, librosa, `model.predict`;
benchmarks/baseline.py) and, if installed, against Resemblyzer and CAM++. Each runs in a fresh
process; each round runs all of them in turn. Time is until the last printed line, memory the peak
of the process.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import (
    ROOT,
    Row,
    Run,
    add_json_option,
    median,
    run_command,
    table,
    write_results,
)
from benchmarks.peers import TITLES, Peers, add_peer_options
from utils.arguments import make_parser, positive_int
from utils.errors import run_script

OURS, BASELINE = "infer_contrast.py", "the baseline's way"
KERAS = "infer_contrast.py, .keras model"
MAX_PEAK_MB = 150


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--repeats", type=positive_int, default=3, help="rounds; their median counts")
    add("--model_path", help="model of infer_contrast.py (default: its own default)")
    add("--keras_model", default="models/campplus.keras", help="the same model for Keras")
    add_peer_options(parser)
    add_json_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    files = [ROOT / "audio" / name for name in ("a_1.wav", "b_2.wav")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        baseline: list[str | Path] = [sys.executable, ROOT / "benchmarks" / "baseline.py"]
        run_command([*baseline, "make", folder / "baseline.keras"])
        peers = Peers(args)
        ours: list[str | Path] = [sys.executable, ROOT / "infer_contrast.py"]
        ours += [f"--audio_path{number}={path}" for number, path in enumerate(files, 1)]
        model = [f"--model_path={args.model_path}"] if args.model_path else []
        commands: dict[str, Sequence[str | Path]] = {
            BASELINE: [*baseline, "compare", folder / "baseline.keras", *files],
            KERAS: [*ours, f"--model_path={args.keras_model}"],
            **{TITLES[key]: peers.command("compare", key, *files) for key in peers.systems},
            OURS: [*ours, *model],
        }
        runs: dict[str, list[Run]] = {title: [] for title in commands}
        run_command(commands[OURS])  # the others have run: their files are in the disk cache
        for _ in range(args.repeats):
            for title, command in commands.items():
                runs[title].append(run_command(command))
    report(args, runs, peers.missing)
    return 0


def report(args: argparse.Namespace, runs: dict[str, list[Run]], missing: Sequence[str]) -> None:
    """Prints and writes the figures."""
    seconds = {title: median([run.seconds for run in found]) for title, found in runs.items()}
    peaks = {title: median([run.peak_mb for run in found]) for title, found in runs.items()}
    lines = []
    for title in sorted(runs, key=seconds.__getitem__):
        ratio = seconds[BASELINE] / seconds[title]
        lines.append([title, f"{seconds[title]:.2f}", f"{ratio:.1f}", f"{peaks[title]:.0f}"])
    details = "\n\n".join(
        [table(["", "s", "times as fast as the baseline's", "peak MB"], lines), *missing]
    )
    print(details)
    rows = [
        Row("comparison of two files, shell start to answer",
            f"{BASELINE}: {seconds[BASELINE]:.2f} s",
            f"{seconds[OURS]:.2f} s", f"{seconds[BASELINE] / seconds[OURS]:.1f}x", ">= 8x")
    ]  # fmt: skip
    campplus = TITLES["campplus_onnx"]
    if campplus in seconds:
        rows.append(
            Row("the same beside a peer", f"{campplus}: {seconds[campplus]:.2f} s",
                f"{seconds[OURS]:.2f} s", f"{seconds[campplus] / seconds[OURS]:.2f}x", "level")
        )  # fmt: skip
    heavy = TITLES["resemblyzer"] if TITLES["resemblyzer"] in peaks else BASELINE
    rows.append(
        Row("peak memory of it", f"{heavy}: {peaks[heavy]:.0f} MB", f"{peaks[OURS]:.0f} MB",
            f"{peaks[heavy] / peaks[OURS]:.1f}x", f"<= {MAX_PEAK_MB} MB")
    )  # fmt: skip
    write_results(args.json, rows, details, ["onnxruntime", "tensorflow", "librosa"], missing)


if __name__ == "__main__":
    run_script(main)

"""Measures a training step on several hosts, which are processes of this machine.

    python benchmarks/hosts.py
    python benchmarks/hosts.py --num_hosts 1 2 --widths 32 64 128 256 --num_blocks 3 4 6 3

Each process trains on JAX and processors with the same batch of its own, and the gradients are
added up over the loopback (gloo). All share the cores of this machine: what is measured is the
price of the exchange, not the gain of a second machine. The last lines are the arithmetic for GPUs:
an all-reduce moves 2 (n - 1) / n of the gradients' bytes through each link.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import ROOT, add_json_option, table, write_results
from tests.support.synthetic_voices import write_speech_folder
from utils.arguments import make_parser, positive_float, positive_int
from utils.errors import VoiceprintError, run_script

BYTES_OF_A_WEIGHT = 4


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--num_hosts", type=positive_int, nargs="+", default=[1, 2, 4])
    add("--batch_size", type=positive_int, default=4, help="of each host")
    add("--num_steps", type=positive_int, default=20, help="steps that are timed")
    add("--widths", nargs=4, default=["8", "16", "32", "64"])
    add("--num_blocks", nargs=4, default=["1", "1", "1", "1"])
    add("--gpu_step_ms", type=positive_float, default=100.0, help="of the arithmetic: one GPU")
    add("--num_weights", type=positive_float, default=7.2e6, help="of the arithmetic")
    add_json_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        files = write_speech_folder(Path(name) / "speech", 4, 5, 1.5)
        Path(name, "train.txt").write_text("".join(f"{path}\t{label}\n" for path, label in files))
        for num_hosts in args.num_hosts:
            rate = measure(Path(name), num_hosts, args)
            step_ms = 1000 * num_hosts * args.batch_size / rate
            lines.append([str(num_hosts), f"{step_ms:,.0f}", f"{rate:,.1f}"])
            print(f"{num_hosts} processes: {step_ms:,.0f} ms a step", flush=True)
    details = table(["processes", "ms a step", "crops/s"], lines)
    print(details)
    header = ["GPUs", "link, Gbit/s", "MB a step and link", "ms", "efficiency"]
    paper = table(header, arithmetic(args))
    print(f"\n{paper}")
    write_results(args.json, [], f"{details}\n\n{paper}")
    return 0


def measure(folder: Path, num_hosts: int, args: argparse.Namespace) -> float:
    """Returns crops a second of a training on some processes, without the first epoch.

    Raises:
        VoiceprintError: If a process fails.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = folder / str(num_hosts)
    command = [
        sys.executable, str(ROOT / "train.py"), "--gpu=cpu", "--test_list_path=", "--num_epoch=2",
        f"--train_list_path={folder}/train.txt", f"--steps_per_epoch={args.num_steps}",
        f"--batch_size={args.batch_size}", f"--model_dir={log}", "--num_workers=0",
        "--crop_frames=65",
        "--widths", *args.widths, "--num_blocks", *args.num_blocks, "--embedding_size=64",
    ]  # fmt: skip
    processes = []
    for number in range(num_hosts):
        hosts = [f"--hosts={address}", f"--num_hosts={num_hosts}", f"--host_id={number}"]
        processes.append(
            subprocess.Popen(
                [*command, *(hosts if num_hosts > 1 else [])],
                env={**os.environ, "KERAS_BACKEND": "jax"},
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    try:
        for process in processes:
            error = process.communicate()[1]
            if process.returncode:
                raise VoiceprintError(f"train.py failed: {error.strip().splitlines()[-1]}")
    finally:
        for process in processes:
            process.kill()
    last = (log / "training_log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["samples_per_s"])


def arithmetic(args: argparse.Namespace) -> list[list[str]]:
    """Returns rows of GPUs, link, bytes and time of an all-reduce, and the share of time computing.

    The worst case: the exchange begins when the step's own work is done.
    """
    rows = []
    for num_gpus in (8, 64):
        for gigabits in (10, 100, 400):
            size = 2 * (num_gpus - 1) / num_gpus * args.num_weights * BYTES_OF_A_WEIGHT
            exchange_ms = 1000 * 8 * size / (gigabits * 1e9)
            share = args.gpu_step_ms / (args.gpu_step_ms + exchange_ms)
            cells = [str(num_gpus), str(gigabits), f"{size / 1e6:.1f}", f"{exchange_ms:.1f}"]
            rows.append([*cells, f"{100 * share:.0f} %"])
    return rows


if __name__ == "__main__":
    run_script(main)

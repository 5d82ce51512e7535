"""Shared by all benchmarks: timed child processes, rows of the overview, the machine's description.

Only the standard library is imported here, to keep benchmarks that start others light.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Between us and the child: Linux counts a process's memory before `exec` into its peak, and that
# would be ours.
LAUNCHER = """
import json, os, resource, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE)
output, answered = b"", start
while chunk := os.read(child.stdout.fileno(), 65536):
    output, answered = output + chunk, time.perf_counter()
status = child.wait()
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
unit = 1 if sys.platform == "darwin" else 1024
with open(sys.argv[1], "w") as file:
    json.dump({"seconds": answered - start, "exit_s": time.perf_counter() - start,
               "peak_mb": usage.ru_maxrss * unit / 1e6, "status": status,
               "output": output.decode("utf-8", "replace")}, file)
"""


class BenchmarkError(Exception):
    """A part of a benchmark cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Run:
    """A finished command.

    Attributes:
        seconds: From its start to its last output.
        peak_mb: Peak memory of its largest process, in 10^6 bytes.
        output: Its stdout.
    """

    seconds: float
    peak_mb: float
    output: str


@dataclass(frozen=True)
class Row:
    """A line of the overview in docs/results.md."""

    what: str
    baseline: str
    ours: str
    ratio: str
    target: str


def run_command(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Run:
    """Runs a command in the repository's folder and measures time and peak memory (Unix).

    Raises:
        BenchmarkError: If it fails, with the last line of its stderr.
    """
    import tempfile

    # Otherwise the answer stays in a buffer until the process ends.
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(report)]
        done = subprocess.run(
            [*launcher, *map(str, command)],
            stderr=subprocess.PIPE, text=True, errors="replace", cwd=ROOT, env=variables,
        )  # fmt: skip
        if not report.is_file():
            raise BenchmarkError(f"{command[0]} cannot be started: {_last_line(done.stderr)}")
        figures = json.loads(report.read_text(encoding="utf-8"))
    if figures["status"] != 0:
        raise BenchmarkError(f"{Path(command[1]).name}: {_last_line(done.stderr)}")
    return Run(figures["seconds"], figures["peak_mb"], figures["output"])


def run_json(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Any:
    """Runs a command and returns its last output line, read as JSON.

    Raises:
        BenchmarkError: As `run_command`.
    """
    return json.loads(run_command(command, environment).output.splitlines()[-1])


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def use_one_core() -> None:
    """Keeps this process and its threads on one core; call it before numeric packages load."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="also write the results to this file")


def write_results(
    path: str | None,
    rows: Sequence[Row],
    details: str,
    packages: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> None:
    """Writes the figures for `run_all.py` to put into docs/results.md; without a path, nothing.

    Args:
        path: Value of `--json`.
        rows: Lines of the overview.
        details: Markdown: a table and remarks.
        packages: Packages whose versions matter for the figures.
        missing: One line for each peer that could not be measured.
    """
    if path is None:
        return
    results = {
        "overview": [astuple(row) for row in rows],
        "details": details.strip(),
        "versions": list(packages),
        "missing": list(missing),
    }
    Path(path).write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; all columns but the first are right-aligned."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *lines])


def machine() -> str:
    """Returns processor, cores and memory in one line."""
    name = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    memory = ""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            memory = f", {int(line.split()[1]) / 2**20:.0f} GiB"
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "bf16", "amx_bf16": "AMX"}
    extras = [text for flag, text in known.items() if flag in flags]
    cores = f"{num_cores()} cores"
    return f"{name} ({', '.join([cores, *extras])}){memory}"


def num_cores() -> int:
    """Returns the number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions(packages: Sequence[str]) -> str:
    """Returns Python's version and those of the packages that are installed."""
    parts = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(parts)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []

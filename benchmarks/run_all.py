"""Runs the benchmarks and rewrites the figures of docs/results.md: `make bench`.

    python benchmarks/run_all.py
    python benchmarks/run_all.py --only comparison embedding --peers peers/bin/python
    python benchmarks/run_all.py --full    # with the long parts, a million speakers: an hour

The benchmarks run one after the other, each in its own process. Its figures go between the
comments `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` of docs/results.md, with date, machine,
versions and command, and one line per target into the overview. A benchmark that cannot run here,
or lacks a peer that it had before, keeps its earlier figures from benchmarks/results.json. Run
nothing else meanwhile.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import ROOT, machine, table, versions
from benchmarks.peers import add_peer_options
from utils.arguments import make_parser
from utils.errors import VoiceprintError, run_script
from utils.files import write_text_atomically

HEADER = ["what", "baseline", "ours", "ratio", "target"]


@dataclass(frozen=True)
class Part:
    """A benchmark with its options; `full` ones take long and run only with --full."""

    name: str
    file: str
    options: tuple[str, ...] = ()
    full: bool = False

    @property
    def command(self) -> str:
        """The command as a user types it."""
        return " ".join(["python", f"benchmarks/{self.file}", *self.options])


PARTS = [
    Part("comparison", "comparison.py"),
    Part("embedding", "embedding.py"),
    Part("scoring", "scoring.py"),
    Part("scoring_full", "scoring.py", ("--only_large", "--large_clips=100000"), full=True),
    Part("identification", "identification.py"),
    Part(
        "identification_full",
        "identification.py",
        ("--speakers=1000000", "--ways", "memory"),
        full=True,
    ),
    Part(
        "identification_engines",
        "identification.py",
        ("--speakers=200000", "--ways", "memory", "milvus", "pgvector"),
        full=True,
    ),
    Part("voices", "voices.py"),
    Part("diarization", "diarization.py"),
    Part("live", "live.py"),
    Part("streams", "streams.py"),
    Part("training_step", "training_step.py"),
    Part("input_pipeline", "input_pipeline.py"),
    Part("hosts", "hosts.py", full=True),
    Part("create_data", "create_data.py"),
    Part("service", "service.py"),
    Part("kill", "kill.py"),
    Part("memory", "memory.py"),
    Part("memory_full", "memory.py", ("--num_files=10000",), full=True),
]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=[part.name for part in PARTS], help="run these alone")
    add("--full", action="store_true", help="run the long ones too")
    add("--document", default=str(ROOT / "docs" / "results.md"), help="document to rewrite")
    add("--results", default=str(ROOT / "benchmarks" / "results.json"), help="figures so far")
    add_peer_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # The child processes find the other models the same way.
    os.environ["VOICEPRINT_PEERS"] = args.peers
    os.environ["VOICEPRINT_CAMPPLUS"] = str(Path(args.campplus).resolve())
    known = read_known(args.results)
    notes: list[str] = []
    num_failed = 0
    started = time.monotonic()
    for part in PARTS:
        if part.name not in args.only if args.only else part.full and not args.full:
            continue
        print(f"== {part.name}: {part.command}", flush=True)
        try:
            found = run_part(part)
        except VoiceprintError as error:
            notes.append(f"{part.name}: {error}; its figures are those of before")
            num_failed += "failed" in str(error)
        else:
            known = read_known(args.results)  # another run may have added to it
            before = known.get(part.name)
            if found["missing"] and before and not before["missing"]:
                lacking = "; ".join(found["missing"])
                notes.append(f"{part.name}: {lacking}; its figures are those of before")
            else:
                known[part.name] = found
        if part.name in known:
            # After each benchmark, so that an interruption loses nothing.
            write_text_atomically(
                args.results, json.dumps(known, ensure_ascii=False, indent=1) + "\n"
            )
            rewrite(Path(args.document), known)
        print(flush=True)
    print("\n\n".join([overview(known), *notes]))
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
    return 1 if num_failed else 0


def read_known(path: str) -> dict[str, Any]:
    """Returns the figures so far by part."""
    if not Path(path).is_file():
        return {}
    known: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return known


def run_part(part: Part) -> dict[str, Any]:
    """Runs one benchmark, whose output is shown.

    Raises:
        VoiceprintError: If it cannot run here, or fails.
    """
    file = ROOT / "benchmarks" / part.file
    if not file.is_file():
        raise VoiceprintError(f"{part.file} is not there")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        command = [sys.executable, str(file), *part.options, "--json", str(path)]
        done = subprocess.run(command, cwd=ROOT)
        if done.returncode == 2:
            raise VoiceprintError("it cannot run here (see above)")
        if done.returncode != 0 or not path.is_file():
            raise VoiceprintError(f"it failed with status {done.returncode}")
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {
        "command": part.command,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(results.get("versions", [])),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "missing": results.get("missing", []),
        "overview": results["overview"],
        "details": results["details"],
    }


def overview(known: dict[str, Any]) -> str:
    """Returns one table of all targets, with the sources of its figures."""
    parts = [part.name for part in PARTS if part.name in known]
    rows = [row for name in parts for row in known[name]["overview"]]
    origins: dict[str, list[str]] = {}
    for name in parts:
        origin = f"{known[name]['date']}, {known[name]['machine']}"
        origins.setdefault(origin, []).append(name)
    lines = [table(HEADER, rows)]
    for origin, names in origins.items():
        lines.append(f"{origin}: {', '.join(name.replace('_', ' ') for name in names)}.")
    return "\n\n".join(lines)


def rewrite(document: Path, known: dict[str, Any]) -> None:
    """Puts the figures into the document, between their comments.

    Raises:
        VoiceprintError: If a comment is missing.
    """
    text = document.read_text(encoding="utf-8")
    blocks = {"overview": overview(known)}
    for part in PARTS:
        if part.name in known:
            found = known[part.name]
            origin = f"{found['date']}, {found['machine']}; {found['versions']}."
            blocks[part.name] = (
                f"```shell\n{found['command']}\n```\n\n{origin}\n\n{found['details']}"
            )
    for name, block in blocks.items():
        opening, closing = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        before, found_opening, rest = text.partition(opening)
        _, found_closing, after = rest.partition(closing)
        if not found_opening or not found_closing:
            raise VoiceprintError(f"{document}: expected the lines {opening} and {closing}")
        text = f"{before}{opening}\n{block}\n{closing}{after}"
    write_text_atomically(document, text)


if __name__ == "__main__":
    run_script(main)

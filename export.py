"""Writes a model for other programs: ONNX, TFLite for phones, TensorFlow's SavedModel.

    python export.py --model_path=models/resnet34.keras --output_dir=models

Each takes 16 kHz samples, silence removed, and gives the embedding: the features are inside. Each
is run on the recordings of audio/, or of --list_path, before it gets its name; one whose embeddings
differ from the Keras model's is not kept. docs/deploy.md tells how to use them.
"""

import argparse

from utils.arguments import make_parser, positive_int, print_arguments
from utils.errors import run_script
from utils.export.formats import (
    DEFAULT_FORMATS,
    FORMATS,
    Comparison,
    check_model_path,
    describe,
    find_recordings,
)
from utils.messages import translate
from utils.verification.report import make_folder


def make_options() -> argparse.ArgumentParser:
    """Declares the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--model_path", default="models/resnet34.keras", help="the .keras file to export")
    add("--output_dir", default="models", help="folder to write to")
    add(
        "--formats",
        nargs="+",
        choices=FORMATS,
        default=DEFAULT_FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)} (default: all but onnx_int8, which wants a --list_path)",
    )
    add("--list_path", help="data list to compare on; the EER of each format is told too")
    add("--num_threads", type=positive_int, default=1, help="processor threads of the comparison")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Writes the formats and prints a line for each."""
    parser = make_options()
    args = parser.parse_args(argv)
    print_arguments(args, ["model_path", "output_dir"], parser)
    # Mistakes are told before TensorFlow is loaded, which takes seconds.
    check_model_path(args.model_path)
    paths, labels = find_recordings(args.list_path)
    make_folder(args.output_dir)

    comparison = Comparison(args.model_path, paths, labels, args.num_threads)
    print(f"==> successfully loading model {args.model_path}.\n")
    print(translate(describe(comparison.result, args.num_threads)), flush=True)
    for name in dict.fromkeys(args.formats):
        result = comparison.export(name, args.output_dir)
        print(translate(describe(result, args.num_threads)), flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)

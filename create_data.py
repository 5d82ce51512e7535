"""Makes dataset/train_list.txt and dataset/test_list.txt (`path<TAB>label`) for training.

Every clip is decoded and checked; bad ones go into dataset/rejected.tsv with the reason. Without
options it prepares zhvoice from dataset/zhvoice (mp3 -> 16 kHz wav beside it). A run that was
stopped goes on where it was when started again.

    python create_data.py
    python create_data.py --dataset folders:speech/train --test_speakers 20
    python create_data.py --dataset librispeech:LibriSpeech --dataset voxceleb:vox1 --wav_dir wav
"""

import argparse
import sys
from pathlib import Path

from utils.arguments import make_parser, non_negative_float, positive_int, print_arguments
from utils.corpus.layouts import LAYOUTS
from utils.corpus.listing import Settings, Summary, create_lists, parse_dataset
from utils.errors import run_script
from utils.messages import translate
from utils.processors import num_processors


def speaker_level(text: str) -> int:
    """Reads a path level: 1, 2, ... from the top or -1, -2, ... from the file."""
    if not text.removeprefix("-").isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected 1, 2, ... or -1, -2, ...")
    return int(text)


def speaker_share(text: str) -> int | float:
    """Reads a number of speakers (20) or a share of them (0.1)."""
    if text.isdecimal():
        return int(text)
    share = non_negative_float(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected 20 or 0.1 and the like")
    return share


def parse_args(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Declares and reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--dataset", type=parse_dataset, action="append", metavar="LAYOUT:FOLDER",
        help="a data set, can be given several times (default zhvoice:dataset/zhvoice); "
        f"layouts: {', '.join(LAYOUTS)}")  # fmt: skip
    add("--speaker_level", type=speaker_level,
        help="which folder names the speaker: 1, 2, ... below FOLDER, or -1 (holds the file), "
        "-2, ... (default: the layout's own; -1 for folders)")  # fmt: skip
    add("--list_dir", type=Path, default=Path("dataset"), help="where the lists go")
    add("--wav_dir", type=Path,
        help="convert everything to 16 kHz mono 16-bit wav in this folder")  # fmt: skip
    add("--delete_source", action="store_true",
        help="remove each source file after its wav was read back and verified")  # fmt: skip
    add("--min_duration_s", type=non_negative_float, default=1.3, help="reject shorter clips")
    add("--min_utterances", type=positive_int, default=1,
        help="reject speakers with fewer usable clips")  # fmt: skip
    add("--test_every", type=positive_int, default=200,
        help="every so many clips, one is kept for the test list")  # fmt: skip
    add("--test_speakers", type=speaker_share, default=0,
        help="keep whole speakers for the test instead: a number or a share (0.1)")  # fmt: skip
    add("--seed", type=int, default=0, help="chooses the test speakers")
    add("--num_workers", type=positive_int, default=num_processors(), help="processes")
    args = parser.parse_args(argv)
    args.dataset = args.dataset or [parse_dataset("zhvoice:dataset/zhvoice")]
    return parser, args


def print_summary(summary: Summary, folder: str) -> None:
    """Prints the figures of the lists, and the num_classes to train with."""
    train, test = f"{folder}/train_list.txt", f"{folder}/test_list.txt"
    num_speakers, strangers = summary.num_train_speakers, summary.num_strangers
    print(translate(f"{train}: {summary.num_train} clips of {num_speakers} speakers"))
    print(translate(f"{test}: {summary.num_test} clips of {summary.num_test_speakers} speakers"))
    print(
        translate(
            f"speakers: {num_speakers + strangers} ({strangers} of them only in the test list)"
        )
    )
    print(translate(f"clips: {summary.num_train + summary.num_test}"))
    print(translate(f"hours: {summary.hours:.2f}"))
    print(translate(f"rejected: {summary.num_rejected} (reasons in {folder}/rejected.tsv)"))
    for reason, count in summary.reasons.most_common():
        print(f"  {reason}: {count}")
    print(translate(f"num_classes: {summary.num_classes}"))


def main(argv: list[str] | None = None) -> int:
    """Prepares the data sets named by the options and prints what became of them."""
    parser, args = parse_args(argv)
    options = vars(args) | {"dataset": " ".join(map(str, args.dataset))}
    print_arguments(argparse.Namespace(**options), ["dataset", "list_dir"], parser)
    settings = Settings(**{name: value for name, value in vars(args).items() if name != "dataset"})
    summary = create_lists(args.dataset, settings)
    print_summary(summary, args.list_dir.as_posix())
    if summary.num_test == summary.num_test_speakers:
        warning = (
            "warning: no speaker has two clips in the test list: lower --test_every or use "
            "--test_speakers 0.1 to have pairs for eval.py"
        )
        print(translate(warning), file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_script(main)

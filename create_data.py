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
from dataclasses import replace

from utils.arguments import make_parser, print_arguments
from utils.corpus.listing import SHARDS_NAME, Summary, create_lists
from utils.corpus.options import add_options, parse_dataset, to_settings
from utils.errors import run_script
from utils.messages import translate
from utils.model.encoder import load_shipped_model


def parse_args(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Declares and reads the options."""
    parser = make_parser(__doc__)
    add_options(parser)
    args = parser.parse_args(argv)
    args.dataset = args.dataset or [parse_dataset("zhvoice:dataset/zhvoice")]
    return parser, args


def print_summary(summary: Summary, folder: str, num_shards: int | None = None) -> None:
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
    if num_shards:
        print(translate(f"{folder}/{SHARDS_NAME}: {num_shards} shards of the training list"))


def main(argv: list[str] | None = None) -> int:
    """Prepares the data sets named by the options and prints what became of them."""
    parser, args = parse_args(argv)
    options = vars(args) | {"dataset": " ".join(map(str, args.dataset))}
    print_arguments(argparse.Namespace(**options), ["dataset", "list_dir"], parser)
    settings = replace(to_settings(args), load_model=load_shipped_model)
    summary = create_lists(args.dataset, settings)
    print_summary(summary, args.list_dir.as_posix(), args.shards)
    if summary.num_test == summary.num_test_speakers:
        warning = (
            "warning: no speaker has two clips in the test list: lower --test_every or use "
            "--test_speakers 0.1 to have pairs for eval.py"
        )
        print(translate(warning), file=sys.stderr)
    if summary.num_classes == 1:
        warning = "warning: one speaker only: train.py needs two or more to tell apart"
        print(translate(warning), file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_script(main)

"""The options of create_data.py, and the settings that they stand for."""

import argparse
from pathlib import Path

from utils.arguments import channel, non_negative_float, positive_int
from utils.corpus.layouts import LAYOUTS
from utils.corpus.list_settings import DatasetSpec, Settings
from utils.corpus.treatment import Treatment
from utils.engine.choice import HELP, engine_address
from utils.processors import num_processors

TREATMENTS = ("channel", "denoise", "trim_silence")
"""Options that are fields of `Treatment`."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares the options of create_data.py."""
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
    add("--channel", type=channel, default="mix",
        help="convert left, right, mix, or a number from 1")  # fmt: skip
    add("--denoise", action="store_true",
        help="turn down steady noise while converting (needs noisereduce)")  # fmt: skip
    add("--trim_silence", action="store_true", help="cut out silence while converting")
    add("--min_duration_s", type=non_negative_float, default=1.3, help="reject shorter clips")
    add("--min_utterances", type=positive_int, default=1,
        help="reject speakers with fewer usable clips")  # fmt: skip
    add("--test_every", type=positive_int, default=200,
        help="every so many clips, one is kept for the test list")  # fmt: skip
    add("--test_speakers", type=speaker_share, default=0,
        help="keep whole speakers for the test instead: a number or a share (0.1)")  # fmt: skip
    add("--seed", type=int, default=0, help="chooses the test speakers")
    add("--shards", type=positive_int, metavar="N",
        help="write the training list as N tar files too, for train.py")  # fmt: skip
    add("--num_workers", type=positive_int, default=num_processors(), help="local processes")
    add("--engine", type=engine_address, default="local", help=HELP)


def to_settings(args: argparse.Namespace) -> Settings:
    """Returns the settings that the options stand for, without the speaker model."""
    values = {name: value for name, value in vars(args).items() if name != "dataset"}
    treatment = Treatment(**{name: values.pop(name) for name in TREATMENTS})
    return Settings(**values, treatment=treatment)


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


def parse_dataset(text: str) -> DatasetSpec:
    """Reads `LAYOUT:FOLDER`, as an argparse type."""
    layout, colon, folder = text.partition(":")
    if not (colon and folder) or layout not in LAYOUTS:
        raise argparse.ArgumentTypeError(
            f"received {text!r}, expected LAYOUT:FOLDER with a layout of {', '.join(LAYOUTS)}"
        )
    return DatasetSpec(layout, Path(folder))

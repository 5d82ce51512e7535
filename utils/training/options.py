"""The options of train.py: made of the fields of its settings, and read back into them."""

import argparse
import re
from dataclasses import Field, fields, replace
from typing import Any, TypeVar

from utils import arguments
from utils.crops.augment import AugmentSettings
from utils.crops.batches import ReaderSettings
from utils.training.settings import DEFAULT_MARGINS, LossSettings, RunOptions, TrainingSettings

T = TypeVar("T")

SOURCES = (RunOptions, TrainingSettings, LossSettings, ReaderSettings, AugmentSettings)
"""Whose fields are options."""

BASELINE_OPTIONS = (
    "batch_size", "gpu", "learning_rate", "model_dir", "num_classes", "num_epoch", "resume",
    "test_list_path", "train_list_path",
)  # fmt: skip
"""What the baseline's train.py prints."""

GROUPS = {
    "the run": "gpu resume init batch_size num_classes num_epoch steps_per_epoch learning_rate "
    "warmup_steps body_rate weight_decay train_list_path test_list_path model_dir precision seed "
    "num_workers checkpoint_minutes keep_checkpoints",
    "the network": "network widths num_blocks embedding_size keep_statistics",
    "the losses": "loss margin margin_steps num_subcenters inter_topk_penalty inter_topk scale "
    "classification_weight teacher distance_weight contrast_weight temperature teacher_centroid",
    "the crops": "crop_frames num_views balance keep_silence no_join speeds speed_change",
    "augmentation (probabilities)": "reverb noise babble equalizer gain clipping telephone codec "
    "flip spec_mask noise_dir rir_dir snr_db babble_snr_db",
}
"""The options as `--help` shows them."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares the options of train.py."""
    found = {_name(item): item for source in SOURCES for item in fields(source) if item.metadata}
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names.split():
            group.add_argument(f"--{name}", **_declaration(found[name]))


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends with the parser's error if options contradict each other."""
    if args.resume and args.init:
        parser.error("--resume goes on with a training, --init begins a new one; give one of them")
    if 1.0 not in args.speeds:
        parser.error(f"--speeds {args.speeds} lacks 1.0, the unchanged speed")
    for name in ("snr_db", "babble_snr_db"):
        low, high = getattr(args, name)
        if low > high:
            parser.error(f"--{name} {low} {high}: expected the lower figure first")
    if args.loss == "softmax" and args.num_subcenters > 1:
        parser.error("--num_subcenters needs a loss on cosines, not softmax")
    if args.inter_topk_penalty and args.loss not in ("am_softmax", "aam_softmax"):
        parser.error("--inter_topk_penalty needs --loss am_softmax or aam_softmax")
    if not args.teacher and args.classification_weight == 0:
        parser.error("--classification_weight 0 needs a --teacher: there is nothing to learn from")


def to_settings(args: argparse.Namespace) -> TrainingSettings:
    """Returns the settings that the options stand for."""
    losses = _read(LossSettings, args)
    if losses.margin is None:
        losses = replace(losses, margin=DEFAULT_MARGINS[losses.name])
    if not args.teacher:
        losses = replace(losses, distance=0.0, contrast=0.0)
    reader = replace(
        _read(ReaderSettings, args),
        speeds=tuple(sorted(args.speeds)),
        augment=_read(AugmentSettings, args),
    )
    return replace(_read(TrainingSettings, args), losses=losses, reader=reader)


def _name(item: "Field[Any]") -> str:
    """Returns the name of a field's option."""
    return str(item.metadata.get("name", item.name))


def _declaration(item: "Field[Any]") -> dict[str, Any]:
    """Returns what `add_argument` is given for a field."""
    declared = {key: value for key, value in item.metadata.items() if key != "name"}
    default = declared.pop("preset", item.default)
    check = declared.pop("check")
    if isinstance(default, bool):
        return {"action": "store_true", "help": declared["help"]}
    if check:
        declared["type"] = CHECKS[check]
    return {**declared, "default": list(default) if isinstance(default, tuple) else default}


def _read(settings: type[T], args: argparse.Namespace) -> T:
    """Returns settings with the values of their options."""
    values = {}
    for item in fields(settings):  # type: ignore[arg-type]
        if item.metadata:
            value = getattr(args, _name(item))
            value = tuple(value) if isinstance(value, list) else value
            values[item.name] = not value if item.default is True else value
    return settings(**values)


def _gpu(text: str) -> str:
    """Reads which GPUs to use, as an argparse type."""
    if not re.fullmatch(r"|\d+(,\d+)*|cpu(:[1-9]\d*)?", text):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected 0 or 0,1 or cpu or cpu:2")
    return text


CHECKS = {
    "gpu": _gpu,
    "float": float,
    "fraction": arguments.fraction,
    "non_negative_float": arguments.non_negative_float,
    "non_negative_int": arguments.non_negative_int,
    "positive_float": arguments.positive_float,
    "positive_int": arguments.positive_int,
}
"""Functions that read an option's text, by the `check` of its field."""

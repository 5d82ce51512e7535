"""The options of train.py: made of the fields of its settings, and read back into them."""

import argparse
from dataclasses import fields, replace

from utils.arguments import add_option, option_name, read_settings
from utils.corpus.shards import is_sharded
from utils.crops.augment import AugmentSettings
from utils.crops.batches import ReaderSettings
from utils.training.settings import DEFAULT_MARGINS, LossSettings, RunOptions, TrainingSettings

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
    "num_workers shuffle_buffer checkpoint_minutes keep_checkpoints hosts num_hosts host_id",
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
    found = {
        option_name(item): item for source in SOURCES for item in fields(source) if item.metadata
    }
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names.split():
            add_option(group, found[name])


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
    if args.balance != 1.0 and is_sharded(args.train_list_path):
        parser.error("--balance draws from a plain list, not from shards; leave one of both out")
    if args.loss == "softmax" and args.num_subcenters > 1:
        parser.error("--num_subcenters needs a loss on cosines, not softmax")
    if args.inter_topk_penalty and args.loss not in ("am_softmax", "aam_softmax"):
        parser.error("--inter_topk_penalty needs --loss am_softmax or aam_softmax")
    if not args.teacher and args.classification_weight == 0:
        parser.error("--classification_weight 0 needs a --teacher: there is nothing to learn from")


def to_settings(args: argparse.Namespace) -> TrainingSettings:
    """Returns the settings that the options stand for."""
    losses = read_settings(LossSettings, args)
    if losses.margin is None:
        losses = replace(losses, margin=DEFAULT_MARGINS[losses.name])
    if not args.teacher:
        losses = replace(losses, distance=0.0, contrast=0.0)
    reader = replace(
        read_settings(ReaderSettings, args),
        speeds=tuple(sorted(args.speeds)),
        augment=read_settings(AugmentSettings, args),
    )
    return replace(read_settings(TrainingSettings, args), losses=losses, reader=reader)

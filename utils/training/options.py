"""What defines a training run: the settings, and the options of train.py that fill them."""

import argparse
import os
import re
from dataclasses import dataclass, field, fields
from typing import Any

from utils.arguments import (
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
)
from utils.crops.augment import AUGMENTATIONS, AugmentSettings
from utils.crops.batches import ReaderSettings

DEFAULT_MARGINS = {"softmax": 0.0, "am_softmax": 0.2, "aam_softmax": 0.2}
"""The losses of `utils.training.losses.CLASSIFICATION_LOSSES`, with their papers' margins."""

NETWORK_NAMES = ("resnet34", "campplus")
"""The networks of `utils.networks.catalogue.NETWORKS`."""

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

SEED_OPTIONS = (
    "batch_size", "gpu", "learning_rate", "model_dir", "num_classes", "num_epoch", "resume",
    "test_list_path", "train_list_path",
)  # fmt: skip


@dataclass(frozen=True)
class LossSettings:
    """Which losses are added up, and their weights.

    Attributes:
        name: A key of `utils.training.losses.CLASSIFICATION_LOSSES`.
        margin: Margin of a margin loss.
        scale: Scale of a margin loss.
        classification: Weight of the classification loss.
        distance: Weight of the distance to the teacher.
        contrast: Weight of the choice among the batch's teacher vectors.
        temperature: Temperature of that choice.
    """

    name: str = "aam_softmax"
    margin: float = 0.2
    scale: float = 32.0
    classification: float = 1.0
    distance: float = 0.0
    contrast: float = 0.0
    temperature: float = 0.07


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that defines a training run; a checkpoint keeps it."""

    model_dir: str = "models"
    num_epochs: int = 50
    steps_per_epoch: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    precision: str = "float32"
    network: str = "resnet34"
    keep_statistics: bool = False
    head_only: bool = False
    widths: tuple[int, ...] = (32, 64, 128, 256)
    num_blocks: tuple[int, ...] = (3, 4, 6, 3)
    embedding_size: int = 192
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 1
    num_workers: int = 1
    losses: LossSettings = field(default_factory=LossSettings)
    reader: ReaderSettings = field(default_factory=ReaderSettings)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares the options of train.py."""
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--gpu",
        default="",
        type=_gpu,
        metavar="0,1",
        help="GPUs to use; default all; cpu for none; cpu:2 for two logical devices",
    )
    run.add_argument("--resume", default="", metavar="FILE", help="checkpoint to go on from")
    run.add_argument("--init", default="", metavar="FILE", help="model whose weights to begin with")
    run.add_argument("--batch_size", type=positive_int, default=32, help="crops in a batch")
    run.add_argument(
        "--num_classes",
        type=positive_int,
        default=None,
        help="number of speakers; default: read from the training list",
    )
    run.add_argument("--num_epoch", type=positive_int, default=50, help="epochs in all")
    run.add_argument(
        "--steps_per_epoch",
        type=non_negative_int,
        default=0,
        help="batches an epoch; 0: as many as go through the list once",
    )
    run.add_argument("--learning_rate", type=positive_float, default=1e-3)
    run.add_argument("--warmup_steps", type=non_negative_int, default=500)
    run.add_argument("--weight_decay", type=non_negative_float, default=1e-4)
    run.add_argument("--train_list_path", default="dataset/train_list.txt")
    run.add_argument(
        "--test_list_path",
        default="dataset/test_list.txt",
        help="list for validation; empty for none",
    )
    run.add_argument("--model_dir", default="models", help="folder for checkpoints and logs")
    run.add_argument("--precision", choices=PRECISIONS, default="float32")
    run.add_argument("--seed", type=non_negative_int, default=0)
    run.add_argument(
        "--num_workers",
        type=non_negative_int,
        default=max(1, min(16, (os.cpu_count() or 2) - 1)),
        help="processes that read and augment; 0: none of their own",
    )
    run.add_argument(
        "--checkpoint_minutes",
        type=positive_float,
        default=10.0,
        help="longest time between two checkpoints, inside an epoch too",
    )
    run.add_argument(
        "--keep_checkpoints",
        type=positive_int,
        default=1,
        help="newest checkpoints that are kept, besides the best",
    )

    network = parser.add_argument_group("the network")
    network.add_argument("--network", choices=NETWORK_NAMES, default="resnet34")
    network.add_argument(
        "--widths", type=positive_int, nargs=4, default=[32, 64, 128, 256], help="of resnet34"
    )
    network.add_argument(
        "--num_blocks", type=positive_int, nargs=4, default=[3, 4, 6, 3], help="of resnet34"
    )
    network.add_argument("--embedding_size", type=positive_int, default=192)
    network.add_argument(
        "--keep_statistics",
        action="store_true",
        help="batch normalisation keeps the means and variances of --init",
    )
    network.add_argument(
        "--head_only",
        action="store_true",
        help="train the last layer and the classifier alone, in a third of the time",
    )

    losses = parser.add_argument_group("the losses")
    losses.add_argument("--loss", choices=sorted(DEFAULT_MARGINS), default="aam_softmax")
    losses.add_argument(
        "--margin",
        type=non_negative_float,
        default=None,
        help="margin of am_softmax and aam_softmax; default 0.2",
    )
    losses.add_argument("--scale", type=positive_float, default=32.0)
    losses.add_argument("--classification_weight", type=non_negative_float, default=1.0)
    losses.add_argument(
        "--teacher",
        default="",
        metavar="FILE.npz",
        help="embeddings of a teacher model to learn from (tools/make_teacher.py)",
    )
    losses.add_argument(
        "--distance_weight",
        type=non_negative_float,
        default=1.0,
        help="weight of 2 (1 - cosine) to the teacher",
    )
    losses.add_argument(
        "--contrast_weight",
        type=non_negative_float,
        default=0.3,
        help="weight of picking the own teacher vector out of the batch",
    )
    losses.add_argument("--temperature", type=positive_float, default=0.07)
    losses.add_argument(
        "--teacher_centroid",
        type=fraction,
        default=0.5,
        help="share of the speaker's mean teacher vector in the target",
    )

    data = parser.add_argument_group("the crops")
    data.add_argument("--crop_frames", type=positive_int, default=257, help="257 are 2.57 s")
    data.add_argument(
        "--num_views",
        type=positive_int,
        default=1,
        help="crops cut out of each waveform on the training device; raise it where "
        "a GPU waits for the readers",
    )
    data.add_argument(
        "--balance",
        type=fraction,
        default=1.0,
        help="1: every utterance equally often; 0: every corpus and speaker",
    )
    data.add_argument("--keep_silence", action="store_true", help="do not cut out silence")
    data.add_argument(
        "--no_join",
        action="store_true",
        help="repeat short clips instead of joining others of the speaker",
    )
    data.add_argument(
        "--speeds",
        type=positive_float,
        nargs="+",
        default=[1.0],
        help="speeds to play at, each as a speaker of its own; a teacher file brings its own",
    )

    data.add_argument(
        "--speed_change",
        type=fraction,
        default=0.67,
        help="how often the speed is changed, where there are several",
    )

    changes = parser.add_argument_group("augmentation (probabilities)")
    for name in (*AUGMENTATIONS, "flip", "spec_mask"):
        default = getattr(AugmentSettings(), name)
        changes.add_argument(
            f"--{name}", type=fraction, default=default, metavar="P", help=f"default {default}"
        )
    changes.add_argument("--noise_dir", default="", help="folder of noise recordings")
    changes.add_argument("--rir_dir", default="", help="folder of room impulse responses")
    changes.add_argument("--snr_db", type=float, nargs=2, default=[0.0, 20.0])
    changes.add_argument("--babble_snr_db", type=float, nargs=2, default=[3.0, 20.0])


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
    if not args.teacher and args.classification_weight == 0:
        parser.error("--classification_weight 0 needs a --teacher: there is nothing to learn from")


def to_settings(args: argparse.Namespace) -> TrainingSettings:
    """Returns the settings that the options stand for."""
    changes = {item.name: _frozen(getattr(args, item.name)) for item in fields(AugmentSettings)}
    return TrainingSettings(
        model_dir=args.model_dir,
        num_epochs=args.num_epoch,
        steps_per_epoch=args.steps_per_epoch,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        warmup_steps=args.warmup_steps,
        precision=args.precision,
        network=args.network,
        keep_statistics=args.keep_statistics,
        head_only=args.head_only,
        widths=tuple(args.widths),
        num_blocks=tuple(args.num_blocks),
        embedding_size=args.embedding_size,
        checkpoint_minutes=args.checkpoint_minutes,
        keep_checkpoints=args.keep_checkpoints,
        num_workers=args.num_workers,
        losses=LossSettings(
            name=args.loss,
            margin=DEFAULT_MARGINS[args.loss] if args.margin is None else args.margin,
            scale=args.scale,
            classification=args.classification_weight,
            distance=args.distance_weight if args.teacher else 0.0,
            contrast=args.contrast_weight if args.teacher else 0.0,
            temperature=args.temperature,
        ),
        reader=ReaderSettings(
            batch_size=args.batch_size,
            crop_frames=args.crop_frames,
            num_views=args.num_views,
            seed=args.seed,
            balance=args.balance,
            remove_silence=not args.keep_silence,
            join_clips=not args.no_join,
            speeds=tuple(sorted(args.speeds)),
            speed_change=args.speed_change,
            teacher=args.teacher,
            teacher_centroid=args.teacher_centroid,
            augment=AugmentSettings(**changes),
        ),
    )


def _frozen(value: Any) -> Any:
    """Turns a list of the command line into a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _gpu(text: str) -> str:
    """Reads which GPUs to use, as an argparse type."""
    if not re.fullmatch(r"|\d+(,\d+)*|cpu(:[1-9]\d*)?", text):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected 0 or 0,1 or cpu or cpu:2")
    return text

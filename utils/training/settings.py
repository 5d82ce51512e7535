"""What defines a training run; the options of train.py fill it."""

from dataclasses import dataclass, field

from utils.crops.batches import ReaderSettings
from utils.processors import num_processors
from utils.settings import option

DEFAULT_MARGINS = {"softmax": 0.0, "am_softmax": 0.2, "aam_softmax": 0.2, "sphereface2": 0.2}
"""The losses of `utils.training.losses.CLASSIFICATION_LOSSES`, with their papers' margins."""

NETWORK_NAMES = ("resnet34", "campplus", "ecapa_tdnn")
"""The networks of `utils.networks.catalogue.NETWORKS`."""

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class LossSettings:
    """Which losses are added up, and their weights."""

    name: str = option("aam_softmax", name="loss", choices=sorted(DEFAULT_MARGINS))
    margin: float = option(
        0.2, "non_negative_float", "margin of all losses but softmax; default 0.2", preset=None
    )
    margin_steps: int = option(0, "non_negative_int", "steps over which the margin grows from 0")
    num_subcenters: int = option(
        1, "positive_int", "vectors of each speaker; the nearest counts (not with softmax)"
    )
    nearest_penalty: float = option(
        0.0,
        "non_negative_float",
        "angle by which the nearest wrong speakers come nearer; am_softmax and aam_softmax",
        name="inter_topk_penalty",
    )
    num_nearest: int = option(5, "positive_int", "how many wrong speakers", name="inter_topk")
    scale: float = option(32.0, "positive_float")
    classification: float = option(1.0, "non_negative_float", name="classification_weight")
    distance: float = option(
        0.0,
        "non_negative_float",
        "weight of 2 (1 - cosine) to the teacher",
        name="distance_weight",
        preset=1.0,
    )
    contrast: float = option(
        0.0,
        "non_negative_float",
        "weight of picking the own teacher vector out of the batch",
        name="contrast_weight",
        preset=0.3,
    )
    temperature: float = option(0.07, "positive_float")


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that defines a training run; a checkpoint keeps it."""

    model_dir: str = option("models", help="folder for checkpoints and logs")
    num_epochs: int = option(50, "positive_int", "epochs in all", name="num_epoch")
    steps_per_epoch: int = option(
        0, "non_negative_int", "batches an epoch; 0: as many as go through the list once"
    )
    learning_rate: float = option(1e-3, "positive_float")
    weight_decay: float = option(1e-4, "non_negative_float")
    warmup_steps: int = option(500, "non_negative_int")
    body_rate: float = option(
        1.0, "fraction", "share of the learning rate for the network before its classification"
    )
    precision: str = option("float32", choices=PRECISIONS)
    network: str = option("resnet34", choices=NETWORK_NAMES)
    keep_statistics: bool = option(
        False, help="batch normalisation keeps the means and variances of --init"
    )
    widths: tuple[int, ...] = option((32, 64, 128, 256), "positive_int", "of resnet34", nargs=4)
    num_blocks: tuple[int, ...] = option((3, 4, 6, 3), "positive_int", "of resnet34", nargs=4)
    embedding_size: int = option(192, "positive_int")
    checkpoint_minutes: float = option(
        10.0, "positive_float", "longest time between two checkpoints, inside an epoch too"
    )
    keep_checkpoints: int = option(
        1, "positive_int", "newest checkpoints that are kept, besides the best"
    )
    num_workers: int = option(
        1,
        "non_negative_int",
        "processes that read and augment; 0: none of their own",
        preset=max(1, min(16, num_processors() - 1)),
    )
    losses: LossSettings = field(default_factory=LossSettings)
    reader: ReaderSettings = field(default_factory=ReaderSettings)


@dataclass(frozen=True)
class RunOptions:
    """Where a training runs, what it reads, and what it begins with."""

    gpu: str = option(
        "",
        "gpus",
        "GPUs to use; default all; cpu for none; cpu:2 for two logical devices",
        metavar="0,1",
    )
    resume: str = option("", help="checkpoint to go on from", metavar="FILE")
    init: str = option("", help="model whose weights to begin with", metavar="FILE")
    num_classes: int | None = option(
        None, "positive_int", "number of speakers; default: read from the training list"
    )
    train_list_path: str = option(
        "dataset/train_list.txt",
        help="list, or shards of create_data.py: folder, https:// or s3://",
    )
    hosts: str = option(
        "",
        help="train on several hosts: address of the first, or auto for Slurm's (JAX)",
        metavar="HOST0:PORT",
    )
    num_hosts: int | None = option(
        None, "positive_int", "how many hosts (default: Slurm's SLURM_NTASKS)"
    )
    host_id: int | None = option(
        None, "non_negative_int", "this host, from 0 (default: Slurm's or Kubernetes' variable)"
    )
    test_list_path: str = option(
        "dataset/test_list.txt", help="list for validation; empty for none"
    )

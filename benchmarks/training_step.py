"""Measures a training step: this project's layers and precision against stock Keras.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --networks ours --batch_size 32 --steps 100

Both sides train the same network from the same weights on the same batches of synthetic voices, in
turns in one process. Stock: keras.layers.BatchNormalization in float32, as `fit` does it by
default. Ours: the fused normalisation of utils/resnet.py in mixed bfloat16 (`train.py --precision
mixed_bfloat16`). Two networks: this project's, and the baseline's, with its full-resolution stem.
The
losses of both sides are compared step by step. The times of large matrix products in both
precisions say how much faster 16 bits can make a step on this processor at the most.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.measuring import Row, add_json_option, median, table, write_results
from utils.arguments import make_parser, positive_int
from utils.errors import run_script

TITLES = {"ours": "this project's network", "baseline": "the baseline's network"}
NUM_SPEAKERS = 16
CLIPS_A_SPEAKER = 2
CLIP_S = 4.0
PRECISION = "mixed_bfloat16"
PEAK_SIZE = 2048


@dataclass
class Curve:
    """Losses and seconds of the steps of one side."""

    losses: list[float]
    seconds: list[float]

    @property
    def step_s(self) -> float:
        """Median of the seconds, without the first step, which compiles."""
        return median(self.seconds[1:])


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--networks", nargs="+", choices=list(TITLES), default=list(TITLES))
    add("--batch_size", type=positive_int, default=16, help="crops in a batch")
    add("--steps", type=positive_int, default=30, help="steps of our network, at least 3")
    add(
        "--baseline_batch_size",
        type=positive_int,
        default=8,
        help="batch of the baseline's network",
    )
    add("--baseline_steps", type=positive_int, default=5, help="steps of the baseline's network")
    add("--crop_frames", type=positive_int, default=257, help="length of a crop; 257 are 2.57 s")
    add("--widths", type=positive_int, nargs=4, default=[32, 64, 128, 256])
    add("--num_blocks", type=positive_int, nargs=4, default=[3, 4, 6, 3])
    add_json_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from utils.model.backend import start_backend

    start_backend()
    rows, lines, curves, times = [], [], [], {}
    for name in args.networks:
        stock, ours = measure(name, args)
        times[name] = min(stock.seconds[1:]), min(ours.seconds[1:])
        ratio = stock.step_s / ours.step_s
        size = args.batch_size if name == "ours" else args.baseline_batch_size
        what = f"training step, {TITLES[name]}, batch of {size}"
        stock_cell = f"stock Keras, float32: {stock.step_s:.2f} s"
        rows.append(Row(what, stock_cell, f"{ours.step_s:.2f} s", f"{ratio:.1f}x", ">= 3x"))
        lines.append([TITLES[name], f"{size}", f"{stock.step_s:.2f}", f"{ours.step_s:.2f}",
                      f"{size / ours.step_s:.1f}", f"{ratio:.1f}"])  # fmt: skip
        curves.append(describe_losses(TITLES[name], stock.losses, ours.losses))
    header = ["network", "batch", "stock, s a step", "ours, s a step", "ours, crops/s", "ratio"]
    details = "\n\n".join([table(header, lines), *curves, describe_limit(args, times)])
    print(details)
    write_results(args.json, rows, details, ["tensorflow", "keras"])
    return 0


def measure(name: str, args: argparse.Namespace) -> tuple[Curve, Curve]:
    """Trains both sides alternately; returns stock's and our curve."""
    import keras

    from utils.resnet import FusedBatchNormalization

    build = build_ours if name == "ours" else build_baseline
    num_steps = args.steps if name == "ours" else args.baseline_steps
    size = args.batch_size if name == "ours" else args.baseline_batch_size
    sides = []
    for normalization, policy in (
        (keras.layers.BatchNormalization, "float32"),
        (FusedBatchNormalization, PRECISION),
    ):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        sides.append(build(normalization, args))
    keras.config.set_dtype_policy("float32")
    sides[1].set_weights(sides[0].get_weights())
    curves = [Curve([], []), Curve([], [])]
    waveforms, speakers = make_voices()
    rng = np.random.default_rng(0)
    num_samples = (args.crop_frames - 1) * 160
    for _ in range(num_steps):
        arrays: tuple[Any, Any] = make_batch(waveforms, speakers, size, num_samples, rng)
        if name == "baseline":
            arrays = baseline_batch(*arrays)
        for model, curve in zip(sides, curves, strict=True):
            start = time.perf_counter()
            result = model.train_on_batch(*arrays, return_dict=True)
            curve.losses.append(float(result["loss"]))
            curve.seconds.append(time.perf_counter() - start)
    return curves[0], curves[1]


def build_ours(normalization: Any, args: argparse.Namespace) -> Any:
    """Returns the compiled learner around our network with such a normalisation."""
    import keras

    from utils import resnet
    from utils.training.learner import SpeakerLearner
    from utils.training.settings import LossSettings

    with mock.patch.object(resnet, "FusedBatchNormalization", normalization):
        network = resnet.build_resnet34(NUM_SPEAKERS, args.widths, num_blocks=args.num_blocks)
    learner = SpeakerLearner(network, LossSettings())
    learner.compile(optimizer=keras.optimizers.AdamW(3e-3))
    learner.build({"waveforms": (None, None), "masks": (None, 1, 4)})
    learner.optimizer.build(learner.trainable_variables)  # else the step is compiled twice
    return learner


def build_baseline(normalization: Any, args: argparse.Namespace) -> Any:
    """Returns the baseline's network, compiled, with the given normalisation."""
    import keras

    from benchmarks.baseline import build_network

    del args
    network = build_network(NUM_SPEAKERS, normalization)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer=keras.optimizers.Adam(1e-4), loss=[loss, None])
    return network


def make_voices() -> tuple[np.ndarray, np.ndarray]:
    """Returns waveforms `(clips, num_samples)` of synthetic voices, and their speakers."""
    from tests.support.synthetic_voices import synthetic_speech

    speakers = np.repeat(np.arange(NUM_SPEAKERS), CLIPS_A_SPEAKER)
    clips = [synthetic_speech(int(s), n % CLIPS_A_SPEAKER, CLIP_S) for n, s in enumerate(speakers)]
    return np.stack(clips), speakers


def make_batch(
    waveforms: np.ndarray, speakers: np.ndarray, size: int, num_samples: int,
    rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:  # fmt: skip
    """Returns a batch of random crops as `SpeakerLearner` takes it, of each speaker as many."""
    # Otherwise the losses would mainly reflect the speakers in each batch.
    rounds = -(-size // NUM_SPEAKERS)
    order = np.concatenate([rng.permutation(NUM_SPEAKERS) for _ in range(rounds)])[:size]
    chosen = CLIPS_A_SPEAKER * order + rng.integers(0, CLIPS_A_SPEAKER, size)
    starts = rng.integers(0, waveforms.shape[1] - num_samples + 1, size)
    crops = np.stack([waveforms[c, s : s + num_samples] for c, s in zip(chosen, starts)])  # noqa: B905
    crops = crops + rng.normal(0.0, 0.002, crops.shape)
    inputs: dict[str, np.ndarray] = {
        "waveforms": np.round(crops * 32767.0).astype(np.int16),
        "masks": np.zeros((size, 1, 4), np.int32),
    }
    ones = np.ones(size, np.float32)
    targets = {
        "labels": speakers[chosen].astype(np.int32), "has_class": ones,
        "teachers": np.zeros((size, 1), np.float32), "has_teacher": 0 * ones,
    }  # fmt: skip
    return inputs, targets


def baseline_batch(
    inputs: dict[str, np.ndarray], targets: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same batch for the baseline's network: spectrograms and labels."""
    from utils.audio.spectrogram import spectrogram

    features = [spectrogram(waveform / np.float32(32767)) for waveform in inputs["waveforms"]]
    return np.stack(features)[..., np.newaxis], targets["labels"]


def describe_losses(title: str, stock: Sequence[float], ours: Sequence[float]) -> str:
    """Compares the difference between two curves with that between successive batches."""
    difference = float(np.mean(np.abs(np.subtract(stock, ours))))
    last = max(1, len(stock) // 4)
    # From successive differences, to exclude the descent itself; half of the variance per batch.
    noise = float(np.median(np.abs(np.diff(stock[last:]))) / np.sqrt(2))
    ends = [float(np.mean(losses[-last:])) for losses in (stock, ours)]
    return (
        f"Losses of {title} over {len(stock)} steps: stock {stock[0]:.3f} -> {ends[0]:.3f}, ours "
        f"{ours[0]:.3f} -> {ends[1]:.3f} (first step -> mean of the last {last}). The two of a "
        f"step differ by {difference:.3f} on average; the noise from batch to batch is {noise:.3f}."
    )


def describe_limit(args: argparse.Namespace, times: dict[str, tuple[float, float]]) -> str:
    """Describes the times of large matrix products and of the network's convolutions alone."""
    peaks = {name: matrix_product_speed(name) for name in ("float32", "bfloat16")}
    text = (
        f"What the processor can do, measured with products of {PEAK_SIZE} x {PEAK_SIZE} matrices: "
        f"{peaks['float32']:.0f} GFLOP/s in float32, {peaks['bfloat16']:.0f} in bfloat16, "
        f"{peaks['bfloat16'] / peaks['float32']:.1f} times as many."
    )
    if "ours" not in times:
        return text
    stock_s, ours_s = times["ours"]
    alone, operations = {}, 0.0
    for name in peaks:
        seconds = [convolution_seconds(name, args.batch_size, *shape) for shape in stages(args)]
        alone[name] = sum(seconds)
    for height, width, channels, count in stages(args):
        operations += 3 * count * 2 * 9 * args.batch_size * height * width * channels**2
    least_s = operations / peaks["bfloat16"] / 1e9
    return (
        f"{text} The 3 x 3 convolutions of this project's network, forward and both gradients, "
        f"take {alone['float32']:.2f} s of stock's step when they run alone in float32 and "
        f"{alone['bfloat16']:.2f} s of ours in bfloat16. With nothing else in the step, and these "
        f"at the speed of matrix products, it would take {least_s:.2f} s: {stock_s / least_s:.1f} "
        f"times as fast as stock's fastest step is the limit of this network on this processor; "
        f"our fastest step is {stock_s / ours_s:.1f} times as fast."
    )


def stages(args: argparse.Namespace) -> list[tuple[int, int, int, int]]:
    """Returns height, width, channels and number of the 3 x 3 convolutions of stride 1."""
    from utils.audio.spectrogram import NUM_BINS
    from utils.resnet import STAGE_STRIDES

    height, width = -(-NUM_BINS // 4), -(-args.crop_frames // 4)
    shapes = []
    for (down, along), channels, blocks in zip(
        STAGE_STRIDES, args.widths, args.num_blocks, strict=True
    ):
        height, width = -(-height // down), -(-width // along)
        shapes.append((height, width, channels, 2 * blocks - (down > 1)))
    return shapes


def convolution_seconds(
    precision: str, batch_size: int, height: int, width: int, channels: int, count: int
) -> float:
    """Returns the seconds of a number of convolutions, forward and backward."""
    import tensorflow as tf

    images = tf.cast(tf.random.normal((batch_size, height, width, channels)), precision)
    kernel = tf.cast(tf.random.normal((3, 3, channels, channels)), precision)
    options: dict[str, Any] = {"strides": [1] * 4, "padding": "SAME"}
    raw = tf.raw_ops
    operations: list[Callable[[], Any]] = [
        lambda: raw.Conv2D(input=images, filter=kernel, **options),
        lambda: raw.Conv2DBackpropInput(
            input_sizes=images.shape, filter=kernel, out_backprop=images, **options
        ),
        lambda: raw.Conv2DBackpropFilter(
            input=images, filter_sizes=kernel.shape, out_backprop=images, **options
        ),
    ]
    return count * sum(least_seconds(operation) for operation in operations)


def matrix_product_speed(precision: str) -> float:
    """Returns GFLOP/s of large matrix products."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((PEAK_SIZE, PEAK_SIZE)), precision)
    return 2 * PEAK_SIZE**3 / least_seconds(lambda: tf.matmul(matrix, matrix)) / 1e9


def least_seconds(operation: Callable[[], Any], num_tries: int = 6) -> float:
    """Returns the shortest time of a TensorFlow operation in seconds, after a warm-up."""
    seconds = []
    for _ in range(num_tries + 1):
        start = time.perf_counter()
        _ = operation().numpy()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


if __name__ == "__main__":
    run_script(main)

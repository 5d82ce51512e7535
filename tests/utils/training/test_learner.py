import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech
from tests.support.tiny_model import SHAPE
from utils.audio.spectrogram import spectrogram
from utils.crops.batches import INT16_SCALE
from utils.crops.draws import VIEW_MARGIN_FRAMES, draw_views
from utils.resnet import build_resnet34
from utils.training.learner import SpeakerLearner, mask_spectrograms
from utils.training.losses import aam_softmax
from utils.training.settings import LossSettings

NUM_FRAMES = 33


@pytest.fixture
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def batch(
    size: int = 4, num_views: int = 1, teacher_size: int = 1
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    margin = VIEW_MARGIN_FRAMES if num_views > 1 else 0
    num_samples = 160 * (NUM_FRAMES + margin - 1)
    waves = [synthetic_speech(k, 0, 2.0)[8000 : 8000 + num_samples] for k in range(size)]
    random = np.random.default_rng(0)
    teachers = random.normal(size=(size, teacher_size)).astype(np.float32)
    inputs = {
        "waveforms": np.round(np.stack(waves) * INT16_SCALE).astype(np.int16),
        "masks": np.zeros((size, num_views, 4), np.int32),
        **draw_views(random, size, num_views),
    }
    targets = {
        "labels": np.arange(size, dtype=np.int32) % 3,
        "has_class": np.ones(size, np.float32),
        "teachers": teachers / np.linalg.norm(teachers, axis=1, keepdims=True),
        "has_teacher": np.ones(size, np.float32),
    }
    return inputs, targets


def make(losses: LossSettings | None = None, **options: Any) -> SpeakerLearner:
    keras.utils.set_random_seed(0)
    learner = SpeakerLearner(build_resnet34(3, **SHAPE), losses or LossSettings(), **options)
    learner.compile(optimizer=keras.optimizers.AdamW(1e-3))
    return learner


def test_outputs_are_those_of_the_network_on_our_features() -> None:
    learner = make()
    inputs, _ = batch()
    outputs = {name: np.asarray(value) for name, value in learner(inputs).items()}
    waves = inputs["waveforms"] / np.float32(INT16_SCALE)
    features = np.stack([spectrogram(wave) for wave in waves])[..., None]
    for name, expected in zip(
        ("classification", "embedding"), learner.network(features), strict=True
    ):
        np.testing.assert_allclose(outputs[name], np.asarray(expected), atol=1e-3)


def test_masks_set_a_band_and_a_stretch_of_time_to_zero() -> None:
    inputs = np.ones((2, 257, 10, 1), np.float32)
    masks = np.array([[10, 20, 3, 5], [0, 0, 0, 0]], np.int32)
    masked = np.asarray(mask_spectrograms(keras.ops.convert_to_tensor(inputs), masks))
    expected = inputs.copy()
    expected[0, 10:20] = 0
    expected[0, :, 3:5] = 0
    np.testing.assert_array_equal(masked, expected)


def test_loss_is_the_mean_over_the_samples_with_a_class() -> None:
    learner = make()
    inputs, targets = batch()
    targets["has_class"][1] = 0.0
    outputs = learner(inputs)
    loss = float(learner.compute_loss(y=targets, y_pred=outputs))
    each = np.asarray(aam_softmax(outputs["classification"], targets["labels"], 0.2, 32.0))
    assert loss == pytest.approx(each[[0, 2, 3]].mean(), rel=1e-5)
    targets["has_class"][:] = 0.0
    assert float(learner.compute_loss(y=targets, y_pred=outputs)) == 0.0


def test_margin_grows_with_the_steps() -> None:
    inputs, targets = batch()
    learner = make(LossSettings(margin=0.3, margin_steps=2))
    outputs = {
        name: keras.ops.convert_to_tensor(np.asarray(found))
        for name, found in learner(inputs).items()
    }
    learner.optimizer.build(learner.trainable_variables)
    for step, margin in enumerate([0.0, 0.15, 0.3, 0.3]):
        learner.optimizer.iterations.assign(step)
        loss = float(learner.compute_loss(y=targets, y_pred=outputs))
        each = np.asarray(aam_softmax(outputs["classification"], targets["labels"], margin, 32.0))
        assert loss == pytest.approx(each.mean(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "losses",
    [
        LossSettings("sphereface2"),
        LossSettings("aam_softmax", nearest_penalty=0.06, num_nearest=1, margin_steps=10),
    ],
    ids=["sphereface2", "inter-top-k"],
)
def test_a_step_lowers_the_loss(losses: LossSettings) -> None:
    inputs, targets = batch()
    learner = make(losses)
    learner.run_eagerly = losses.name != "sphereface2"  # one of them is compiled
    values = [learner.train_on_batch(inputs, targets, return_dict=True)["loss"] for _ in range(6)]
    assert np.isfinite(values).all() and values[-1] < values[0]
    if losses.name == "sphereface2":
        assert learner.bias is not None and float(learner.bias) != 0
        assert any(weight is learner.bias for weight in learner.trainable_variables)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_the_body_moves_by_smaller_steps() -> None:
    from utils.training.optimizer import make_optimizer

    inputs, targets = batch()
    moved = {}
    for share in (1.0, 0.1, 0.0):
        learner = make()
        learner.compile(optimizer=make_optimizer(1e-3, 0.0, share))
        before = {
            weight.path: np.asarray(weight).copy() for weight in learner.network.trainable_weights
        }
        learner.train_on_batch(inputs, targets)
        moved[share] = {
            weight.path: float(np.abs(np.asarray(weight) - before[weight.path]).max())
            for weight in learner.network.trainable_weights
        }
    head = "classification/kernel"
    assert moved[0.1][head] == pytest.approx(moved[1.0][head], rel=1e-3) != 0
    for path, distance in moved[1.0].items():
        if path != head:
            assert moved[0.1][path] == pytest.approx(0.1 * distance, rel=1e-2, abs=1e-7)
            assert moved[0.0][path] == 0


@pytest.mark.slow
@pytest.mark.parametrize("teacher_size", [16, 24])
def test_teacher_losses_are_added_with_their_weights(teacher_size: int) -> None:
    inputs, targets = batch(teacher_size=teacher_size)
    targets["has_teacher"][0] = 0.0

    def loss_of(**weights: float) -> float:
        learner = make(LossSettings(**weights), teacher_size=teacher_size)
        learner.build({"waveforms": inputs["waveforms"].shape})
        assert (learner.bridge is not None) == (teacher_size != 16)
        return float(learner.compute_loss(y=targets, y_pred=learner(inputs)))

    only_class = loss_of(distance=0.0001)
    distance = loss_of(classification=0.0, distance=1.0)
    contrast = loss_of(classification=0.0, distance=1.0, contrast=1.0) - distance
    assert 0 < distance < 4
    assert contrast > 0
    everything = loss_of(classification=2.0, distance=3.0, contrast=0.5)
    assert everything == pytest.approx(2 * only_class + 3 * distance + 0.5 * contrast, rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("num_views", [1, 2])
def test_steps_on_one_batch_lower_the_loss(num_views: int) -> None:
    learner = make(num_views=num_views)
    inputs, targets = batch(num_views=num_views)
    assert learner(inputs)["embedding"].shape == (4 * num_views, 16)
    losses = [learner.train_on_batch(inputs, targets, return_dict=True) for _ in range(5)]
    assert losses[0].keys() == {"loss", "accuracy"}
    assert losses[-1]["loss"] < losses[0]["loss"]


def test_targets_are_repeated_for_the_views() -> None:
    learner = make(num_views=2)
    _, targets = batch(num_views=2)
    repeated = learner._repeat(targets)
    np.testing.assert_array_equal(np.asarray(repeated["labels"]), [0, 0, 1, 1, 2, 2, 0, 0])
    assert repeated["teachers"].shape == (8, 1)


def test_accuracy_counts_the_samples_with_a_class() -> None:
    learner = make()
    inputs, targets = batch()
    named = np.asarray(learner(inputs)["classification"]).argmax(axis=1)
    targets["labels"] = np.where([True, True, False, False], named, (named + 1) % 3).astype("int32")
    targets["has_class"] = np.array([1, 1, 1, 0], np.float32)
    figures = learner.compute_metrics(inputs, targets, learner(inputs))
    assert float(figures["accuracy"]) == pytest.approx(2 / 3)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"], indirect=True)
def test_a_step_in_16_bits(precision: str) -> None:
    learner = make()
    inputs, targets = batch()
    before = learner.network.get_weights()
    logs = [learner.train_on_batch(inputs, targets, return_dict=True) for _ in range(3)]
    assert all(np.isfinite(log["loss"]) for log in logs)
    assert all(weight.dtype == "float32" for weight in learner.network.weights)
    after = learner.network.get_weights()
    assert any((new != old).any() for new, old in zip(after, before, strict=True))
    exact = make_float_loss()
    assert logs[0]["loss"] == pytest.approx(exact, rel=0.05)


@functools.cache
def make_float_loss() -> float:
    """Returns the loss of the same first step in 32 bits."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    loss = make().train_on_batch(*batch(), return_dict=True)["loss"]
    keras.config.set_dtype_policy(policy)
    return float(loss)


MIRRORED = """
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np

import utils.training.run
from tests.utils.training import test_learner
from utils.training.devices import select_devices
from utils.training.run import TrainingRun

strategy = select_devices("cpu:2", "float32")
import keras

assert strategy.num_replicas_in_sync == 2
# A batch of the reader is replaced by what becomes of it.
utils.training.run.batch_arrays = lambda batch: batch.arrays
batches = []
for first in range(6):
    # Each device gets the same two samples, so that its batch normalisation sees the same.
    rows = [first % 4, (first + 1) % 4] * 2
    arrays = tuple({k: v[rows] for k, v in d.items()} for d in test_learner.batch(4))
    batches.append(SimpleNamespace(arrays=arrays, problems=[]))
results = {}
for name, used in (("one", None), ("two", strategy)):
    with used.scope() if used else nullcontext():
        learner = test_learner.make()
        learner.compile(optimizer=keras.optimizers.SGD(test_learner.LEARNING_RATE))
    before = learner.network.get_weights()
    training = SimpleNamespace(strategy=used, learner=learner, _reported=set())
    training._feed = lambda *args, training=training: TrainingRun._feed(training, *args)
    interruption = SimpleNamespace(is_requested=False)
    calls = []
    call = learner.call
    learner.call = lambda *args, calls=calls, call=call, **o: calls.append(1) or call(*args, **o)
    figures = []
    reader = iter(batches)
    for _ in range(3):
        shown, num_done = TrainingRun._train_steps(training, reader, 2, Mock(), interruption)
        assert num_done == 2
        figures += [shown["loss"], shown["accuracy"]]
        calls.append(-1)
    assert calls[calls.index(-1):] == [-1, -1, -1], "traced again"
    updates = [new - old for new, old in zip(learner.network.get_weights(), before)]
    results |= {f"figures_{name}": figures}
    results |= {f"update_{name}_{number}": update for number, update in enumerate(updates)}
np.savez(sys.argv[1], **results)
"""

LEARNING_RATE = 1e-3
"""Of SGD, whose updates are proportional to the gradients; Adam's first ones are their signs, which
rounding turns where a gradient is next to nothing."""


@pytest.mark.slow
def test_two_devices_train_as_one(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.npz"
    run = subprocess.run(
        [sys.executable, "-c", MIRRORED, path],
        capture_output=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    results = np.load(path)
    # Sums of float32 in another order differ by 1e-7 of the largest term, at each of some twenty
    # layers and six steps; a gradient that is summed instead of averaged differs by 1.
    np.testing.assert_allclose(results["figures_one"], results["figures_two"], rtol=1e-3)
    for number in range(sum(name.startswith("update_one") for name in results)):
        one, two = results[f"update_one_{number}"], results[f"update_two_{number}"]
        assert np.abs(one - two).max() <= 1e-2 * max(np.abs(one).max(), 1e-7), number

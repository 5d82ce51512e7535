"""ECAPA-TDNN: its parts against plain NumPy, its size, saving, export, training."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech
from tests.support.tiny_model import CALIBRATION, build_tiny_ecapa_tdnn
from utils.audio.spectrogram import extend
from utils.crops.batches import INT16_SCALE
from utils.export.onnx import write_onnx
from utils.model.archive import load_network, write_model
from utils.model.header import read_header
from utils.model.onnx import load_onnx_network
from utils.networks.ecapa_tdnn import ChannelGroup, ContextStatistics, build_ecapa_tdnn
from utils.networks.features import FEATURES, compute_features
from utils.training.learner import SpeakerLearner
from utils.training.settings import LossSettings


def features(num_frames: int, batch: int = 2) -> np.ndarray:
    random = np.random.default_rng(num_frames)
    return random.normal(size=(batch, 80, num_frames, 1)).astype(np.float32)


def array(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.mark.parametrize("num_frames", [1, 3, 98, 201])
def test_any_length(num_frames: int) -> None:
    classification, embedding = build_tiny_ecapa_tdnn()(features(num_frames))
    assert classification.shape == (2, 3)
    np.testing.assert_allclose(np.linalg.norm(array(embedding), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("channels", "millions"), [(512, 6.2), (1024, 14.7)])
def test_size_of_the_published_network(channels: int, millions: float) -> None:
    # Table 1 of the paper.
    count = build_ecapa_tdnn(1, channels).count_params()
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


def test_group_of_channels() -> None:
    maps = np.arange(2 * 5 * 8, dtype=np.float32).reshape(2, 1, 5, 8)
    layer = ChannelGroup(1, 4)
    np.testing.assert_array_equal(array(layer(maps)), maps[..., 2:4])
    assert layer.compute_output_shape((None, 1, None, 8)) == (None, 1, None, 2)
    copy = ChannelGroup.from_config(layer.get_config())
    np.testing.assert_array_equal(array(copy(maps)), maps[..., 2:4])


def test_every_channel_weighs_the_frames_by_itself() -> None:
    random = np.random.default_rng(1)
    maps = random.normal(size=(2, 1, 7, 5)).astype(np.float32)
    layer = ContextStatistics(3)
    layer.build(maps.shape)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.weights])
    # W and b of the frame, W of mean and deviation, then V and k: equations 1 to 4.
    weights = {weight.path.split("/", 1)[-1]: array(weight) for weight in layer.weights}
    frames = maps[:, 0].astype(np.float64)
    whole = np.concatenate([frames.mean(axis=1), frames.std(axis=1)], axis=1)
    hidden = frames @ weights["hidden/kernel"] + weights["hidden/bias"]
    hidden = np.tanh(hidden + (whole @ weights["context/kernel"])[:, None])
    scores = np.exp(hidden @ weights["weight/kernel"] + weights["weight/bias"])
    shares = scores / scores.sum(axis=1, keepdims=True)
    mean = (shares * frames).sum(axis=1)
    deviation = np.sqrt((shares * frames**2).sum(axis=1) - mean**2)
    expected = np.concatenate([mean, deviation], axis=1)
    np.testing.assert_allclose(array(layer(maps)), expected, atol=1e-4)
    assert layer.compute_output_shape((None, 1, None, 5)) == (None, 10)
    copy = ContextStatistics.from_config(layer.get_config())
    copy.build(maps.shape)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(array(copy(maps)), array(layer(maps)))


@pytest.mark.parametrize("changes", [{"num_classes": 0}, {"channels": 18}])
def test_refuses_impossible_shapes(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        build_tiny_ecapa_tdnn(**changes)


@pytest.mark.slow
def test_saved_and_loaded(tmp_path: Path) -> None:
    network = build_tiny_ecapa_tdnn(num_subcenters=2)
    path = tmp_path / "tiny.keras"
    write_model(path, network, {"embedding_size": 16, **CALIBRATION})
    assert read_header(path).metadata["features"] == FEATURES["filterbank"]
    loaded = load_network(path)
    for ours, theirs in zip(network(features(60)), loaded(features(60)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [250, 400, 9000, 48160])
def test_onnx_equals_keras_at_any_length(tmp_path: Path, num_samples: int) -> None:
    network = build_tiny_ecapa_tdnn()
    write_model(tmp_path / "tiny.keras", network, {"embedding_size": 16})
    write_onnx(tmp_path / "tiny.keras", tmp_path / "tiny.onnx", half_precision=False)
    waveform = extend(synthetic_speech(1, 0, 3.0), num_samples)
    inputs = compute_features("filterbank", waveform)[None, :, :, None]
    expected = array(network(inputs, training=False)[1])[0]
    embedding = load_onnx_network(tmp_path / "tiny.onnx", num_threads=1)(waveform)
    np.testing.assert_allclose(embedding, expected, atol=2e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_training_step_lowers_the_loss(precision: str) -> None:
    keras.config.set_dtype_policy(precision)
    try:
        network = build_tiny_ecapa_tdnn(num_subcenters=2)
    finally:
        keras.config.set_dtype_policy("float32")
    learner = SpeakerLearner(network, LossSettings(num_subcenters=2))
    learner.compile(optimizer=keras.optimizers.AdamW(2e-3))
    waves = np.stack([synthetic_speech(k, 0, 1.0)[:10640] for k in range(3)])
    inputs = {
        "waveforms": np.round(waves * INT16_SCALE).astype(np.int16),
        "masks": np.zeros((3, 1, 4), np.int32),
    }
    targets = {
        "labels": np.arange(3, dtype=np.int32),
        "has_class": np.ones(3, np.float32),
        "teachers": np.ones((3, 1), np.float32),
        "has_teacher": np.zeros(3, np.float32),
    }
    values = [learner.train_on_batch(inputs, targets, return_dict=True)["loss"] for _ in range(5)]
    assert np.isfinite(values).all() and values[-1] < values[0]
    outputs = learner(inputs)
    assert {str(value.dtype) for value in outputs.values()} == {"<dtype: 'float32'>"}

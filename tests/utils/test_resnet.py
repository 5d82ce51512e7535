from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.synthetic_voices import synthetic_speech
from tests.support.tiny_model import SHAPE, build_tiny_network
from utils.audio.spectrogram import magnitude, spectrogram
from utils.resnet import (
    AttentiveStatistics,
    CosineClassifier,
    FusedBatchNormalization,
    LogCompression,
    Spectrogram,
    UnitLength,
    build_resnet34,
)


@pytest.fixture(scope="module")
def network() -> Any:
    return build_tiny_network()


@pytest.fixture
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def spectrograms(num_samples: int = 16000, batch: int = 2) -> np.ndarray:
    waves = [synthetic_speech(speaker, 0, num_samples / 16000) for speaker in range(batch)]
    return np.stack([spectrogram(wave) for wave in waves])[..., None]


# --- The whole network ----------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [17, 31, 257, 300])
def test_any_length_gives_unit_embeddings_and_cosines(network: Any, num_frames: int) -> None:
    inputs = spectrograms(160 * (num_frames - 1) + 1)
    assert inputs.shape == (2, 257, num_frames, 1)
    classification, embedding = (np.asarray(output) for output in network(inputs))
    assert classification.shape == (2, 3)
    assert embedding.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, atol=1e-6)
    assert np.abs(classification).max() <= 1 + 1e-6
    kernel = np.asarray(network.get_layer("classification").kernel)
    expected = embedding @ (kernel / np.linalg.norm(kernel, axis=0))
    np.testing.assert_allclose(classification, expected, atol=1e-5)


def test_the_nearest_subcenter_counts() -> None:
    layer = CosineClassifier(num_classes=2, num_subcenters=3)
    rows = np.eye(2, dtype=np.float32)
    layer.build(rows.shape)
    # First vectors of both classes, then their second ones, then their third ones.
    layer.set_weights([np.array([[3, 0, -1, 4, 0, 3], [0, 2, 0, -3, -1, 4]], np.float32)])
    cosines = np.asarray(layer(rows))
    np.testing.assert_allclose(cosines, [[1.0, 0.8], [0.0, 1.0]], atol=1e-6)


def test_each_row_is_computed_alone(network: Any) -> None:
    inputs = spectrograms(batch=3)
    together = np.asarray(network(inputs)[1])
    for row in range(3):
        alone = np.asarray(network(inputs[row : row + 1])[1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


def test_level_of_the_recording_does_not_matter(network: Any) -> None:
    wave = synthetic_speech(0, 0, 1.0)
    loud, soft = (
        np.asarray(network(spectrogram(wave * factor)[None, ..., None])[1])[0]
        for factor in (1.0, 0.25)
    )
    assert loud @ soft > 0.9999


def test_default_network_is_a_resnet34() -> None:
    network = build_resnet34(5)
    convolutions = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D) and "shortcut" not in layer.name
    ]
    assert len(convolutions) == 33  # and one dense layer: 34 with weights on the longest path
    assert network.output_shape == [(None, 5), (None, 192)]
    assert 6_000_000 < network.count_params() < 7_500_000


def test_softmax_head_is_a_linear_layer() -> None:
    network = build_resnet34(3, cosine_classifier=False, **SHAPE)
    assert isinstance(network.get_layer("classification"), keras.layers.Dense)
    assert network.get_layer("classification").use_bias


def test_saved_network_gives_the_same_on_loading(network: Any, tmp_path: Path) -> None:
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    inputs = spectrograms()
    for ours, theirs in zip(network(inputs), loaded(inputs), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("precision", ["mixed_bfloat16"], indirect=True)
def test_mixed_precision_is_close_to_float32(network: Any, precision: str) -> None:
    mixed = build_resnet34(3, **SHAPE)
    mixed.set_weights(network.get_weights())
    assert mixed.get_layer("stem").compute_dtype == "bfloat16"
    inputs = spectrograms()
    ours, exact = np.asarray(mixed(inputs)[1]), np.asarray(network(inputs)[1])
    assert ours.dtype == np.float32
    assert (ours * exact).sum(axis=1).min() > 0.99


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"widths": (4, 4, 8)}, "expected 4 widths"),
        ({"num_blocks": (1, 1)}, "expected 4 widths"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build_resnet34(**{"num_classes": 3, **SHAPE, **changes})


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Spectrogram(), (2, 3200)),
        (LogCompression(offset=0.1), (2, 257, 5, 1)),
        (FusedBatchNormalization(momentum=0.7), (2, 3, 5, 4)),
        (AttentiveStatistics(attention_size=8), (2, 3, 5, 4)),
        (UnitLength(), (2, 6)),
        (CosineClassifier(num_classes=4), (2, 6)),
        (CosineClassifier(num_classes=4, num_subcenters=3), (2, 6)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else "",
)
def test_layer_tells_its_shape_and_comes_back_from_its_config(layer: Any, shape: Any) -> None:
    inputs = noise(*shape)
    outputs = layer(inputs)
    assert tuple(outputs.shape) == tuple(layer.compute_output_shape(shape))
    config = layer.get_config()
    copy = type(layer).from_config(config)
    assert copy.get_config() == config
    copy(inputs)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(np.asarray(copy(inputs)), np.asarray(outputs))
    open_ended = (None, *(None if index == 2 else size for index, size in enumerate(shape[1:], 1)))
    assert layer.compute_output_shape(open_ended)[0] is None


@pytest.mark.parametrize("num_samples", [1, 159, 160, 16000, 40960])
def test_spectrogram_layer_equals_the_numpy_features(num_samples: int) -> None:
    waves = np.stack([synthetic_speech(k, 0, 3.0)[3000 : 3000 + num_samples] for k in range(2)])
    layer = Spectrogram()
    ours = np.asarray(layer(waves))
    assert ours.shape == (2, 257, 1 + num_samples // 160, 1)
    for row, wave in enumerate(waves):
        np.testing.assert_allclose(
            np.asarray(layer.magnitude(waves))[row].T, magnitude(wave), atol=1e-4
        )
        np.testing.assert_allclose(ours[row, ..., 0], spectrogram(wave), atol=1e-3)


def test_spectrogram_of_digital_silence_is_zero() -> None:
    np.testing.assert_array_equal(np.asarray(Spectrogram()(np.zeros((1, 800), np.float32))), 0.0)


def test_log_compression_takes_out_a_fixed_channel() -> None:
    outputs = np.asarray(LogCompression()(spectrograms()))
    np.testing.assert_allclose(outputs.mean(axis=2), 0.0, atol=1e-4)


def test_statistics_without_attention_are_mean_and_deviation() -> None:
    inputs = noise(2, 3, 50, 4)
    outputs = np.asarray(AttentiveStatistics(8)(inputs))  # its weights begin as zeros
    frames = inputs.transpose(0, 2, 1, 3).reshape(2, 50, 12)
    np.testing.assert_allclose(outputs[:, :12], frames.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(outputs[:, 12:], frames.std(axis=1), atol=1e-5)


def test_statistics_of_a_constant_have_a_finite_gradient() -> None:
    layer = AttentiveStatistics(8)
    inputs = tf.ones((1, 3, 5, 4))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs))
    assert np.isfinite(tape.gradient(loss, inputs).numpy()).all()


def test_unit_length_of_zeros_is_finite() -> None:
    np.testing.assert_array_equal(np.asarray(UnitLength()(np.zeros((1, 3)))), 0.0)


# --- Fused batch normalisation --------------------------------------------------------------------


def both_norms(dtype: str, **options: Any) -> tuple[Any, Any]:
    ours = FusedBatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, **options)
    stock = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, **options)
    random = np.random.default_rng(1)
    values = [random.uniform(0.5, 2.0, 5).astype(np.float32) for _ in range(4)]
    for layer in (ours, stock):
        layer.build((None, 6, 7, 5))
        layer.set_weights(values)
    return ours, stock


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 2e-5), ("mixed_bfloat16", 4e-2), ("mixed_float16", 5e-3)]
)
@pytest.mark.parametrize("training", [True, False])
def test_fused_norm_equals_the_stock_layer(dtype: str, tolerance: float, training: bool) -> None:
    ours, stock = both_norms(dtype)
    inputs = tf.constant(3.0 * noise(4, 6, 7, 5) + 2.0)
    upstream = tf.constant(noise(4, 6, 7, 5, seed=2))
    outputs, gradients = [], []
    for layer in (ours, stock):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            result = layer(inputs, training=training)
            loss = tf.reduce_sum(tf.cast(result, tf.float32) * upstream)
        assert result.dtype == layer.compute_dtype
        outputs.append(tf.cast(result, tf.float32).numpy())
        sources = [inputs, layer.gamma.value, layer.beta.value]
        gradients.append([np.asarray(g) for g in tape.gradient(loss, sources)])
    scale = np.abs(outputs[1]).max()
    np.testing.assert_allclose(outputs[0], outputs[1], atol=tolerance * scale)
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())
    for one, other in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=max(tolerance, 1e-5))


def test_frozen_fused_norm_keeps_its_statistics() -> None:
    ours, stock = both_norms("float32")
    ours.trainable = stock.trainable = False
    before = ours.get_weights()
    inputs = noise(4, 6, 7, 5)
    np.testing.assert_allclose(
        np.asarray(ours(inputs, training=True)), np.asarray(stock(inputs, training=True)), atol=1e-5
    )
    for one, other in zip(ours.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_ranks_use_the_stock_layer() -> None:
    ours = FusedBatchNormalization()
    stock = keras.layers.BatchNormalization()
    inputs = noise(8, 5)
    np.testing.assert_allclose(
        np.asarray(ours(inputs, training=True)), np.asarray(stock(inputs, training=True))
    )

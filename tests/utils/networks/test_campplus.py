"""CAM++: its parts against plain NumPy, its size, saving."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.support.tiny_model import CALIBRATION, build_tiny_campplus
from utils.model.archive import load_network, write_model
from utils.model.header import read_header
from utils.networks.campplus import (
    FrequenciesToChannels,
    SegmentMask,
    SegmentMeans,
    Statistics,
)
from utils.networks.catalogue import NETWORKS
from utils.networks.features import FEATURES
from utils.training.settings import NETWORK_NAMES


def features(num_frames: int, batch: int = 2) -> np.ndarray:
    random = np.random.default_rng(num_frames)
    return random.normal(size=(batch, 80, num_frames, 1)).astype(np.float32)


def test_names_of_the_options_are_those_of_the_catalogue() -> None:
    assert tuple(NETWORKS) == NETWORK_NAMES


@pytest.fixture(scope="module")
def network() -> Any:
    return build_tiny_campplus()


@pytest.mark.parametrize("num_frames", [1, 3, 98, 399, 400, 401])
def test_any_length(num_frames: int, network: Any) -> None:
    classification, embedding = network(features(num_frames))
    assert classification.shape == (2, 3)
    embedding = keras.ops.convert_to_numpy(embedding)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 99, 100, 101, 250])
def test_segment_means(num_frames: int) -> None:
    frames = np.random.default_rng(0).normal(size=(2, 1, num_frames, 5)).astype(np.float32)
    means = keras.ops.convert_to_numpy(SegmentMeans()(frames))
    parts = [frames[:, :, i : i + 100].mean(axis=2) for i in range(0, num_frames, 100)]
    expected = np.stack(parts, axis=2) + frames.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(means, expected, atol=1e-5)
    assert SegmentMeans().compute_output_shape(frames.shape) == expected.shape
    assert SegmentMeans().compute_output_shape((None, 1, None, 5)) == (None, 1, None, 5)
    masked = keras.ops.convert_to_numpy(SegmentMask()([frames, means]))
    np.testing.assert_allclose(masked[:, :, -1], frames[:, :, -1] * means[:, :, -1], rtol=1e-5)
    np.testing.assert_allclose(masked[:, :, 0], frames[:, :, 0] * means[:, :, 0], rtol=1e-5)


def test_statistics() -> None:
    frames = np.random.default_rng(0).normal(size=(2, 1, 9, 5)).astype(np.float32)
    values = keras.ops.convert_to_numpy(Statistics()(frames))
    expected = [frames[:, 0].mean(axis=1), frames[:, 0].std(axis=1, ddof=1)]
    np.testing.assert_allclose(values, np.concatenate(expected, axis=1), atol=1e-5)
    # A single frame has no deviation, but is no error.
    one = keras.ops.convert_to_numpy(Statistics()(frames[:, :, :1]))
    np.testing.assert_allclose(one[:, 5:], 0, atol=1e-4)


def test_frequencies_to_channels() -> None:
    maps = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    joined = keras.ops.convert_to_numpy(FrequenciesToChannels()(maps))
    assert joined.shape == FrequenciesToChannels().compute_output_shape(maps.shape) == (2, 1, 4, 15)
    np.testing.assert_array_equal(joined[1, 0, 2, 5:10], maps[1, 1, 2])


@pytest.mark.parametrize("changes", [{"num_classes": 0}, {"block_layers": (1, 2)}])
def test_refuses_impossible_shapes(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        build_tiny_campplus(**changes)


@pytest.mark.slow
def test_saved_and_loaded(tmp_path: Path) -> None:
    network = build_tiny_campplus(cosine_classifier=False)
    path = tmp_path / "tiny.keras"
    write_model(path, network, {"embedding_size": 16, **CALIBRATION})
    assert read_header(path).metadata["features"] == FEATURES["filterbank"]
    loaded = load_network(path)
    for ours, theirs in zip(network(features(60)), loaded(features(60)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)

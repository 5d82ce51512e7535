from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech
from tests.support.tiny_model import (
    build_tiny_campplus,
    build_tiny_network,
    write_tiny_model,
)
from utils.audio.spectrogram import CROP_SAMPLES, extend, magnitude, spectrogram
from utils.errors import ModelError
from utils.export.onnx import write_onnx
from utils.export.onnx_graph import fourier_basis
from utils.model.archive import load_network
from utils.model.encoder import SpeakerEncoder
from utils.model.header import read_header
from utils.model.onnx import load_onnx_network
from utils.networks.features import compute_features


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture(scope="module")
def onnx_model(model: Path) -> Path:
    path = model.with_suffix(".onnx")
    write_onnx(model, path, half_precision=False)
    return path


@pytest.fixture(scope="module")
def network(model: Path) -> Any:
    return load_network(model)


def embed_with_keras(network: Any, waveform: np.ndarray) -> np.ndarray:
    features = spectrogram(extend(waveform, max(len(waveform), CROP_SAMPLES)))
    return np.asarray(network(features[None, :, :, None], training=False)[1])[0]


def test_basis_is_the_short_time_fourier_transform() -> None:
    waveform = synthetic_speech(0, 0, 0.5)
    padded = np.pad(waveform, 200)
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
    parts = frames @ fourier_basis()[:, 0].T
    expected = np.hypot(parts[:, :257], parts[:, 257:]).T
    np.testing.assert_allclose(magnitude(waveform), expected, atol=1e-4)


# Frames in even and odd number, clips shorter than a crop, one sample around a whole crop.
@pytest.mark.parametrize("num_samples", [399, 16000, 40959, 40960, 40961, 48000, 48160, 100_001])
def test_equals_keras_at_any_length(network: Any, onnx_model: Path, num_samples: int) -> None:
    waveform = extend(synthetic_speech(1, 0, 3.0), num_samples)
    expected = embed_with_keras(network, waveform)
    embedding = load_onnx_network(onnx_model, num_threads=1)(waveform)
    np.testing.assert_allclose(embedding, expected, atol=2e-4)


@pytest.mark.parametrize(
    "changes",
    [{"cosine_classifier": False}, {"widths": (4, 8, 8, 16), "num_blocks": (2, 1, 1, 2)}],
    ids=["softmax", "other widths"],
)
def test_networks_of_train_py(tmp_path: Path, changes: dict[str, Any]) -> None:
    from utils.model.archive import write_model

    network = build_tiny_network(**changes)
    write_model(tmp_path / "m.keras", network, {"embedding_size": 16, "num_classes": 3})
    write_onnx(tmp_path / "m.keras", tmp_path / "m.onnx", half_precision=False)
    waveform = synthetic_speech(2, 0, 3.0)
    embedding = load_onnx_network(tmp_path / "m.onnx", num_threads=2)(waveform)
    np.testing.assert_allclose(embedding, embed_with_keras(network, waveform), atol=2e-4)


def test_the_file_says_what_the_model_says(model: Path, onnx_model: Path) -> None:
    assert read_header(onnx_model).model_id == read_header(model).model_id
    assert read_header(onnx_model).calibration == read_header(model).calibration
    ours, theirs = read_header(onnx_model).metadata, read_header(model).metadata
    assert {key: ours[key] for key in ("embedding_size", "features", "num_classes")} == {
        key: theirs[key] for key in ("embedding_size", "features", "num_classes")
    }


def test_16_bit_weights_take_half_the_room(model: Path, onnx_model: Path, tmp_path: Path) -> None:
    write_onnx(model, tmp_path / "half.onnx")
    whole, half = onnx_model.stat().st_size, (tmp_path / "half.onnx").stat().st_size
    basis = fourier_basis().nbytes
    assert half - basis < 0.7 * (whole - basis)
    waveform = synthetic_speech(3, 0, 3.0)
    embeddings = [
        load_onnx_network(path, num_threads=1)(waveform)
        for path in (onnx_model, tmp_path / "half.onnx")
    ]
    assert embeddings[0] @ embeddings[1] > 0.999


def test_unknown_layer(tmp_path: Path) -> None:
    import keras

    from utils.model.archive import write_model
    from utils.resnet import UnitLength

    inputs = keras.Input((257, None, 1), name="spectrogram")
    pooled = keras.layers.GlobalMaxPooling2D(name="largest")(inputs)
    network = keras.Model(inputs, [keras.layers.Dense(3)(pooled), UnitLength()(pooled)])
    write_model(tmp_path / "other.keras", network, {"embedding_size": 1, "num_classes": 3})
    with pytest.raises(ModelError, match=r"other\.keras: its layer largest is a GlobalMax"):
        write_onnx(tmp_path / "other.keras", tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.slow
def test_shipped_file_is_the_shipped_model(root: Path) -> None:
    paths = [root / "models" / f"resnet34.{suffix}" for suffix in ("keras", "onnx")]
    assert read_header(paths[0]).model_id == read_header(paths[1]).model_id
    encoders = [SpeakerEncoder(path) for path in paths]
    for recording in sorted((root / "audio").glob("*.wav")):
        keras_embedding, onnx_embedding = (encoder.embed_file(recording) for encoder in encoders)
        np.testing.assert_allclose(onnx_embedding, keras_embedding, atol=1e-3)


@pytest.fixture(scope="module")
def campplus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A small CAM++, and its .onnx file."""
    path = tmp_path_factory.mktemp("campplus") / "tiny.keras"
    network = build_tiny_campplus()
    write_tiny_model(path, network=network)
    write_onnx(path, path.with_suffix(".onnx"), half_precision=False)
    return network, path.with_suffix(".onnx")


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [250, 400, 9000, 32560, 48000, 48160, 100_001])
def test_campplus_equals_keras_at_any_length(campplus: tuple[Any, Path], num_samples: int) -> None:
    network, path = campplus
    waveform = extend(synthetic_speech(1, 0, 3.0), num_samples)
    features = compute_features("filterbank", waveform)[None, :, :, None]
    expected = np.asarray(network(features, training=False)[1])[0]
    embedding = load_onnx_network(path, num_threads=1)(waveform)
    np.testing.assert_allclose(embedding, expected, atol=2e-4)

"""CAM++: its parts against plain NumPy, saving, training, and the way from PyTorch's files."""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.tiny_model import CALIBRATION

from utils.errors import ModelError
from utils.model.archive import load_network, write_model
from utils.model.header import read_header
from utils.networks.campplus import (
    FrequenciesToChannels,
    SegmentMask,
    SegmentMeans,
    Statistics,
    build_campplus,
)
from utils.networks.campplus_weights import campplus_from_tensors, layer_names
from utils.networks.catalogue import NETWORKS
from utils.networks.features import FEATURES
from utils.networks.torch_file import read_torch_file
from utils.training.options import NETWORK_NAMES

TINY: dict[str, Any] = {
    "front_width": 4, "initial_width": 8, "block_layers": (2, 2, 1), "growth": 4,
    "bottleneck": 8, "embedding_size": 16,
}  # fmt: skip


def build_tiny(num_classes: int = 3, **changes: Any) -> Any:
    keras.utils.set_random_seed(0)
    network = build_campplus(num_classes, **{**TINY, **changes})
    random = np.random.default_rng(0)
    for weight in network.weights:
        if "norm" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return network


def features(num_frames: int, batch: int = 2) -> np.ndarray:
    random = np.random.default_rng(num_frames)
    return random.normal(size=(batch, 80, num_frames, 1)).astype(np.float32)


def test_names_of_the_options_are_those_of_the_catalogue() -> None:
    assert tuple(NETWORKS) == NETWORK_NAMES


@pytest.mark.parametrize("num_frames", [1, 3, 98, 399, 400, 401])
def test_any_length(num_frames: int) -> None:
    classification, embedding = build_tiny()(features(num_frames))
    assert classification.shape == (2, 3)
    embedding = keras.ops.convert_to_numpy(embedding)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


def test_size_of_the_published_network() -> None:
    # Table 1 of the paper says 7.18 M with 512 numbers in an embedding; here are 192.
    num_parameters = build_campplus(1).count_params() - EMBEDDING_CLASS
    assert num_parameters == 6_930_528


EMBEDDING_CLASS = 192  # the vector of the one class


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
        build_tiny(**changes)


def test_saved_and_loaded(tmp_path: Path) -> None:
    network = build_tiny(cosine_classifier=False)
    path = tmp_path / "tiny.keras"
    write_model(path, network, {"embedding_size": 16, **CALIBRATION})
    assert read_header(path).metadata["features"] == FEATURES["filterbank"]
    loaded = load_network(path)
    for ours, theirs in zip(network(features(60)), loaded(features(60)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


# The way from PyTorch. The test writes such a file itself, as torch.save does.


def write_torch_file(tensors: dict[str, np.ndarray], extra: bytes = b"") -> bytes:
    """Returns what torch.save would write: opcodes of pickle protocol 2, and raw numbers."""

    def text(value: str) -> bytes:
        data = value.encode()
        return b"X" + len(data).to_bytes(4, "little") + data

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    def numbers(values: Any) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    stream = b"\x80\x02}("
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, (name, value) in enumerate(tensors.items()):
            value = np.ascontiguousarray(value, np.float32)
            strides = [step // 4 for step in value.strides]
            stream += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
            stream += b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(key))
            stream += text("cpu") + number(value.size) + b"tQ" + number(0)
            stream += numbers(value.shape) + numbers(strides) + b"\x89"
            stream += b"ccollections\nOrderedDict\n)RtR"
            archive.writestr(f"archive/data/{key}", value.tobytes())
        archive.writestr("archive/data.pkl", stream + extra + b"u.")
    return buffer.getvalue()


def test_tensors_of_a_torch_file() -> None:
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(7).reshape(())}
    read = read_torch_file(write_torch_file(tensors), "file")
    assert list(read) == ["a", "b"]
    np.testing.assert_array_equal(read["a"], tensors["a"])
    np.testing.assert_array_equal(read["b"], 7)


@pytest.mark.parametrize(
    "extra",
    [
        b"X\x01\x00\x00\x00xcposix\nsystem\n(X\x04\x00\x00\x00truetR",
        b"X\x01\x00\x00\x00xcbuiltins\neval\n(X\x01\x00\x00\x001tR",
    ],
)
def test_runs_no_code_of_a_torch_file(extra: bytes) -> None:
    with pytest.raises(ModelError, match="it asks for"):
        read_torch_file(write_torch_file({}, extra), "file")


@pytest.mark.parametrize(
    "data", [b"", b"PK", pickle.dumps({"a": 1}), write_torch_file({}, b"K\x01K\x02")]
)
def test_refuses_other_files(data: bytes) -> None:
    with pytest.raises(ModelError, match="expected a dict of tensors"):
        read_torch_file(data, "file")


def torch_tensors() -> dict[str, np.ndarray]:
    """Returns random weights under the names and in the shapes of 3D-Speaker's file."""
    random = np.random.default_rng(0)
    shapes = {weight.path: tuple(weight.shape) for weight in build_campplus(1).weights}
    tensors = OrderedDict()
    for ours, theirs in layer_names().items():
        if f"{ours}/kernel" in shapes:
            height, width, channels, out = shapes[f"{ours}/kernel"]
            # Convolutions over time have no height there.
            shape = (height, width) if theirs.startswith("head") else (width,)
            value = random.normal(size=(out, channels, *shape)) / np.sqrt(channels * width * height)
            tensors[f"{theirs}.weight"] = value
            if f"{ours}/bias" in shapes:
                tensors[f"{theirs}.bias"] = random.normal(size=out)
            continue
        size = shapes[f"{ours}/gamma"]
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{theirs}.{name}"] = random.uniform(0.5, 1.5, size)
        tensors[f"{theirs}.num_batches_tracked"] = np.float32(1).reshape(())
    tensors["xvector.dense.linear.weight"] = random.normal(size=(192, 1024, 1)) / 32
    tensors["xvector.dense.nonlinear.batchnorm.running_mean"] = random.normal(size=192)
    tensors["xvector.dense.nonlinear.batchnorm.running_var"] = random.uniform(0.5, 1.5, 192)
    return {name: np.asarray(value, np.float32) for name, value in tensors.items()}


def test_weights_find_their_places() -> None:
    tensors = torch_tensors()
    network = campplus_from_tensors(read_torch_file(write_torch_file(tensors), "file"), "file")
    # The first time-delay layer: there channels of the front come first, here frequencies.
    theirs = tensors["xvector.tdnn.linear.weight"].reshape(128, 32, 10, 5)
    ours = np.asarray(network.get_layer("tdnn").kernel).reshape(5, 10, 32, 128)
    np.testing.assert_array_equal(ours, theirs.transpose(3, 2, 1, 0))
    # The last layer with the normalisation behind it.
    pooled = np.random.default_rng(1).normal(size=1024).astype(np.float32)
    layer = network.get_layer("projection")
    found = pooled @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    norm = "xvector.dense.nonlinear.batchnorm.running"
    expected = tensors["xvector.dense.linear.weight"][:, :, 0] @ pooled - tensors[f"{norm}_mean"]
    expected /= np.sqrt(tensors[f"{norm}_var"] + 1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.bn1.weight"), "lacks the tensor head.bn1.weight"),
        (lambda t: t.update({"more": np.zeros(2, np.float32)}), "has the tensor more too many"),
        (
            lambda t: t.update({"head.bn1.bias": np.zeros(2, np.float32)}),
            r"front_conv_norm/beta has shape \(2,\), expected \(32,\)",
        ),
    ],
)
def test_other_weights_are_refused(change: Any, message: str) -> None:
    tensors = torch_tensors()
    change(tensors)
    with pytest.raises(ModelError, match=message):
        campplus_from_tensors(tensors, "file")

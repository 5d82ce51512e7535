"""The segmentation network as ONNX equals its definition, computed here in NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from utils.errors import ModelError
from utils.export.segmentation import METADATA, sinc_filters, write_segmentation

Array = np.ndarray[Any, Any]


def random_tensors() -> dict[str, Array]:
    """Returns weights in the shapes of pyannote's file; the filters as its training begins."""
    random = np.random.default_rng(0)
    half = np.arange(-125, 0)[None] / 16000
    filters = "sincnet.conv1d.0.filterbank."
    tensors: dict[str, Array] = {
        filters + "low_hz_": random.uniform(0, 3000, (40, 1)),
        filters + "band_hz_": random.uniform(10, 500, (40, 1)),
        filters + "window_": np.hamming(251)[:125],
        filters + "n_": 2 * np.pi * half,
        "sincnet.wav_norm1d.weight": random.uniform(0.5, 1.5, 1),
        "sincnet.wav_norm1d.bias": random.normal(size=1),
    }
    for number, (out, channels) in enumerate([(80, 0), (60, 80), (60, 60)]):
        tensors[f"sincnet.norm1d.{number}.weight"] = random.uniform(0.5, 1.5, out)
        tensors[f"sincnet.norm1d.{number}.bias"] = random.normal(size=out)
        if channels:
            tensors[f"sincnet.conv1d.{number}.weight"] = random.normal(size=(out, channels, 5)) / 20
            tensors[f"sincnet.conv1d.{number}.bias"] = random.normal(size=out)
    for layer in range(4):
        for suffix in ("", "_reverse"):
            width = 60 if layer == 0 else 256
            for name, shape in (
                ("weight_ih", (512, width)), ("weight_hh", (512, 128)),
                ("bias_ih", (512,)), ("bias_hh", (512,)),
            ):  # fmt: skip
                tensors[f"lstm.{name}_l{layer}{suffix}"] = random.normal(size=shape) / 10
    for name, shape in (
        ("linear.0", (128, 256)),
        ("linear.1", (128, 128)),
        ("classifier", (7, 128)),
    ):
        tensors[f"{name}.weight"] = random.normal(size=shape) / 8
        tensors[f"{name}.bias"] = random.normal(size=shape[0])
    # Stored in 16 bits: what is rounded already is not rounded again.
    return {key: value.astype(np.float16).astype(np.float32) for key, value in tensors.items()}


def reference(tensors: dict[str, Array], waveform: Array) -> Array:
    """Returns the log probabilities, shape `(num_frames, 7)`, from the definition."""

    def normalised(x: Array, name: str) -> Array:
        mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
        scale, bias = tensors[f"{name}.weight"][:, None], tensors[f"{name}.bias"][:, None]
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias

    def convolved(x: Array, kernel: Array, stride: int = 1) -> Array:
        views = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2], axis=1)[:, ::stride]
        return np.einsum("ctk,ock->ot", views, kernel)

    def finished(x: Array, number: int) -> Array:
        x = x[:, : x.shape[1] // 3 * 3].reshape(len(x), -1, 3).max(axis=2)
        x = normalised(x, f"sincnet.norm1d.{number}")
        return np.where(x > 0, x, 0.01 * x)

    def sigmoid(x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    def one_way(x: Array, layer: int, suffix: str) -> Array:
        part = {n: tensors[f"lstm.{n}_l{layer}{suffix}"] for n in ("weight_ih", "weight_hh")}
        bias = tensors[f"lstm.bias_ih_l{layer}{suffix}"] + tensors[f"lstm.bias_hh_l{layer}{suffix}"]
        hidden, cell, outputs = np.zeros(128), np.zeros(128), []
        for frame in x:
            gates = part["weight_ih"] @ frame + part["weight_hh"] @ hidden + bias
            enter, forget, new, leave = np.split(gates, 4)  # PyTorch's order
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
            hidden = sigmoid(leave) * np.tanh(cell)
            outputs.append(hidden)
        return np.array(outputs)

    x = normalised(waveform[None].astype(np.float64), "sincnet.wav_norm1d")
    x = finished(np.abs(convolved(x, sinc_filters(tensors).astype(np.float64), 10)), 0)
    for number in (1, 2):
        bias = tensors[f"sincnet.conv1d.{number}.bias"][:, None]
        x = finished(convolved(x, tensors[f"sincnet.conv1d.{number}.weight"]) + bias, number)
    x = x.T
    for layer in range(4):
        back = one_way(x[::-1], layer, "_reverse")[::-1]
        x = np.concatenate([one_way(x, layer, ""), back], axis=1)
    for name in ("linear.0", "linear.1"):
        x = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
        x = np.where(x > 0, x, 0.01 * x)
    x = x @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))


def test_network_equals_its_definition(tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    tensors, path = random_tensors(), tmp_path / "segmentation.onnx"
    write_segmentation(tensors, path, "weights", "made for a test")
    waveform = np.random.default_rng(1).normal(size=8000).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.stack([waveform, 0.1 * waveform])[:, None]})
    expected = reference(tensors, waveform)
    assert found.shape == (2, len(expected), 7)
    # The loudness is normalised, but for the epsilon of the variance.
    np.testing.assert_allclose(found[0], expected, atol=2e-4)
    np.testing.assert_allclose(found[1], expected, atol=0.05)
    properties = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert properties["comment"] == "made for a test"
    assert int(properties["receptive_field_shift"]) == METADATA["receptive_field_shift"] == 270


def test_sinc_filters_pass_their_band() -> None:
    tensors = random_tensors()
    low = 50 + np.abs(tensors["sincnet.conv1d.0.filterbank.low_hz_"][:, 0])
    high = low + 50 + np.abs(tensors["sincnet.conv1d.0.filterbank.band_hz_"][:, 0])
    gains = np.abs(np.fft.rfft(sinc_filters(tensors)[:, 0], 16000))  # 1 Hz a bin
    for number in range(40):
        for filter_number in (number, number + 40):
            loudest = int(gains[filter_number].argmax())
            assert low[number] - 40 < loudest < high[number] + 40
    assert np.allclose(
        sinc_filters(tensors)[:40, 0], sinc_filters(tensors)[:40, 0, ::-1], atol=1e-6
    )


@pytest.mark.parametrize(
    "name", ["lstm.weight_hh_l2", "classifier.bias", "sincnet.conv1d.1.weight"]
)
def test_other_weights_are_refused(tmp_path: Path, name: str) -> None:
    tensors = random_tensors()
    del tensors[name]
    with pytest.raises(ModelError, match="weights: no weights of the segmentation network"):
        write_segmentation(tensors, tmp_path / "x.onnx", "weights", "")
    assert not list(tmp_path.iterdir())

"""Writes the segmentation network of pyannote (PyanNet) as ONNX, from its PyTorch tensors.

The network says for each frame of 17 ms which of at most three speakers of its window speak, and
whether two do at once: sinc filters, two convolutions, four bidirectional LSTM layers, two dense
ones. It is built node by node, since neither PyTorch nor pyannote.audio is needed for that.

Source: H. Bredin and A. Laurent, "End-to-end speaker segmentation for overlap-aware
resegmentation", Interspeech 2021; A. Plaquet and H. Bredin, "Powerset multi-class cross entropy
loss for neural speaker diarization", Interspeech 2023; asteroid-filterbanks, `ParamSincFB`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import ModelError
from utils.export.onnx_graph import OPSET, Graph
from utils.files import atomic_path

Tensors = dict[str, npt.NDArray[Any]]

SINC_STRIDE = 10
"""Samples from one output of the sinc filters to the next."""

POOLING = 3
"""Outputs that each of the three poolings joins: 10 * 3 * 3 * 3 = 270 samples a frame."""

MIN_LOW_HZ = MIN_BAND_HZ = 50.0
"""Least lower edge and least width of a sinc filter, in Hz."""

NORM_EPSILON = 1e-5

LEAKY_SLOPE = 0.01

NUM_LSTM_LAYERS = 4

METADATA = {
    "model_type": "pyannote-segmentation-3.0",
    "sample_rate": SAMPLE_RATE,
    "window_size": 10 * SAMPLE_RATE,
    "receptive_field_size": 991,
    "receptive_field_shift": SINC_STRIDE * POOLING**3,
    "num_speakers": 3,
    "powerset_max_classes": 2,
    "num_classes": 7,
}
"""The keys are those of sherpa-onnx, whose own files of this network work here too."""


def write_segmentation(tensors: Tensors, path: str | Path, source: str, comment: str) -> None:
    """Writes the network, its weights in 16 bits; it computes in 32.

    The graph's input is `x`, float32 `(batch, 1, num_samples)`, 16 kHz; its output is `y`, float32
    `(batch, num_frames, 7)`: log probabilities of nobody, speaker 1, 2, 3, 1+2, 1+3, 2+3.

    Args:
        tensors: The state dict.
        path: The `.onnx` file to write.
        source: What to call the tensors in an error.
        comment: Where they come from, for the file's metadata.

    Raises:
        ModelError: If a tensor is missing or has another shape than the network's.
    """
    import onnx

    try:
        model = _build(tensors)
        onnx.checker.check_model(model, full_check=True)
    except (KeyError, ValueError, onnx.checker.ValidationError, RuntimeError) as error:
        text = (str(error).splitlines() or ["unknown"])[0]
        raise ModelError(f"{source}: no weights of the segmentation network ({text})") from error
    for key, value in {**METADATA, "comment": comment}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def sinc_filters(tensors: Tensors) -> FloatArray:
    """Returns the kernels of the first layer, computed from the edges of their bands.

    Returns:
        Shape `(80, 1, 251)`: 40 even filters (cosines), then 40 odd ones (sines).
    """
    prefix = "sincnet.conv1d.0.filterbank."
    low_hz, band_hz, window, times = (
        np.asarray(tensors[prefix + name], np.float64)
        for name in ("low_hz_", "band_hz_", "window_", "n_")
    )
    low = MIN_LOW_HZ + np.abs(low_hz)
    high = np.clip(low + MIN_BAND_HZ + np.abs(band_hz), MIN_LOW_HZ, SAMPLE_RATE / 2)
    band = high - low
    even = (np.sin(high @ times) - np.sin(low @ times)) / (times / 2) * window
    odd = (np.cos(low @ times) - np.cos(high @ times)) / (times / 2) * window
    filters = [
        np.concatenate([even, 2 * band, even[:, ::-1]], axis=1) / (2 * band),
        np.concatenate([odd, np.zeros_like(band), -odd[:, ::-1]], axis=1) / (2 * band),
    ]
    return np.concatenate(filters)[:, None, :].astype(np.float32)


def _build(tensors: Tensors) -> Any:
    """Returns the model as a protocol buffer."""
    from onnx import TensorProto, helper

    graph = Graph(half_precision=True)
    x = _normalised(graph, "x", tensors, "sincnet.wav_norm1d")
    kernel = graph.constant(sinc_filters(tensors))
    x = graph.node("Abs", graph.node("Conv", x, kernel, strides=[SINC_STRIDE]))
    x = _pooled(graph, x, tensors, 0)
    for number in (1, 2):
        weight = graph.weights(tensors[f"sincnet.conv1d.{number}.weight"])
        x = graph.node("Conv", x, weight, graph.constant(tensors[f"sincnet.conv1d.{number}.bias"]))
        x = _pooled(graph, x, tensors, number)
    x = graph.node("Transpose", x, perm=[2, 0, 1])  # (num_frames, batch, 60)
    for layer in range(NUM_LSTM_LAYERS):
        x = _lstm(graph, x, tensors, layer)
    x = graph.node("Transpose", x, perm=[1, 0, 2])
    for name in ("linear.0", "linear.1"):
        x = graph.node("LeakyRelu", _dense(graph, x, tensors, name), alpha=LEAKY_SLOPE)
    graph.node("LogSoftmax", _dense(graph, x, tensors, "classifier"), axis=-1, output="y")
    num_classes = METADATA["num_classes"]
    whole = helper.make_graph(
        graph.nodes,
        "segmentation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, "num_samples"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, num_classes])],
        graph.constants,
    )
    return helper.make_model(
        whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8,
        producer_name="voiceprint",
    )  # fmt: skip


def _normalised(graph: Graph, x: str, tensors: Tensors, name: str) -> str:
    """Adds an instance normalisation: mean and variance of each channel over time."""
    scale, bias = (graph.constant(tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
    return graph.node("InstanceNormalization", x, scale, bias, epsilon=NORM_EPSILON)


def _pooled(graph: Graph, x: str, tensors: Tensors, number: int) -> str:
    """Adds what follows each of the three convolutions."""
    x = graph.node("MaxPool", x, kernel_shape=[POOLING], strides=[POOLING])
    x = _normalised(graph, x, tensors, f"sincnet.norm1d.{number}")
    return graph.node("LeakyRelu", x, alpha=LEAKY_SLOPE)


def _lstm(graph: Graph, x: str, tensors: Tensors, layer: int) -> str:
    """Adds a bidirectional LSTM layer: `(num_frames, batch, 256)` from `(num_frames, batch, n)`."""

    def both(name: str) -> npt.NDArray[Any]:
        """Returns a tensor of both directions, its gates in ONNX's order."""
        directions = []
        for suffix in ("", "_reverse"):
            gates = np.split(np.asarray(tensors[f"lstm.{name}_l{layer}{suffix}"]), 4)
            # PyTorch: input, forget, cell, output; ONNX: input, output, forget, cell.
            directions.append(np.concatenate([gates[number] for number in (0, 3, 1, 2)]))
        return np.stack(directions)

    weights, recurrent = both("weight_ih"), both("weight_hh")
    size = recurrent.shape[-1]
    biases = np.concatenate([both("bias_ih"), both("bias_hh")], axis=1)
    y = graph.node(
        "LSTM", x, graph.weights(weights), graph.weights(recurrent), graph.constant(biases),
        hidden_size=size, direction="bidirectional",
    )  # fmt: skip
    # (num_frames, directions, batch, size) -> (num_frames, batch, directions * size)
    y = graph.node("Transpose", y, perm=[0, 2, 1, 3])
    return graph.node("Reshape", y, graph.ints(0, 0, 2 * size))


def _dense(graph: Graph, x: str, tensors: Tensors, name: str) -> str:
    """Adds a matrix product and a bias over the last axis."""
    product = graph.node("MatMul", x, graph.weights(np.asarray(tensors[f"{name}.weight"]).T))
    return graph.node("Add", product, graph.constant(tensors[f"{name}.bias"]))

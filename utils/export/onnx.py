"""Writes a trained network as an ONNX file that takes raw samples.

The graph covers everything from the waveform to the embedding: it repeats short clips to one crop,
computes the spectrogram as a convolution with the windowed Fourier basis, normalises it and runs
the network. Batch normalisation is folded into the convolutions. Any ONNX runtime can run it, even
on a phone or in a browser, without further signal processing.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.spectrogram import (
    CROP_SAMPLES,
    EPSILON,
    HOP_LENGTH,
    N_FFT,
    NUM_BINS,
    WIN_LENGTH,
    padded_window,
)
from utils.errors import ModelError
from utils.files import atomic_path
from utils.model.archive import load_network, model_id, read_model_metadata
from utils.model.onnx import INPUT_NAME, METADATA_NAME

OPSET = 17
"""ONNX operator set, supported by every runtime since 2022."""

OUTPUT_NAME = "embedding"

LEFT_OUT = ("training", "progress", "network", "labels")
"""Training metadata that inference doesn't need."""


def fourier_basis() -> FloatArray:
    """Returns the convolution kernels that compute a Fourier transform.

    Returns:
        Shape `(514, 1, 400)`: cosines of the 257 bins, then sines, times the analysis window,
        without the 112 samples where the window is zero.
    """
    start = (N_FFT - WIN_LENGTH) // 2
    samples = np.arange(start, start + WIN_LENGTH)
    # Exact integers before the scaling: a phase of 2 pi * 256 * 455 would lose digits.
    phase = 2 * np.pi * (np.outer(np.arange(NUM_BINS), samples) % N_FFT) / N_FFT
    basis = np.concatenate([np.cos(phase), -np.sin(phase)]) * padded_window()[samples]
    return basis[:, None, :].astype(np.float32)


def write_onnx(
    model_path: str | Path, output_path: str | Path, half_precision: bool = True
) -> None:
    """Writes the embedding part of a model file as ONNX.

    The graph's input is `waveform`, float32 `(1, num_samples)`, 16 kHz mono with silence removed;
    its output is `embedding`, float32 `(1, embedding_size)`, unit length. The model's metadata and
    identity are stored under `voiceprint.json`.

    Args:
        model_path: A `.keras` file of this toolkit.
        output_path: The ONNX file to write.
        half_precision: Whether to store weights in 16 bits: half the size; computation stays in
            32 bits.

    Raises:
        ModelError: If the file is not a model of this toolkit, or has an unsupported layer.
    """
    import onnx

    network = load_network(model_path)
    metadata = {
        key: value for key, value in read_model_metadata(model_path).items() if key not in LEFT_OUT
    }
    graph = _Graph(half_precision)
    graph.add_network(network, str(model_path))
    model = graph.to_model(int(metadata["embedding_size"]))
    entry = model.metadata_props.add()
    entry.key = METADATA_NAME
    entry.value = json.dumps({**metadata, "model_id": model_id(model_path)}, ensure_ascii=False)
    onnx.checker.check_model(model)
    with atomic_path(output_path) as temporary:
        temporary.write_bytes(model.SerializeToString())


class _Graph:
    """Collects the nodes and constants of a graph; values are named in order."""

    def __init__(self, half_precision: bool) -> None:
        """Starts an empty graph."""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._half_precision = half_precision
        self._number = 0

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds an operation and returns the name of its output."""
        from onnx import helper

        self._number += 1
        output = output or f"{operator.lower()}_{self._number}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Adds a small constant, kept exactly."""
        from onnx import numpy_helper

        self._number += 1
        name = f"constant_{self._number}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weights(self, values: Any) -> str:
        """Adds trained weights, in 16 bits with half precision."""
        if not self._half_precision:
            return self.constant(values)
        return self.node("Cast", self.constant(values, np.float16), to=1)

    def ints(self, *values: int) -> str:
        """Adds a list of integers."""
        return self.constant(values, np.int64)

    def to_model(self, embedding_size: int) -> Any:
        """Returns the finished model."""
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self.nodes,
            "voiceprint",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [1, "num_samples"])],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [1, embedding_size])],
            self.constants,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8,
            producer_name="voiceprint",
        )  # fmt: skip

    def add_network(self, network: Any, source: str) -> None:
        """Adds everything from the waveform to the embedding, in the order of the Keras graph."""
        values = {id(network.inputs[0]): self.spectrogram(self.repeated(INPUT_NAME))}
        convolutions: dict[int, Any] = {}
        for layer in network.layers:
            kind = type(layer).__name__
            if kind in {"InputLayer", "CosineClassifier"} or layer.name == "classification":
                continue
            inputs = layer.input if isinstance(layer.input, list) else [layer.input]
            if kind == "Conv2D":
                convolutions[id(layer.output)] = layer
                continue
            if kind == "FusedBatchNormalization":
                convolution = convolutions[id(inputs[0])]
                output = self.convolution(values[id(convolution.input)], convolution, layer)
            else:
                output = self.layer(kind, layer, [values[id(x)] for x in inputs], source)
            values[id(layer.output)] = output
        self.node("Identity", values[id(network.outputs[1])], output=OUTPUT_NAME)

    def repeated(self, waveform: str) -> str:
        """Repeats a clip shorter than a crop until it fills one, as `spectrogram.extend` does."""
        length = self.node("Gather", self.node("Shape", waveform), self.ints(1), axis=0)
        crop, one = self.ints(CROP_SAMPLES), self.ints(1)
        whole = self.node("Sub", self.node("Add", crop, length), one)
        repeats = self.node("Max", self.node("Div", whole, length), one)
        tiled = self.node("Tile", waveform, self.node("Concat", one, repeats, axis=0))
        end = self.node("Max", length, crop)
        return self.node("Slice", tiled, self.ints(0), end, self.ints(1))

    def spectrogram(self, waveform: str) -> str:
        """Adds `utils.audio.spectrogram.spectrogram`: `(1, 1, 257, num_frames)` from `(1, n)`."""
        framed = self.node("Unsqueeze", waveform, self.ints(1))
        padding = WIN_LENGTH // 2
        transform = self.node(
            "Conv", framed, self.constant(fourier_basis()),
            kernel_shape=[WIN_LENGTH], strides=[HOP_LENGTH], pads=[padding, padding],
        )  # fmt: skip
        square = self.node("Mul", transform, transform)
        parts = self.node("Reshape", square, self.ints(1, 2, NUM_BINS, -1))
        power = self.node("ReduceSum", parts, self.ints(1), keepdims=1)
        magnitude = self.node("Sqrt", power)
        mean = self.node("ReduceMean", magnitude, axes=[2])
        centred = self.node("Sub", magnitude, mean)
        variance = self.node("ReduceMean", self.node("Mul", centred, centred), axes=[2])
        deviation = self.node("Add", self.node("Sqrt", variance), self.constant(EPSILON))
        return self.node("Div", centred, deviation)

    def layer(self, kind: str, layer: Any, inputs: list[str], source: str) -> str:
        """Adds one layer other than a convolution."""
        if kind == "LogCompression":
            smallest = self.node("ReduceMin", inputs[0], axes=[2])
            shifted = self.node("Sub", inputs[0], smallest)
            levels = self.node("Log", self.node("Add", shifted, self.constant(layer.offset)))
            return self.node("Sub", levels, self.node("ReduceMean", levels, axes=[3]))
        if kind == "ReLU":
            return self.node("Relu", inputs[0])
        if kind == "Add":
            return self.node("Add", *inputs)
        if kind == "MaxPooling2D":
            return self.node(
                "MaxPool", inputs[0], auto_pad="SAME_UPPER",
                kernel_shape=list(layer.pool_size), strides=list(layer.strides),
            )  # fmt: skip
        if kind == "AttentiveStatistics":
            return self.attentive_statistics(layer, inputs[0])
        if kind == "Dense":
            return self.dense(layer, inputs[0])
        if kind == "UnitLength":
            square = self.node("ReduceSum", self.node("Mul", *inputs * 2), self.ints(-1))
            floor = self.node("Max", square, self.constant(1e-12))
            return self.node("Div", inputs[0], self.node("Sqrt", floor))
        raise ModelError(
            f"{source}: its layer {layer.name} is a {kind}, which has no ONNX form here; export a "
            "model of train.py"
        )

    def convolution(self, x: str, layer: Any, norm: Any) -> str:
        """Adds a convolution with its batch normalisation folded in.

        `SAME_UPPER` pads as Keras does, even for an odd number of frames.
        """
        deviation = np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
        scale = np.asarray(norm.gamma, np.float64) / deviation
        # Keras: (height, width, in, out); ONNX: (out, in, height, width).
        kernel = np.asarray(layer.kernel, np.float64) * scale
        bias = np.asarray(norm.beta, np.float64) - np.asarray(norm.moving_mean) * scale
        return self.node(
            "Conv", x, self.weights(kernel.transpose(3, 2, 0, 1)), self.constant(bias),
            kernel_shape=list(layer.kernel_size), strides=list(layer.strides),
            auto_pad="SAME_UPPER",
        )  # fmt: skip

    def dense(self, layer: Any, x: str) -> str:
        """Adds a matrix product and a bias over the last axis."""
        product = self.node("MatMul", x, self.weights(np.asarray(layer.kernel)))
        if layer.bias is None:
            return product
        return self.node("Add", product, self.constant(np.asarray(layer.bias)))

    def attentive_statistics(self, layer: Any, x: str) -> str:
        """Adds the pooling over time: `(1, 2 * size)` from `(1, channels, bins, num_frames)`."""
        size = int(layer.weight.kernel.shape[1])
        # (1, num_frames, bins, channels), then bins and channels as one axis, as in Keras
        frames = self.node("Transpose", x, perm=[0, 3, 2, 1])
        frames = self.node("Reshape", frames, self.ints(1, -1, size))
        hidden = self.node("Tanh", self.dense(layer.hidden, frames))
        weights = self.node("Softmax", self.dense(layer.weight, hidden), axis=1)
        weighted = self.node("Mul", weights, frames)
        mean = self.node("ReduceSum", weighted, self.ints(1), keepdims=0)
        square = self.node(
            "ReduceSum", self.node("Mul", weighted, frames), self.ints(1), keepdims=0
        )
        variance = self.node("Sub", square, self.node("Mul", mean, mean))
        deviation = self.node("Sqrt", self.node("Max", variance, self.constant(1e-4)))
        return self.node("Concat", mean, deviation, axis=1)

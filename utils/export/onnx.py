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
import numpy.typing as npt

from utils.errors import ModelError
from utils.export.onnx_graph import OPSET, OUTPUT_NAME, Graph
from utils.files import atomic_path
from utils.model.archive import load_network, update_metadata
from utils.model.header import ASNORM, ModelHeader, read_header
from utils.model.onnx import INPUT_NAME, METADATA_NAME
from utils.networks.features import LEAST_SAMPLES

LEFT_OUT = ("training", "progress", "network", "labels")
"""Training metadata that inference doesn't need."""


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
    header = read_header(model_path)
    graph = NetworkGraph(half_precision)
    graph.add_network(network, str(model_path))
    model = graph.to_model(header.embedding_size)
    entry = model.metadata_props.add()
    entry.key = METADATA_NAME
    entry.value = json.dumps(exported_metadata(header), ensure_ascii=False)
    onnx.checker.check_model(model)
    with atomic_path(output_path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        if ASNORM in header.metadata:
            update_metadata(temporary, {}, header.with_score_norm(ASNORM).cohort)


def exported_metadata(header: ModelHeader) -> dict[str, Any]:
    """Returns an exported file's metadata: the model's own and its identity."""
    kept = {key: value for key, value in header.metadata.items() if key not in LEFT_OUT}
    return {**kept, "model_id": header.model_id}


def _inputs(layer: Any) -> list[Any]:
    """Returns a layer's input tensors."""
    if not hasattr(layer, "input"):
        return []
    return layer.input if isinstance(layer.input, list) else [layer.input]


def _affine(norm: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns factor and offset of a batch normalisation at inference."""
    deviation = np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    scale = np.asarray(norm.gamma, np.float64) / deviation
    return scale, np.asarray(norm.beta, np.float64) - np.asarray(norm.moving_mean) * scale


class NetworkGraph(Graph):
    """The graph of one of our networks, from the waveform to the embedding."""

    _segment_of_frame: str | None = None

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
        front_ends = {"spectrogram": self.spectrogram, "filterbank": self.filterbank}
        name = network.inputs[0].name
        waveform = self.repeated(INPUT_NAME, LEAST_SAMPLES[name])
        values = {id(network.inputs[0]): front_ends[name](waveform)}
        used_by: dict[int, list[Any]] = {}
        for layer in network.layers:
            for tensor in _inputs(layer):
                used_by.setdefault(id(tensor), []).append(layer)
        paddings: dict[int, Any] = {}
        for layer in network.layers:
            kind = type(layer).__name__
            if kind in {"InputLayer", "CosineClassifier"} or layer.name == "classification":
                continue
            if id(layer.output) in values:
                continue  # folded into the convolution before it
            if kind == "ZeroPadding2D":
                paddings[id(layer.output)] = layer
                continue
            if kind == "Conv2D":
                padding = paddings.get(id(layer.input))
                x = values[id(padding.input if padding else layer.input)]
                after = used_by[id(layer.output)]
                is_folded = [type(user).__name__ for user in after] == ["FusedBatchNormalization"]
                norm = after[0] if is_folded else None
                output = self.convolution(x, layer, norm, padding)
                values[id(norm.output if norm else layer.output)] = output
                continue
            inputs = [values[id(x)] for x in _inputs(layer)]
            values[id(layer.output)] = self.layer(kind, layer, inputs, source)
        self.node("Identity", values[id(network.outputs[1])], output=OUTPUT_NAME)

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
        if kind == "FusedBatchNormalization":
            return self.normalization(layer, inputs[0])
        if kind == "Concatenate":
            return self.node("Concat", *inputs, axis=1)
        if kind == "FrequenciesToChannels":
            frequencies, channels = int(layer.input.shape[1]), int(layer.input.shape[3])
            turned = self.node("Transpose", inputs[0], perm=[0, 2, 1, 3])
            return self.node("Reshape", turned, self.ints(1, frequencies * channels, 1, -1))
        if kind == "SegmentMeans":
            from utils.networks.campplus import SEGMENT_FRAMES

            means = self.node(
                "AveragePool", inputs[0], kernel_shape=[1, SEGMENT_FRAMES],
                strides=[1, SEGMENT_FRAMES], ceil_mode=1,
            )  # fmt: skip
            return self.node("Add", means, self.node("ReduceMean", inputs[0], axes=[3]))
        if kind == "SegmentMask":
            return self.segment_mask(inputs[0], inputs[1])
        if kind == "Multiply":
            return self.node("Mul", *inputs)
        if kind == "GlobalAveragePooling2D":
            return self.node("ReduceMean", inputs[0], axes=[2, 3], keepdims=int(layer.keepdims))
        if kind == "ChannelGroup":
            width = int(layer.output.shape[3])
            start = layer.index * width
            return self.node(
                "Slice", inputs[0], self.ints(start), self.ints(start + width), self.ints(1)
            )
        if kind == "ContextStatistics":
            return self.context_statistics(layer, inputs[0])
        if kind == "Statistics":
            return self.statistics(layer, inputs[0])
        raise ModelError(
            f"{source}: its layer {layer.name} is a {kind}, which has no ONNX form here; export a "
            "model of train.py"
        )

    def convolution(self, x: str, layer: Any, norm: Any = None, padding: Any = None) -> str:
        """Adds a convolution, with the padding before and the normalisation behind it folded in.

        `SAME_UPPER` pads as Keras does, even for an odd number of frames.
        """
        # Keras: (height, width, in, out); ONNX: (out, in, height, width).
        kernel = np.asarray(layer.kernel, np.float64)
        bias = 0.0 if layer.bias is None else np.asarray(layer.bias, np.float64)
        if norm is not None:
            scale, offset = _affine(norm)
            kernel, bias = kernel * scale, bias * scale + offset
        inputs = [x, self.weights(kernel.transpose(3, 2, 0, 1))]
        if np.ndim(bias):
            inputs.append(self.constant(bias))
        pads: dict[str, Any] = {}
        if layer.padding == "same":
            pads["auto_pad"] = "SAME_UPPER"
        elif padding is not None:
            (top, bottom), (left, right) = padding.padding
            pads["pads"] = [top, left, bottom, right]
        output = self.node(
            "Conv", *inputs, output=layer.name,
            kernel_shape=list(layer.kernel_size), strides=list(layer.strides),
            dilations=list(layer.dilation_rate), **pads,
        )  # fmt: skip
        return self.node("Sigmoid", output) if layer.activation.__name__ == "sigmoid" else output

    def normalization(self, layer: Any, x: str) -> str:
        """Adds a batch normalisation that follows no convolution: factor and offset."""
        scale, offset = _affine(layer)
        size = len(scale)
        return self.node(
            "BatchNormalization", x, self.constant(scale), self.constant(offset),
            self.constant(np.zeros(size)), self.constant(np.ones(size)), epsilon=0.0,
        )  # fmt: skip

    def segment_mask(self, frames: str, masks: str) -> str:
        """Multiplies each frame by the mask of its segment.

        No layer between the first mask and the last changes the number of frames, so that they
        share the numbers of the segments.
        """
        from utils.networks.campplus import SEGMENT_FRAMES

        if self._segment_of_frame is None:
            num_frames = self.node("Gather", self.node("Shape", frames), self.constant(3, np.int64))
            zero, one = self.constant(0, np.int64), self.constant(1, np.int64)
            numbers = self.node("Range", zero, num_frames, one)
            self._segment_of_frame = self.node("Div", numbers, self.ints(SEGMENT_FRAMES))
        return self.node("Mul", frames, self.node("Gather", masks, self._segment_of_frame, axis=3))

    def statistics(self, layer: Any, x: str) -> str:
        """Adds mean and deviation over time: `(1, 2 * channels)` from `(1, channels, 1, n)`."""
        mean = self.node("ReduceMean", x, axes=[3])
        centred = self.node("Sub", x, mean)
        square = self.node("ReduceSum", self.node("Mul", centred, centred), self.ints(3))
        num_frames = self.node("Gather", self.node("Shape", x), self.ints(3), axis=0)
        count = self.node("Max", self.node("Sub", num_frames, self.ints(1)), self.ints(1))
        variance = self.node("Div", square, self.node("Cast", count, to=1))
        deviation = self.node("Sqrt", self.node("Max", variance, self.constant(1e-10)))
        joined = self.node("Concat", mean, deviation, axis=1)
        return self.node("Reshape", joined, self.ints(1, int(layer.output.shape[1])))

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
        return self.moments(mean, square)

    def context_statistics(self, layer: Any, x: str) -> str:
        """Adds the pooling over time: `(1, 2 * channels)` from `(1, channels, 1, num_frames)`."""
        squeezed = self.node("Squeeze", x, self.ints(2))
        frames = self.node("Transpose", squeezed, perm=[0, 2, 1])
        square = self.node("Mul", frames, frames)
        whole = self.moments(
            *(self.node("ReduceMean", item, axes=[1], keepdims=0) for item in (frames, square))
        )
        context = self.node("Unsqueeze", self.dense(layer.context, whole), self.ints(1))
        hidden = self.node("Tanh", self.node("Add", self.dense(layer.hidden, frames), context))
        weights = self.node("Softmax", self.dense(layer.weight, hidden), axis=1)
        return self.moments(
            *(
                self.node("ReduceSum", self.node("Mul", weights, item), self.ints(1), keepdims=0)
                for item in (frames, square)
            )
        )

    def moments(self, mean: str, square: str) -> str:
        """Adds mean and deviation, `(1, 2 * size)`, from the means of values and squares."""
        variance = self.node("Sub", square, self.node("Mul", mean, mean))
        deviation = self.node("Sqrt", self.node("Max", variance, self.constant(1e-4)))
        return self.node("Concat", mean, deviation, axis=1)

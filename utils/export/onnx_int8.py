"""Writes a network as ONNX with large convolutions in 8-bit integers: half the time, half the size.

Weights get a scale per channel, activations one per layer, calibrated on recordings of speech.
The spectrogram, the stem, the first stages and the pooling stay in floating point: their errors
would affect everything, and they take little time.
"""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.errors import ModelError
from utils.export.onnx import write_onnx
from utils.model.backend import stderr_closed
from utils.model.onnx import INPUT_NAME

TENSOR_FLOAT = 1
"""ONNX's number for 32-bit floats."""

MIN_CHANNELS = 64
"""Convolutions with fewer input channels stay in floating point."""


def write_quantized_onnx(
    model_path: str | Path, output_path: str | Path, recordings: Iterable[FloatArray]
) -> None:
    """Writes the embedding part of a model file as ONNX with 8-bit convolutions.

    Input, output and metadata are those of `utils.export.onnx.write_onnx`.

    Args:
        model_path: A `.keras` file of this toolkit.
        output_path: The ONNX file to write.
        recordings: Typical speech to calibrate the activations' ranges, shape `(num_samples,)`
            each, 16 kHz with silence removed. 100 recordings of different speakers are enough.

    Raises:
        ModelError: As `write_onnx`, or if the network has no large convolution.
    """
    import onnx
    import onnxruntime
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder, stderr_closed():
        source, folded = Path(folder, "source.onnx"), Path(folder, "folded.onnx")
        write_onnx(model_path, source, half_precision=False)
        metadata = onnx.load(source).metadata_props
        options = onnxruntime.SessionOptions()
        # Fuses operators before quantisation.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        names = _large_convolutions(onnx.load(folded).graph)
        if not names:
            raise ModelError(
                f"{model_path}: no convolution has {MIN_CHANNELS} input channels, expected a "
                "larger network for 8 bits; use --formats onnx"
            )
        quantization.quantize_static(
            folded,
            output_path,
            _reader(recordings),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=names,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
    model = onnx.load(output_path)
    _halve_weights(model.graph)
    del model.metadata_props[:]
    model.metadata_props.extend(metadata)
    Path(output_path).write_bytes(model.SerializeToString())


KEPT = re.compile(r"tdnn|transit\d_conv|block1_.*|.*_mask\d")
"""Convolutions of CAM++ that stay in floating point: the first ones and those between the blocks,
through which all errors pass, and the masks, which scale whole channels for seconds."""


def _large_convolutions(graph: Any) -> list[str]:
    """Returns the names of the 2-D convolutions with enough channels."""
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    kernels = {node.name: shapes[node.input[1]] for node in graph.node if node.op_type == "Conv"}
    return [
        name
        for name, shape in kernels.items()
        if len(shape) == 4 and shape[1] >= MIN_CHANNELS and not KEPT.fullmatch(name)
    ]


def _halve_weights(graph: Any) -> None:
    """Stores the weights that stay in floating point in 16 bits; computation stays in 32."""
    from onnx import helper, numpy_helper

    kernels = {node.input[1] for node in graph.node if node.op_type in {"Conv", "MatMul"}}
    # The front end's Fourier basis comes first, and is no trained weight: it stays exact.
    kernels -= {next(node for node in graph.node if node.op_type == "Conv").input[1]}
    casts = []
    for item in graph.initializer:
        if item.name in kernels and item.data_type == TENSOR_FLOAT:
            exact = item.name
            values = numpy_helper.to_array(item).astype(np.float16)
            item.CopyFrom(numpy_helper.from_array(values, f"{exact}_half"))
            casts.append(helper.make_node("Cast", [item.name], [exact], to=TENSOR_FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)


def _reader(recordings: Iterable[FloatArray]) -> Any:
    """Returns ONNX Runtime's reader for the recordings."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.remaining = iter(recordings)

        def get_next(self) -> dict[str, FloatArray] | None:
            waveform = next(self.remaining, None)
            return None if waveform is None else {INPUT_NAME: waveform[None]}

    return Reader()

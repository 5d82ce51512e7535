"""The nodes of an ONNX graph, and the front ends that lead from the waveform to the features."""

from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.spectrogram import (
    EPSILON,
    HOP_LENGTH,
    N_FFT,
    NUM_BINS,
    WIN_LENGTH,
    padded_window,
)
from utils.networks.filterbank import (
    FRAME_LENGTH,
    FRAME_SHIFT,
    HIGHEST_HZ,
    LOG_FLOOR,
    NUM_FFT_BINS,
    frame_basis,
    mel_filters,
)

OPSET = 17
"""ONNX operator set, supported by every runtime since 2022."""

OUTPUT_NAME = "embedding"


def fourier_basis(window: FloatArray | None = None) -> FloatArray:
    """Returns the convolution kernels that compute a Fourier transform.

    Args:
        window: Analysis window, shape `(length,)`, by default that of the spectrogram, 400 long.

    Returns:
        Shape `(514, 1, length)`: cosines of the 257 bins, then sines, times the analysis window,
        without the samples where the window is zero.
    """
    length = WIN_LENGTH if window is None else len(window)
    start = (N_FFT - length) // 2
    samples = np.arange(start, start + length)
    # Exact integers before the scaling: a phase of 2 pi * 256 * 455 would lose digits.
    phase = 2 * np.pi * (np.outer(np.arange(NUM_BINS), samples) % N_FFT) / N_FFT
    window = padded_window()[samples] if window is None else window
    basis = np.concatenate([np.cos(phase), -np.sin(phase)]) * window
    return basis[:, None, :].astype(np.float32)


class Graph:
    """Collects the nodes and constants of a graph; values are named in order."""

    def __init__(self, half_precision: bool) -> None:
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

    def repeated(self, waveform: str, least: int) -> str:
        """Repeats a clip of fewer samples until they are `least`: `spectrogram.extend`."""
        length = self.node("Gather", self.node("Shape", waveform), self.ints(1), axis=0)
        crop, one = self.ints(least), self.ints(1)
        whole = self.node("Sub", self.node("Add", crop, length), one)
        repeats = self.node("Div", whole, length)
        tiled = self.node("Tile", waveform, self.node("Concat", one, repeats, axis=0))
        end = self.node("ReduceMax", self.node("Concat", length, crop, axis=0))
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

    def filterbank(
        self, waveform: str, window: str = "povey", highest_hz: float = HIGHEST_HZ, scale: int = 1
    ) -> str:
        """Adds `utils.networks.filterbank.filterbank`: `(1, 1, 80, num_frames)` from `(1, n)`.

        Args:
            waveform: Samples in [-1, 1].
            window: A key of `utils.networks.filterbank.WINDOWS`.
            highest_hz: Upper edge of the last triangle.
            scale: Multiplies the samples.
        """
        framed = self.node("Unsqueeze", waveform, self.ints(1))
        transform = self.node(
            "Conv", framed, self.constant(scale * frame_basis(window).T[:, None, :]),
            kernel_shape=[FRAME_LENGTH], strides=[FRAME_SHIFT],
        )  # fmt: skip
        square = self.node("Mul", transform, transform)
        parts = self.node("Reshape", square, self.ints(1, 2, NUM_FFT_BINS, -1))
        power = self.node("ReduceSum", parts, self.ints(1), keepdims=0)
        energies = self.node("MatMul", self.constant(mel_filters(highest_hz).T), power)
        levels = self.node("Log", self.node("Max", energies, self.constant(LOG_FLOOR)))
        centred = self.node("Sub", levels, self.node("ReduceMean", levels, axes=[2]))
        return self.node("Unsqueeze", centred, self.ints(1))

"""Kaldi's log mel filter bank as a front end: 80 bins, their mean over time subtracted.

Everything before the power spectrum is linear in the samples of a frame, so one convolution does
it: mean removed, pre-emphasis, Povey's window and the Fourier transform, in this order.

Source: Kaldi, feat/feature-window.cc, feat/feature-fbank.cc and feat/mel-computations.cc.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from utils.audio import SAMPLE_RATE, FloatArray

FRAME_LENGTH = 400
"""Samples of a frame, 25 ms; frames lie wholly inside the waveform (Kaldi's `snip_edges`)."""

FRAME_SHIFT = 160
"""Samples from one frame to the next, 10 ms."""

FFT_LENGTH = 512
"""Samples of a Fourier transform: the next power of two."""

NUM_FFT_BINS = FFT_LENGTH // 2 + 1

NUM_MEL_BINS = 80

PRE_EMPHASIS = 0.97

LOWEST_HZ = 20.0
"""Lower edge of the first triangle, Kaldi's default; the upper edge of the last is 8 kHz."""

LOG_FLOOR = float(np.finfo(np.float32).eps)
"""Least energy under the logarithm, for samples in [-1, 1]."""


def num_filterbank_frames(num_samples: int) -> int:
    """Returns how many whole frames fit into a waveform."""
    return max(0, 1 + (num_samples - FRAME_LENGTH) // FRAME_SHIFT)


@lru_cache(maxsize=1)
def frame_basis() -> FloatArray:
    """Returns the linear map from a frame to its Fourier transform.

    Returns:
        Shape `(400, 514)`: real parts of the 257 bins, then imaginary parts.
    """
    identity = np.eye(FRAME_LENGTH)
    frames = identity - 1.0 / FRAME_LENGTH  # the frame's mean is removed first
    # The first sample has no predecessor: Kaldi takes itself.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = np.hanning(FRAME_LENGTH) ** 0.85  # Povey's
    transform = np.fft.rfft((frames - PRE_EMPHASIS * before) * window, FFT_LENGTH)
    return np.concatenate([transform.real, transform.imag], axis=1).astype(np.float32)


@lru_cache(maxsize=1)
def mel_filters() -> FloatArray:
    """Returns triangles that are straight on the mel scale, shape `(257, 80)`.

    The mel scale is 1127 ln(1 + f / 700); the bin at 8 kHz is left out.
    """
    low, high = _mel(LOWEST_HZ), _mel(SAMPLE_RATE / 2)
    step = (high - low) / (NUM_MEL_BINS + 1)
    left = low + step * np.arange(NUM_MEL_BINS)
    mel = _mel(np.arange(NUM_FFT_BINS) * SAMPLE_RATE / FFT_LENGTH)[:, None]
    triangles = np.minimum((mel - left) / step, (left + 2 * step - mel) / step).clip(min=0.0)
    triangles[-1] = 0.0
    return np.asarray(triangles, np.float32)


def _mel(hertz: Any) -> Any:
    """Returns the mel value of frequencies in Hz."""
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


@keras.saving.register_keras_serializable("voiceprint")
class FilterBank(layers.Layer):
    """Log mel energies less their mean over time.

    Call arguments:
        waveforms: float32 in [-1, 1], 16 kHz, at least one frame of 400 samples.

    Input shape: `(batch, num_samples)`.

    Output shape: `(batch, 80, 1 + (num_samples - 400) // 160, 1)`, natural logarithm, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, waveforms: Any) -> Any:
        return self.normalize(self.magnitude(waveforms))

    def magnitude(self, waveforms: Any) -> Any:
        """Returns the magnitude spectrum of each frame, shape `(batch, num_frames, 257)`."""
        kernel = ops.convert_to_tensor(frame_basis()[:, None, :])
        transform = ops.conv(
            ops.expand_dims(waveforms, -1), kernel, FRAME_SHIFT, "valid", "channels_last"
        )
        square = ops.square(transform)
        return ops.sqrt(square[..., :NUM_FFT_BINS] + square[..., NUM_FFT_BINS:])

    def normalize(self, magnitudes: Any) -> Any:
        """Returns the network's input `(batch, 80, num_frames, 1)` for such magnitudes."""
        energies = ops.matmul(ops.square(magnitudes), ops.convert_to_tensor(mel_filters()))
        levels = ops.log(ops.maximum(energies, LOG_FLOOR))
        levels = levels - ops.mean(levels, axis=1, keepdims=True)
        return ops.expand_dims(ops.transpose(levels, [0, 2, 1]), -1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        samples = input_shape[1]
        frames = None if samples is None else num_filterbank_frames(samples)
        return (input_shape[0], NUM_MEL_BINS, frames, 1)

"""Kaldi's log mel filter bank: 80 bins, their mean over time subtracted.

Everything before the power spectrum is linear in the samples of a frame, so one matrix does it:
mean removed, pre-emphasis, Povey's window and the Fourier transform, in this order.

Source: Kaldi, feat/feature-window.cc, feat/feature-fbank.cc and feat/mel-computations.cc.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE

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
"""Lower edge of the first triangle, Kaldi's default."""

HIGHEST_HZ = SAMPLE_RATE / 2
"""Upper edge of the last triangle, Kaldi's default."""

LOG_FLOOR = float(np.finfo(np.float32).eps)
"""Least energy under the logarithm, for samples in [-1, 1]."""


def num_filterbank_frames(num_samples: int) -> int:
    """Returns how many whole frames fit into a waveform."""
    return max(0, 1 + (num_samples - FRAME_LENGTH) // FRAME_SHIFT)


def povey_window() -> FloatArray:
    """Returns Kaldi's window, shape `(400,)`: a Hann window, raised to the power 0.85."""
    return np.asarray(np.hanning(FRAME_LENGTH) ** 0.85, np.float32)


def hamming_window() -> FloatArray:
    """Returns Hamming's window, shape `(400,)`."""
    return np.asarray(np.hamming(FRAME_LENGTH), np.float32)


WINDOWS = {"povey": povey_window, "hamming": hamming_window}
"""Windows by Kaldi's names."""


@lru_cache
def frame_basis(window: str = "povey") -> FloatArray:
    """Returns the linear map from a frame to its Fourier transform.

    Args:
        window: A key of `WINDOWS`.

    Returns:
        Shape `(400, 514)`: real parts of the 257 bins, then imaginary parts.
    """
    identity = np.eye(FRAME_LENGTH)
    frames = identity - 1.0 / FRAME_LENGTH  # the frame's mean is removed first
    # The first sample has no predecessor: Kaldi takes itself.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    windowed = (frames - PRE_EMPHASIS * before) * WINDOWS[window]()
    transform = np.fft.rfft(windowed, FFT_LENGTH)
    return np.concatenate([transform.real, transform.imag], axis=1).astype(np.float32)


@lru_cache
def mel_filters(highest_hz: float = HIGHEST_HZ) -> FloatArray:
    """Returns triangles that are straight on the mel scale, shape `(257, 80)`.

    The mel scale is 1127 ln(1 + f / 700); the bin at 8 kHz is left out.

    Args:
        highest_hz: Upper edge of the last triangle.
    """
    low, high = _mel(LOWEST_HZ), _mel(highest_hz)
    step = (high - low) / (NUM_MEL_BINS + 1)
    left = low + step * np.arange(NUM_MEL_BINS)
    mel = _mel(np.arange(NUM_FFT_BINS) * SAMPLE_RATE / FFT_LENGTH)[:, None]
    triangles = np.minimum((mel - left) / step, (left + 2 * step - mel) / step).clip(min=0.0)
    triangles[-1] = 0.0
    return np.asarray(triangles, np.float32)


def filterbank(waveform: FloatArray) -> FloatArray:
    """Returns the network's input for a waveform of any length.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz, in [-1, 1].

    Returns:
        Natural logarithms of the energies less their mean over time, shape `(80, num_frames)`.

    Raises:
        ValueError: If `waveform` is not one-dimensional or shorter than a frame.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 1 or len(waveform) < FRAME_LENGTH:
        raise ValueError(
            f"expected at least {FRAME_LENGTH} samples in one dimension, received shape "
            f"{waveform.shape}"
        )
    frames = np.lib.stride_tricks.sliding_window_view(waveform, FRAME_LENGTH)[::FRAME_SHIFT]
    square = np.square(frames @ frame_basis())
    energies = (square[:, :NUM_FFT_BINS] + square[:, NUM_FFT_BINS:]) @ mel_filters()
    levels = np.log(np.maximum(energies, LOG_FLOOR))
    centred: FloatArray = (levels - levels.mean(axis=0)).T
    return centred


def _mel(hertz: Any) -> Any:
    """Returns the mel value of frequencies in Hz."""
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

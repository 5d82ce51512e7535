"""The features: short-time Fourier magnitude, 257 bins, normalised frame by frame.

There is one definition, used in training, evaluation and inference. `spectrogram` computes it with
NumPy; `utils.resnet.Spectrogram` is its twin on the training device and is tested equal to it.
"""

from functools import lru_cache

import numpy as np

from utils.arrays import FloatArray

N_FFT = 512
"""Samples of a Fourier transform, 32 ms."""

WIN_LENGTH = 400
"""Samples of the periodic Hann window, 25 ms, centred in the transform."""

HOP_LENGTH = 160
"""Samples from one frame to the next, 10 ms."""

NUM_BINS = N_FFT // 2 + 1
"""257 frequencies from 0 to 8 kHz, 31.25 Hz apart."""

CROP_FRAMES = 257
"""Frames of a training crop and of the baseline's evaluation: 2.57 s."""

EPSILON = 1e-5
"""Added to the standard deviation of a frame, so that digital silence gives zeros."""

CROP_SAMPLES = (CROP_FRAMES - 1) * HOP_LENGTH
"""Samples whose centred frames are exactly one crop: 40960."""

FLIP_PROBABILITY = 0.3
"""How often the baseline plays a training clip backwards."""


@lru_cache(maxsize=1)
def padded_window() -> FloatArray:
    """Returns the analysis window, shape `(512,)`: a periodic Hann of 400 between zeros."""
    window = np.zeros(N_FFT)
    start = (N_FFT - WIN_LENGTH) // 2
    phase = 2 * np.pi * np.arange(WIN_LENGTH) / WIN_LENGTH
    window[start : start + WIN_LENGTH] = 0.5 - 0.5 * np.cos(phase)
    return window.astype(np.float32)


def magnitude(waveform: FloatArray) -> FloatArray:
    """Returns the magnitude of the short-time Fourier transform.

    Equal to `librosa.magphase(librosa.stft(waveform, n_fft=512, win_length=400,
    hop_length=160))[0]`: frames are centred and the ends padded with zeros.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz.

    Returns:
        Shape `(257, num_frames)` with `num_frames = 1 + num_samples // 160`, linear amplitude.

    Raises:
        ValueError: If `waveform` is not one-dimensional or is empty.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 1 or len(waveform) == 0:
        raise ValueError(f"expected samples in one dimension, received shape {waveform.shape}")
    padded = np.pad(waveform, N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_LENGTH]
    magnitudes: FloatArray = np.abs(np.fft.rfft(frames * padded_window())).astype(np.float32)
    return np.asarray(magnitudes.T)


def normalize(magnitudes: FloatArray) -> FloatArray:
    """Gives every frame zero mean and unit deviation over its 257 bins.

    Args:
        magnitudes: Shape `(257, num_frames)`.

    Returns:
        Same shape, unitless.
    """
    mean = magnitudes.mean(axis=0, keepdims=True)
    deviation = magnitudes.std(axis=0, keepdims=True)
    normalized: FloatArray = (magnitudes - mean) / (deviation + EPSILON)
    return normalized


def spectrogram(waveform: FloatArray) -> FloatArray:
    """Returns the network's input for a waveform of any length.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz.

    Returns:
        Normalised magnitude, shape `(257, num_frames)`, unitless.

    Raises:
        ValueError: As `magnitude`.
    """
    return normalize(magnitude(waveform))


def training_waveform(
    waveform: FloatArray,
    rng: np.random.Generator,
    num_samples: int = CROP_SAMPLES,
    flip_probability: float = FLIP_PROBABILITY,
) -> FloatArray:
    """Returns a random crop of a clip joined to itself, now and then played backwards.

    The baseline doubles the clip, reverses it with probability 0.3 and crops the spectrogram at
    random; cropping the waveform first changes only the two edge frames. A clip that is shorter
    than half a crop is repeated as often as needed.

    Args:
        waveform: Shape `(n,)`, `n >= 1`, 16 kHz.
        rng: Source of the random choices.
        num_samples: Length of the crop in samples.
        flip_probability: How often the clip is reversed in time.

    Returns:
        Shape `(num_samples,)`.
    """
    extended = extend(waveform, max(2 * len(waveform), num_samples))
    if rng.random() < flip_probability:
        extended = extended[::-1]
    start = int(rng.integers(0, len(extended) - num_samples + 1))
    return np.ascontiguousarray(extended[start : start + num_samples])


def evaluation_waveform(waveform: FloatArray, num_samples: int = CROP_SAMPLES) -> FloatArray:
    """Returns the first crop of a clip followed by its mirror image, as the baseline evaluates.

    Args:
        waveform: Shape `(n,)`, `n >= 1`, 16 kHz.
        num_samples: Length of the crop in samples.

    Returns:
        Shape `(num_samples,)`.
    """
    mirrored = np.concatenate([waveform, waveform[::-1]])
    return extend(mirrored, num_samples)[:num_samples]


def extend(waveform: FloatArray, num_samples: int) -> FloatArray:
    """Repeats a waveform until it has at least `num_samples` samples, and cuts it there.

    Raises:
        ValueError: If `waveform` is empty.
    """
    if len(waveform) == 0:
        raise ValueError("expected at least one sample, received an empty waveform")
    repeats = -(-num_samples // len(waveform))
    return np.tile(waveform, max(repeats, 1))[:num_samples]

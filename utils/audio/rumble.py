"""A constant offset, hum and rumble below the voice, taken out of a waveform.

None of them is a voice, but all move the score: the network sees frequencies from 0 up. What is
faint stays, since it was heard in training. A steady tone is fitted and subtracted, which leaves
everything else as it was; where loud rumble remains, the band is taken out.
"""

import numpy as np

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE

RUMBLE_RATE = 140
"""Hz. Half of it, less 6 % that the resampler needs, is where rumble ends and voices begin."""

RUMBLE_DB = -20.0
"""dB of the whole. Of clean recordings of speech, 4 % have more below 64 Hz."""

TONE_DB = -30.0
"""dB of the whole from which a tone is subtracted: fainter ones move scores too, but are rare."""

TONE_SHARE = 0.75
"""Of the low band. A tone that has less of it is one peak of its noise among others."""

TONE_HZ = (4.0, 64.0)
"""Hum of motors and mains; no voice is as low."""

MAX_TONES = 4
"""Tones that are subtracted, the strongest first: hum has a few at the most below 64 Hz."""

TONE_RATE = 400
"""Hz. Where tones are looked for: means of 40 samples."""

NUM_REFINEMENTS = 30
"""Steps to the frequency of a tone, each of which makes the range 0.62 times as wide."""


def without_rumble(waveform: FloatArray) -> FloatArray:
    """Takes a constant offset, and loud hum and rumble below 64 Hz, out of a waveform.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz.

    Returns:
        The same shape.
    """
    if len(waveform) == 0:
        return waveform
    centred = np.asarray(waveform - np.float32(np.median(waveform)), dtype=np.float32)
    if len(centred) < SAMPLE_RATE // RUMBLE_RATE:  # Less than one sample of the low band.
        return centred
    low, level = _low_band(centred)
    for _ in range(MAX_TONES):
        if level < 10 ** (TONE_DB / 10):
            return centred
        without = _without_strongest_tone(centred)
        low_without, level_without = _low_band(without)
        if np.mean(low_without**2) > (1 - TONE_SHARE) * np.mean(low**2):
            break
        centred, low, level = without, low_without, level_without
    return centred if level < 10 ** (RUMBLE_DB / 10) else _without_band(centred, low)


def _low_band(waveform: FloatArray) -> tuple[FloatArray, float]:
    """Returns the band below 64 Hz at `RUMBLE_RATE`, reflected at both ends, and its share."""
    import soxr

    # Reflected through its end points, so that the filter hears no beginning and no end.
    size = _reflected_size(waveform)
    before = 2 * waveform[0] - waveform[size:0:-1]
    after = 2 * waveform[-1] - waveform[-2 : -size - 2 : -1]
    extended = np.concatenate([before, waveform, after])
    # What survives a rate of 140 Hz.
    low = soxr.resample(extended, SAMPLE_RATE, RUMBLE_RATE, quality="HQ")
    return low, float(np.mean(low**2)) / max(float(np.var(extended)), 1e-20)


def _reflected_size(waveform: FloatArray) -> int:
    """Returns how many samples are reflected at each end."""
    return min(SAMPLE_RATE // 4, len(waveform) - 1)


def _without_band(waveform: FloatArray, low: FloatArray) -> FloatArray:
    """Subtracts what `_low_band` returned."""
    import soxr

    size = _reflected_size(waveform)
    low = soxr.resample(low, RUMBLE_RATE, SAMPLE_RATE, quality="HQ")[size:][: len(waveform)]
    low = np.pad(low, (0, len(waveform) - len(low)))
    return np.asarray(waveform - low, dtype=np.float32)


def _without_strongest_tone(waveform: FloatArray) -> FloatArray:
    """Subtracts the strongest steady tone below 64 Hz, by least squares."""
    size = SAMPLE_RATE // TONE_RATE
    means = waveform[: len(waveform) // size * size].reshape(-1, size).mean(axis=1)
    num_bins = 1 << (4 * len(means) - 1).bit_length()
    power = np.abs(np.fft.rfft(means * np.hanning(len(means)), num_bins)) ** 2
    hertz = np.fft.rfftfreq(num_bins, 1 / TONE_RATE)
    power[(hertz < TONE_HZ[0]) | (hertz > TONE_HZ[1])] = 0
    peak = float(hertz[int(power.argmax())])
    step = float(hertz[1])
    low, high = peak - step, peak + step
    # Golden section: the power left over has one minimum between the neighbouring bins.
    ratio = (5**0.5 - 1) / 2
    for _ in range(NUM_REFINEMENTS):
        inner = high - ratio * (high - low), low + ratio * (high - low)
        left, right = (float(np.sum(_residual(means, each, TONE_RATE) ** 2)) for each in inner)
        low, high = (low, inner[1]) if left < right else (inner[0], high)
    return _residual(waveform, (low + high) / 2, SAMPLE_RATE)


def _residual(waveform: FloatArray, hertz: float, rate: int) -> FloatArray:
    """Returns what is left of a waveform without its part of one frequency."""
    phase = 2 * np.pi * hertz / rate * np.arange(len(waveform))
    basis = np.stack([np.cos(phase), np.sin(phase)]).astype(waveform.dtype)
    weights = np.linalg.solve(basis @ basis.T + 1e-9 * np.eye(2), basis @ waveform)
    return np.asarray(waveform - weights @ basis, dtype=waveform.dtype)

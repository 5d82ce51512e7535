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

COARSE = 8
"""Samples that are averaged before the level below 64 Hz is measured: eight times as fast, and what
their means fold down from 2 kHz is 30 dB fainter."""

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
    power = _low_power(centred)
    for _ in range(MAX_TONES):
        if power < 10 ** (TONE_DB / 10) * float(np.var(centred)):
            return centred
        without = _without_strongest_tone(centred)
        power_without = _low_power(without)
        if power_without > (1 - TONE_SHARE) * power:
            break
        centred, power = without, power_without
    is_loud = power >= 10 ** (RUMBLE_DB / 10) * float(np.var(centred))
    return _without_band(centred) if is_loud else centred


def _low_power(waveform: FloatArray) -> float:
    """Returns the mean square of a waveform below 64 Hz."""
    import soxr

    means = waveform[: len(waveform) // COARSE * COARSE].reshape(-1, COARSE).mean(axis=1)
    # Mirrored, since a sudden end would count as rumble.
    size = min(SAMPLE_RATE // COARSE // 4, len(means) - 1)
    low = soxr.resample(np.pad(means, size, mode="reflect"), SAMPLE_RATE / COARSE, RUMBLE_RATE)
    return float(np.mean(low**2))


def _without_band(waveform: FloatArray) -> FloatArray:
    """Subtracts all that survives a rate of 140 Hz: the band below 64 Hz, without delay."""
    import soxr

    # Reflected through its end points, so that the filter hears no beginning and no end.
    size = min(SAMPLE_RATE // 4, len(waveform) - 1)
    before = 2 * waveform[0] - waveform[size:0:-1]
    after = 2 * waveform[-1] - waveform[-2 : -size - 2 : -1]
    low = soxr.resample(
        np.concatenate([before, waveform, after]), SAMPLE_RATE, RUMBLE_RATE, quality="HQ"
    )
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

"""What every waveform in the toolkit is: 16 kHz, mono, float32; its defects; written as wav."""

from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.files import atomic_path

SAMPLE_RATE = 16000
"""Hz. All waveforms inside the toolkit have this rate."""

MIN_DURATION_S = 0.3
"""Seconds. Shorter recordings hold less than one syllable and are refused everywhere."""

SILENCE_PEAK_DB = -60.0
"""dBFS. A recording whose peak stays under this (32 of 32768 steps) is called silent."""


def write_wav(path: str | Path, waveform: FloatArray) -> None:
    """Writes a waveform as 16 kHz mono 16-bit PCM, under a temporary name and then renamed.

    Args:
        path: Where to write; its folder is made.
        waveform: Shape `(num_samples,)`, 16 kHz; divided by its peak if that is beyond full scale.

    Raises:
        ValueError: If `waveform` is not one-dimensional or has samples that are not finite.
    """
    import soundfile

    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or not np.isfinite(waveform).all():
        raise ValueError(f"expected finite samples in one dimension, received {waveform.shape}")
    with atomic_path(path) as temporary:
        soundfile.write(
            temporary, within_full_scale(waveform), SAMPLE_RATE, subtype="PCM_16", format="WAV"
        )


def within_full_scale(waveform: FloatArray) -> FloatArray:
    """Divides a waveform by its peak if that is beyond full scale, so that nothing is clipped.

    Files of floating-point samples may have any scale (some programs write 16-bit numbers as they
    are), and lossy decoders overshoot a little. A voice is the same at any level.

    Args:
        waveform: Shape `(num_samples,)`, finite.

    Returns:
        The same shape, in [-1, 1].
    """
    peak = np.float32(largest_magnitude(waveform))
    return waveform if peak <= 1 else waveform / peak


def describe_defect(waveform: FloatArray, min_duration_s: float = MIN_DURATION_S) -> str | None:
    """Says in a few words why a waveform cannot be used, or returns `None` if it can.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz.
        min_duration_s: Shortest length that is accepted, in seconds.
    """
    if len(waveform) == 0:
        return "empty"
    if not np.isfinite(waveform).all():
        return "non-finite samples"
    duration = len(waveform) / SAMPLE_RATE
    if duration < min_duration_s:
        return f"too short: {duration:.2f} s, expected at least {min_duration_s:.2f} s"
    level = peak_db(waveform)
    if level < SILENCE_PEAK_DB:
        return f"silent: peak {level:.0f} dBFS, expected at least {SILENCE_PEAK_DB:.0f} dBFS"
    return None


def peak_db(waveform: FloatArray) -> float:
    """Returns the largest magnitude of a waveform in dB relative to full scale (floor -120)."""
    return float(20 * np.log10(max(largest_magnitude(waveform), 1e-6)))


def largest_magnitude(waveform: FloatArray) -> float:
    """Returns the peak of a waveform of any length, 0 of none, without a copy of it."""
    return float(max(waveform.max(initial=0.0), -waveform.min(initial=0.0)))

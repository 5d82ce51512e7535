"""Where somebody speaks in a recording: an energy detector, the same in training and in use.

A 10 ms frame counts as speech if it is not far below the loud parts of its own recording. In noise
that is almost as loud as the speech everything is kept: the network is trained on such noise, and
losing speech costs more than keeping noise.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE

BoolArray = npt.NDArray[np.bool_]

FRAME_SAMPLES = 160
"""10 ms, the hop of the spectrogram."""

RANGE_DB = 35.0
"""dB. Speech of one sitting spans about 30 dB from stressed vowels to weak fricatives."""

LOUD_PERCENTILE = 95.0
"""The level that only 5 % of the audible frames exceed stands for "the loud parts"."""

FLOOR_DB = -66.0
"""dBFS (root mean square of a frame). Below this is the noise of a 16-bit converter."""

MIN_BURST_FRAMES = 4
"""40 ms. Shorter sounds alone are clicks and taps, not speech."""

PADDING_FRAMES = 10
"""100 ms kept on each side of speech: soft onsets and endings; pauses up to 200 ms stay whole."""


@dataclass(frozen=True)
class Activity:
    """Where somebody speaks, frame by frame of 10 ms; the last frame may be filled with zeros.

    Attributes:
        power: Mean square less the recording's constant offset, shape `(num_frames,)`.
        is_speech: Whether it is speech or close to speech, shape `(num_frames,)`.
    """

    power: FloatArray
    is_speech: BoolArray


def find_activity(waveform: FloatArray) -> Activity:
    """Looks where somebody speaks.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz. A last incomplete frame counts as one frame.
    """
    power = _frame_power(waveform)
    levels = 10 * np.log10(power + np.float32(1e-12))
    audible = levels[levels > FLOOR_DB]
    if len(audible) == 0:
        return Activity(power, np.zeros(len(levels), dtype=bool))
    loud = _quantile(audible, LOUD_PERCENTILE / 100)
    mask = _without_short_runs(levels > max(loud - RANGE_DB, FLOOR_DB))
    # A running maximum over 2 * PADDING_FRAMES + 1 frames, as a difference of counts.
    counts = np.concatenate([[0], np.cumsum(mask)])
    frames = np.arange(len(mask))
    upper = np.minimum(frames + PADDING_FRAMES + 1, len(mask))
    lower = np.maximum(frames - PADDING_FRAMES, 0)
    return Activity(power, counts[upper] > counts[lower])


def speech_mask(waveform: FloatArray) -> BoolArray:
    """Tells for each 10 ms of a waveform whether it is speech or close to speech.

    Returns:
        Shape `(ceil(num_samples / 160),)`.
    """
    return find_activity(waveform).is_speech


def remove_silence(waveform: FloatArray, activity: Activity | None = None) -> FloatArray:
    """Cuts out leading, trailing and long inner silence.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz.
        activity: What `find_activity` says of it, if that is known.

    Returns:
        The frames that are speech, joined; empty if there are none.
    """
    mask = speech_mask(waveform) if activity is None else activity.is_speech
    if mask.all():
        return waveform
    return waveform[np.repeat(mask, FRAME_SAMPLES)[: len(waveform)]]


def speech_seconds(waveform: FloatArray) -> float:
    """Returns how many seconds `remove_silence` would keep."""
    mask = speech_mask(waveform)
    return float(np.repeat(mask, FRAME_SAMPLES)[: len(waveform)].sum()) / SAMPLE_RATE


def middle(values: FloatArray) -> np.float32:
    """Returns the median of at least one finite value; NumPy's takes three times as long."""
    ordered = np.sort(values)
    result: np.float32 = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return result


def _quantile(values: FloatArray, fraction: float) -> float:
    """Returns `np.quantile(values, fraction)` of at least one value, in a fifth of its time."""
    position = fraction * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    ordered = np.partition(values, (below, above))
    low, high = float(ordered[below]), float(ordered[above])
    return low + (high - low) * (position - below)


def _frame_power(waveform: FloatArray) -> FloatArray:
    """Returns the mean square of each 10 ms frame, without the recording's constant offset."""
    num_frames = -(-len(waveform) // FRAME_SAMPLES)
    if num_frames == 0:
        return np.empty(0, dtype=np.float32)
    padded = np.zeros(num_frames * FRAME_SAMPLES, dtype=np.float32)
    padded[: len(waveform)] = waveform
    frames = padded.reshape(num_frames, FRAME_SAMPLES)
    # The median, because a click shifts the mean: silence would look like a constant offset.
    padded[: len(waveform)] -= middle(frames.mean(axis=1))
    return np.asarray(np.einsum("ij,ij->i", frames, frames) / FRAME_SAMPLES, dtype=np.float32)


def _without_short_runs(mask: BoolArray) -> BoolArray:
    """Clears runs of true that are shorter than `MIN_BURST_FRAMES`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    result: BoolArray = mask.copy()
    for start, end in zip(starts, ends, strict=True):
        if end - start < MIN_BURST_FRAMES:
            result[start:end] = False
    return result

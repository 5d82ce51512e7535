"""Tells whether two recordings are the same one, sent again, whatever was done to the file.

A print keeps 16 bits for every 25 ms: whether the step between neighbouring bands of the spectrum
grew or fell in the last 50 ms (after Haitsma and Kalker, "A highly robust audio fingerprinting
system", 2002). Loudness, codecs and the line change few of them; two readings of one sentence agree
hardly more than two sentences. No sound can be made of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE

HOP_SAMPLES = SAMPLE_RATE // 40
"""25 ms. A cut that is no multiple of it moves the frames by 6 ms at most against one of two
prints, a fortieth of a frame."""

FRAME_SAMPLES = 4096
"""256 ms: long against the hop, so that neighbouring frames hardly differ."""

NUM_BITS = 16

LOWEST_HZ, HIGHEST_HZ = 250.0, 3600.0
"""What every telephone lets through."""

STEP = 2
"""Frames between the two spectra whose difference counts."""

RANGE_DB = 40.0
"""Frames that are this much below the loud ones are left out: codecs put noise into pauses."""

MAX_FRAMES = 40 * 60
"""A minute; of longer recordings the rest is left out."""

MIN_OVERLAP_S = 0.5
"""Seconds of speech that two recordings must share to be compared."""

MIN_SHARE = 0.5
"""Share of the shorter one's speech that they must share."""

SAME = 0.4
"""Agreement from which two recordings are the same one: benchmarks/replay.py."""


@dataclass(frozen=True, eq=False)
class Print:
    """What a recording is known by.

    Attributes:
        bits: Shape `(num_frames, 16)`.
        is_heard: Which frames count, shape `(num_frames,)`.
    """

    bits: npt.NDArray[np.bool_]
    is_heard: npt.NDArray[np.bool_]

    def to_bytes(self) -> bytes:
        """Returns three bytes a frame: whether it counts, and its bits."""
        heard = self.is_heard.astype(np.uint8)[:, None]
        return np.concatenate([heard, np.packbits(self.bits, axis=1)], axis=1).tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Print":
        """Returns what `to_bytes` wrote."""
        rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + NUM_BITS // 8)
        return cls(np.unpackbits(rows[:, 1:], axis=1).astype(bool), rows[:, 0].astype(bool))


def take_prints(waveform: FloatArray) -> tuple[Print, ...]:
    """Returns the print to keep, and that of half a hop later, with which a cut copy may agree."""
    return take_print(waveform), take_print(waveform[HOP_SAMPLES // 2 :])


def take_print(waveform: FloatArray) -> Print:
    """Returns the print of a recording, shape `(num_samples,)`, 16 kHz."""
    waveform = np.asarray(waveform[: (MAX_FRAMES + STEP) * HOP_SAMPLES], np.float32)
    missing = FRAME_SAMPLES - len(waveform)
    frames = np.lib.stride_tricks.sliding_window_view(
        np.pad(waveform, (0, max(missing, 0))), FRAME_SAMPLES
    )[::HOP_SAMPLES]
    window = np.hanning(FRAME_SAMPLES).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, NUM_BITS + 2) * FRAME_SAMPLES / SAMPLE_RATE
    edges = edges.round().astype(int)
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    level = np.log(bands + np.finfo(np.float32).tiny)
    slope = level[:, 1:] - level[:, :-1]
    bits = slope[STEP:] > slope[:-STEP]
    loudness = 10 * np.log10(bands.sum(axis=1) + 1e-20)
    floor = np.percentile(loudness, 95) - RANGE_DB
    is_loud = loudness > floor
    return Print(bits, is_loud[STEP:] & is_loud[:-STEP])


def agreement(new: Print, earlier: Sequence[Print]) -> float:
    """Returns how far a recording agrees with that of others which is most alike.

    Args:
        new: Its print.
        earlier: Prints of the others.

    Returns:
        1 if all bits are equal, 0 if as many differ; at the shift where the two agree best. -1 if
        there is nothing to compare with.
    """
    best = -1.0
    for other in earlier:
        size = len(new.bits) + len(other.bits)
        size = 1 << (size - 1).bit_length()
        one, two = (_spectrum(each, size) for each in (new, other))
        found = np.fft.irfft(one * two.conj(), size, axis=0)
        shared = found[:, 0].round()
        least = max(
            MIN_OVERLAP_S * SAMPLE_RATE / HOP_SAMPLES,
            MIN_SHARE * min(new.is_heard.sum(), other.is_heard.sum()),
        )
        is_enough = shared >= least
        if is_enough.any():
            equal = found[is_enough, 1:].sum(axis=1) / (NUM_BITS * shared[is_enough])
            best = max(best, float(equal.max()))
    return best


def _spectrum(one: Print, size: int) -> npt.NDArray[np.complex128]:
    """Returns the transforms of which frames count, and of their bits as 1 and -1."""
    heard = one.is_heard.astype(np.float64)[:, None]
    signs = np.where(one.bits, heard, -heard)
    return np.fft.rfft(np.concatenate([heard, signs], axis=1), size, axis=0)

"""The decoder: any recording in, in a file or in memory; 16 kHz mono float32 out.

The content decides, never a name (`utils/audio/integrity.py`). libsndfile reads what it can, ffmpeg
all else (`utils/audio/decoders.py`): m4a, mp4, QuickTime, 3gp, webm, aac, amr, wma, and what
libsndfile refuses.

`librosa.load(path, sr=16000)` does the same job for plain files (soundfile, mean of the channels,
soxr at high quality) and is the reference in the tests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.channels import Mixer
from utils.audio.decoders import MAX_READ_SAMPLES, Source, Stream, open_stream
from utils.audio.waveform import SAMPLE_RATE, within_full_scale
from utils.errors import AudioError, AudioTooLongError


def load_audio(source: str | Path | bytes, **options: Any) -> FloatArray:
    """Reads a recording, or a part of one, as a 16 kHz mono waveform.

    Args:
        source: A file, or the bytes of one.
        **options: Those of `load_channels`.

    Returns, Raises: As `load_channels`; the waveform alone.
    """
    return load_channels(source, **options)[0]


def load_channels(
    source: str | Path | bytes,
    *,
    name: str | None = None,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    channel: str = "mix",
    max_bytes: float = math.inf,
    max_duration_s: float = math.inf,
    timeout_s: float = math.inf,
) -> tuple[FloatArray, tuple[int, ...]]:
    """Reads a recording, or a part of one, and tells which of its channels are unlike.

    Args:
        source: A file, or the bytes of one.
        name: What to call it in an error; None for the path.
        offset_s: Where to begin, in seconds.
        duration_s: How much to read at the most, in seconds; `None` reads to the end.
        channel: "left", "right", a number from "1", or "mix": the mean of the channels, without
            silent ones; the loudest alone where they cancel each other out.
        max_bytes: Largest file that is allowed.
        max_duration_s: Longest recording that is allowed, in seconds.
        timeout_s: Longest time that decoding may take, in seconds.

    Returns:
        Waveform in [-1, 1], shape `(num_samples,)`, 16 kHz. Empty if `offset_s` is past the end.
        A recording that goes beyond full scale (floating-point files, lossy decoders) is divided
        by its peak. Then the numbers, from 1, of the mixed channels that have little in common,
        as in a call with a person on each; none if there are not two.

    Raises:
        AudioFormatError: If it is not audio that can be read here.
        AudioTooLargeError: If it has more than `max_bytes`.
        AudioTooLongError: If it is longer than `max_duration_s`.
        AudioError: If it is missing, empty, truncated, damaged, lacks the channel, takes too long,
            or holds samples that are not finite.
        ValueError: If `offset_s` or `duration_s` is negative.
    """
    if offset_s < 0 or (duration_s is not None and duration_s < 0):
        raise ValueError(f"expected seconds from 0 up, received {offset_s} and {duration_s}")
    with open_stream(source, name, max_bytes) as stream:
        mixer = Mixer(stream.channels, channel, stream.name)
        blocks = list(_read(stream, mixer, offset_s, duration_s, max_duration_s, timeout_s))
    return within_full_scale(_join(blocks)), mixer.unlike


def read_blocks(
    source: Source,
    block_s: float,
    *,
    name: str | None = None,
    channel: str = "mix",
    max_duration_s: float = math.inf,
) -> Iterator[FloatArray]:
    """Reads a recording of any length piece by piece, in bounded memory.

    Args:
        source: As in `load_audio`, or an open file that can seek; it is read from its beginning.
        block_s: Length of a block in seconds; the last one may be shorter.
        name: As in `load_audio`.
        channel: As in `load_audio`.
        max_duration_s: As in `load_audio`.

    Yields:
        Waveforms, shape `(num_samples,)`, 16 kHz mono, that follow each other without a gap. Where
        the recording goes beyond full scale, a block is divided by the largest peak so far.

    Raises:
        AudioError: As `load_audio`; damage that the file's structure doesn't show when it is
            reached.
        ValueError: If `block_s` is not above 0.
    """
    if not block_s > 0:
        raise ValueError(f"expected a block of more than 0 s, received {block_s}")
    size = max(round(block_s * SAMPLE_RATE), 1)
    peak = np.float32(1)
    pending = np.empty(0, np.float32)
    with open_stream(source, name) as stream:
        mixer = Mixer(stream.channels, channel, stream.name)
        for piece in _read(stream, mixer, max_duration_s=max_duration_s):
            pending = np.concatenate([pending, piece]) if len(pending) else piece
            num_whole = len(pending) // size * size
            for start in range(0, num_whole, size):
                block = pending[start : start + size]
                peak = max(peak, np.abs(block).max())
                yield block if peak == 1 else block / peak
            pending = pending[num_whole:]
    if len(pending):
        peak = max(peak, np.abs(pending).max())
        yield pending if peak == 1 else pending / peak


def declared_seconds(
    source: Source, *, name: str | None = None, max_duration_s: float = math.inf
) -> float | None:
    """Returns a recording's length in seconds as its header tells it, None where it does not.

    Raises:
        AudioError: If it is missing, empty, truncated or not audio; AudioTooLongError if it is
            longer than `max_duration_s`.
    """
    with open_stream(source, name) as stream:
        if stream.frames is None:
            return None
        if stream.frames > max_duration_s * stream.rate:
            raise _too_long(stream, stream.frames, max_duration_s)
        return stream.frames / stream.rate


def duration_seconds(path: str | Path) -> float:
    """Returns a recording's length in seconds, as its header tells it where it does.

    Raises:
        AudioError: If the file is missing or not audio.
    """
    with open_stream(path) as stream:
        if stream.frames is not None:
            return stream.frames / stream.rate
        size = MAX_READ_SAMPLES // stream.channels
        num_frames = 0
        while num_read := len(stream.read(size)):
            num_frames += num_read
        return num_frames / stream.rate


def _read(
    stream: Stream,
    mixer: Mixer,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = math.inf,
    timeout_s: float = math.inf,
) -> Iterator[FloatArray]:
    """Yields a recording, or a part of it, at 16 kHz mono, in pieces of bounded size."""
    import soxr

    deadline = time.monotonic() + timeout_s
    max_frames = max_duration_s * stream.rate
    if stream.frames is not None and stream.frames > max_frames:
        raise _too_long(stream, stream.frames, max_duration_s)
    stream.skip(round(offset_s * stream.rate))
    left = math.inf if duration_s is None else round(duration_s * stream.rate)
    resampler = None
    if stream.rate != SAMPLE_RATE:
        resampler = soxr.ResampleStream(stream.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    num_read = 0
    is_last = False
    while not is_last:
        size = int(min(left, MAX_READ_SAMPLES // stream.channels))
        samples = stream.read(size) if size else np.empty((0, stream.channels), np.float32)
        if not np.isfinite(samples).all():
            raise AudioError(
                f"{stream.name}: non-finite samples (NaN or infinity); record it again"
            )
        num_read += len(samples)
        left -= len(samples)
        if num_read > max_frames:
            raise _too_long(stream, num_read, max_duration_s)
        if time.monotonic() > deadline:
            raise AudioError(f"{stream.name}: not decoded within {timeout_s:g} s; send wav")
        is_last = len(samples) < size or left == 0
        mono = mixer(samples)
        if resampler is not None:
            mono = resampler.resample_chunk(mono, last=is_last)
        if len(mono):
            yield np.ascontiguousarray(mono, dtype=np.float32)


def _join(blocks: list[FloatArray]) -> FloatArray:
    """Joins blocks and empties the list meanwhile: an hour is never in memory twice."""
    if len(blocks) == 1:
        return blocks.pop()
    waveform = np.empty(sum(map(len, blocks)), np.float32)
    end = len(waveform)
    while blocks:
        block = blocks.pop()
        waveform[end - len(block) : end] = block
        end -= len(block)
    return waveform


def _too_long(stream: Stream, num_frames: int, max_duration_s: float) -> AudioTooLongError:
    """Returns the error that tells the limit."""
    return AudioTooLongError(
        f"{stream.name}: {num_frames / stream.rate:.1f} s or more, expected at most "
        f"{max_duration_s:g} s; send a shorter recording",
        max_duration_s,
    )

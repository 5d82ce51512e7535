"""Recordings: any file in, 16 kHz mono float32 out.

`librosa.load(path, sr=16000)` does the same job (soundfile, mean of the channels, soxr at high
quality) and is the reference in the tests; calling the two libraries directly saves its import.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.integrity import describe_truncation
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import AudioError

MAX_READ_FRAMES = 1 << 24
"""Frames that are read at once, 17 minutes at 16 kHz: memory follows what is there, not what a
damaged header promises."""

SAMPLE_RATES = (2000, 768_000)
"""Hz. Rates outside are damaged headers: at 1 Hz a second of samples would become five hours."""

FFMPEG_SUFFIXES = {".m4a", ".aac", ".amr", ".mp4", ".3gp", ".wma", ".webm"}
"""Containers that libsndfile cannot open and ffmpeg can."""


def load_audio(
    path: str | Path, *, offset_s: float = 0.0, duration_s: float | None = None
) -> FloatArray:
    """Reads a recording, or a part of one, as a 16 kHz mono waveform.

    Args:
        path: Any file that libsndfile reads (wav, flac, mp3, ogg, opus, aiff, ...); m4a, aac, amr
            and the like if ffmpeg is installed.
        offset_s: Where to begin, in seconds.
        duration_s: How much to read at the most, in seconds; `None` reads to the end.

    Returns:
        Waveform in [-1, 1], shape `(num_samples,)`, 16 kHz. Empty if `offset_s` is past the end.
        Files of floating-point samples and decoders may go a little beyond.

    Raises:
        AudioError: If the file is missing, empty, truncated, not audio, or holds samples that
            are not finite.
        ValueError: If `offset_s` or `duration_s` is negative.
    """
    if offset_s < 0 or (duration_s is not None and duration_s < 0):
        raise ValueError(f"expected seconds from 0 up, received {offset_s} and {duration_s}")
    with _open(path) as file:
        _check_structure(file, path)
        rate, total = file.samplerate, file.frames
        start = min(round(offset_s * rate), total)
        expected = total - start
        if duration_s is not None:
            expected = min(expected, round(duration_s * rate))
        _seek(file, path, start)
        mono = _read(file, path, min(expected, MAX_READ_FRAMES))
        while len(mono) < expected:
            more = _read(file, path, min(expected - len(mono), MAX_READ_FRAMES))
            if len(more) == 0:
                break
            mono = np.concatenate([mono, more])
        _check_length(file, path, start + len(mono), start + expected)
    return _resample(mono, rate)


def read_blocks(path: str | Path, block_s: float) -> Iterator[FloatArray]:
    """Reads a recording of any length piece by piece, in bounded memory.

    Args:
        path: As in `load_audio`.
        block_s: Length of a block in seconds; the last one may be shorter.

    Yields:
        Waveforms, shape `(num_samples,)`, 16 kHz mono, that follow each other without a gap.

    Raises:
        AudioError: As `load_audio`; damage that the file's structure doesn't show when it is
            reached.
        ValueError: If `block_s` is not above 0.
    """
    if not block_s > 0:
        raise ValueError(f"expected a block of more than 0 s, received {block_s}")
    import soxr

    with _open(path) as file:
        _check_structure(file, path)
        rate, left = file.samplerate, file.frames
        stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        while left > 0:
            expected = min(left, max(round(block_s * rate), 1))
            mono = _read(file, path, expected)
            left -= len(mono)
            is_last = left == 0 or len(mono) < expected
            if is_last:
                _check_length(file, path, file.frames - left, file.frames)
                left = 0
            if rate != SAMPLE_RATE:
                mono = stream.resample_chunk(mono, last=is_last)
            if len(mono):
                yield mono.astype(np.float32, copy=False)


def duration_seconds(path: str | Path) -> float:
    """Returns a recording's length in seconds as its header tells it, without decoding.

    Raises:
        AudioError: If the file is missing or not audio.
    """
    with _open(path) as file:
        return float(file.frames) / float(file.samplerate)


def _open(path: str | Path) -> Any:
    """Opens a file for reading with soundfile, through ffmpeg where libsndfile cannot."""
    import soundfile

    path = Path(path)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no such file"
        raise AudioError(f"{path}: {kind}, expected an audio file; check the path")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes), expected audio; record it again")
    try:
        return soundfile.SoundFile(_native(path))
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        # TypeError: a file named .raw, whose rate and format soundfile wants to be told.
        if path.suffix.lower() in FFMPEG_SUFFIXES:
            return soundfile.SoundFile(_decode_with_ffmpeg(path))
        _check_size(path)
        raise AudioError(
            f"{path}: not audio that can be read ({_reason(error)}); expected wav, flac, mp3, "
            "ogg, opus or another format of libsndfile; convert it or check that it is complete"
        ) from error


def _native(path: Path) -> str | bytes:
    """Returns a name as soundfile takes it: as text if it is UTF-8, which names need not be."""
    try:
        str(path).encode()
        return str(path)
    except UnicodeEncodeError:
        return os.fsencode(path)


def _decode_with_ffmpeg(path: Path) -> Any:
    """Decodes a file into a 16 kHz mono wav held in memory."""
    import io

    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise AudioError(
            f"{path}: {path.suffix} needs ffmpeg, which is not installed; "
            "install ffmpeg or convert the file to wav"
        )
    command = [ffmpeg, "-v", "error", "-i", os.fspath(path), "-f", "wav", "-ac", "1", "-ar"]
    command += [str(SAMPLE_RATE), "-c:a", "pcm_f32le", "pipe:1"]
    result = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode != 0 or not result.stdout:
        raise AudioError(
            f"{path}: ffmpeg cannot decode it ({_reason(result.stderr.decode(errors='replace'))}); "
            "expected a complete audio file"
        )
    return io.BytesIO(result.stdout)


def _seek(file: Any, path: str | Path, frame: int) -> None:
    """Moves to a frame; the beginning needs no move."""
    import soundfile

    try:
        if frame:
            file.seek(frame)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise AudioError(
            f"{path}: damaged audio ({_reason(error)}), frame {frame} cannot be reached; "
            "fetch or record it again"
        ) from error


def _read(file: Any, path: str | Path, num_frames: int) -> FloatArray:
    """Reads up to `num_frames` frames as the mean of the channels, shape `(num_frames,)`."""
    import soundfile

    try:
        samples: FloatArray = file.read(num_frames, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise AudioError(
            f"{path}: damaged audio ({_reason(error)}), expected {num_frames} more samples; "
            "fetch or record it again"
        ) from error
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: non-finite samples (NaN or infinity); record it again")
    mono: FloatArray = samples.mean(axis=1)
    return mono


def _check_structure(file: Any, path: str | Path) -> None:
    """Raises AudioError if header or container tell of damage; takes 0.02 ms."""
    low, high = SAMPLE_RATES
    if not low <= file.samplerate <= high:
        raise AudioError(
            f"{path}: damaged audio, sample rate {file.samplerate} Hz, "
            f"expected {low} to {high} Hz; fetch or record it again"
        )
    _check_size(path)


def _check_size(path: str | Path) -> None:
    """Raises AudioError if the container tells that the file is cut short."""
    defect = describe_truncation(path)
    if defect is not None:
        raise AudioError(f"{path}: {defect}; fetch or record it again")


def _check_length(file: Any, path: str | Path, num_frames: int, expected: int) -> None:
    """Raises AudioError if fewer frames came than the header promised."""
    # The length of an mp3 file may be an estimate.
    shortest = 0.8 * expected if file.format == "MP3" else expected
    if num_frames < shortest:
        raise AudioError(
            f"{path}: truncated, {num_frames} samples of {expected} could be read; "
            "fetch or record it again"
        )


def _resample(waveform: FloatArray, rate: int) -> FloatArray:
    """Brings a waveform to 16 kHz with soxr at high quality, as librosa does."""
    if rate == SAMPLE_RATE or len(waveform) == 0:
        return np.ascontiguousarray(waveform, dtype=np.float32)
    import soxr

    return np.asarray(soxr.resample(waveform, rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)


def _reason(error: object) -> str:
    """Shortens a library's message to one short line."""
    lines = str(error).strip().splitlines()
    return lines[-1][:120] if lines else type(error).__name__

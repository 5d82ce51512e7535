"""Recordings that arrive as bytes from somebody unknown: decoded in memory, within bounds.

`utils/audio/decode.py` reads files that the user chose. Here nothing is believed: the length is
read from the header before anything is decoded and counted again while decoding, so that neither
a small file that unpacks to hours nor a false header takes more memory than the longest recording
that is allowed. On Linux voices are never written to a disk; elsewhere ffmpeg gets them in a
private file.
"""

import contextlib
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.decode import SAMPLE_RATES
from utils.audio.integrity import describe_truncation
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import AudioError

FORMATS = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"}
"""What libsndfile calls the containers that are accepted; it knows more, of the nineties."""

MAX_CHANNELS = 32
"""Channels. More are a damaged header or a bomb: 255 silent Vorbis channels take no space."""

BLOCK_SAMPLES = 1 << 20
"""Samples, of all channels together, that are decoded at a time: 4 MB."""

UNKNOWN_FRAMES = 1 << 62
"""Frames. FLAC streams whose writer did not know the length claim 2^63 - 1."""

FFMPEG_TIMEOUT_S = 30.0
"""Seconds after which ffmpeg is ended: it decodes minutes of speech in one."""

SUPPORTED = "wav, flac, mp3, ogg, opus or aiff"


class AudioFormatError(AudioError):
    """The bytes are no audio, or audio of a kind that cannot be decoded on this machine."""


class AudioTooLongError(AudioError):
    """A recording is longer than allowed.

    Attributes:
        max_duration_s: The longest that is allowed, in seconds.
    """

    def __init__(self, message: str, max_duration_s: float) -> None:
        super().__init__(message)
        self.max_duration_s = max_duration_s


def load_audio_bytes(data: bytes, max_duration_s: float, source: str = "recording") -> FloatArray:
    """Decodes a recording that is held in memory.

    Args:
        data: A whole file of any container that libsndfile reads; m4a, aac, amr, webm and wma if
            ffmpeg is installed. The content tells the format, not a name.
        max_duration_s: Longest recording that is allowed, in seconds.
        source: What to call it in an error.

    Returns:
        Waveform as `utils.audio.decode.load_audio` gives it: shape `(num_samples,)`, 16 kHz mono.

    Raises:
        AudioFormatError: If it is not audio, or needs ffmpeg and that is absent.
        AudioTooLongError: If it is longer than `max_duration_s`.
        AudioError: If it is empty, truncated, damaged, or holds samples that are not finite.
    """
    if len(data) == 0:
        raise AudioError(f"{source}: empty (0 bytes), expected a recording; record it again")
    demuxer = _ffmpeg_demuxer(data)
    if demuxer is not None:
        return _decode_with_ffmpeg(data, demuxer, max_duration_s, source)
    with _open(data, source) as file:
        return _decode(file, max_duration_s, source)


def _open(data: bytes, source: str) -> Any:
    """Opens bytes with soundfile and checks what the header says."""
    import soundfile

    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        defect = describe_truncation(io.BytesIO(data))
        if defect is not None:
            raise AudioError(f"{source}: {defect}; send the whole file") from error
        raise AudioFormatError(
            f"{source}: {len(data)} bytes that are no audio, expected {SUPPORTED}"
        ) from error
    if file.format not in FORMATS:
        raise AudioFormatError(f"{source}: received {file.format}, expected {SUPPORTED}")
    low, high = SAMPLE_RATES
    if not (low <= file.samplerate <= high and 1 <= file.channels <= MAX_CHANNELS):
        raise AudioError(
            f"{source}: damaged, {file.samplerate} Hz in {file.channels} channels, expected "
            f"{low} to {high} Hz in 1 to {MAX_CHANNELS}; record it again"
        )
    defect = describe_truncation(io.BytesIO(data))
    if defect is not None:
        raise AudioError(f"{source}: {defect}; send the whole file")
    return file


def _decode(file: Any, max_duration_s: float, source: str) -> FloatArray:
    """Decodes an opened file block by block to 16 kHz mono."""
    import soundfile
    import soxr

    rate, max_frames = file.samplerate, int(max_duration_s * file.samplerate)
    is_known = file.frames < UNKNOWN_FRAMES
    if not is_known:
        # soundfile seeks after each read, which fails at an end that the header does not tell.
        file.seekable = lambda: False
    if is_known and file.frames > max_frames:
        raise _too_long(source, file.frames / rate, max_duration_s)
    stream = None
    if rate != SAMPLE_RATE:
        stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    blocks: list[FloatArray] = []
    num_frames = 0
    is_last = False
    while not is_last:
        try:
            samples = file.read(max(BLOCK_SAMPLES // file.channels, 1), "float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
            raise AudioError(
                f"{source}: damaged after {num_frames / rate:.2f} s; record it again"
            ) from error
        if not np.isfinite(samples).all():
            raise AudioError(f"{source}: non-finite samples (NaN or infinity); record it again")
        num_frames += len(samples)
        if num_frames > max_frames:
            raise _too_long(source, num_frames / rate, max_duration_s)
        is_last = len(samples) == 0
        mono = samples[:, 0] if file.channels == 1 else samples.mean(axis=1, dtype=np.float32)
        blocks.append(mono if stream is None else stream.resample_chunk(mono, last=is_last))
    # The length of an mp3 file may be an estimate.
    shortest = 0.8 * file.frames if file.format == "MP3" else file.frames
    if is_known and num_frames < shortest:
        raise AudioError(
            f"{source}: truncated, {num_frames} samples of {file.frames}; send the whole file"
        )
    return np.concatenate(blocks).astype(np.float32, copy=False)


def _ffmpeg_demuxer(data: bytes) -> str | None:
    """Returns the name of ffmpeg's reader for containers that libsndfile cannot open."""
    if data[4:8] == b"ftyp":
        return "mov"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if data[:5] == b"#!AMR":
        return "amr"
    if data[:4] == b"\x30\x26\xb2\x75":
        return "asf"
    # ADTS: 12 bits of synchronisation and layer 0, which MPEG audio does not have.
    if len(data) > 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        return "aac"
    return None


def _decode_with_ffmpeg(
    data: bytes, demuxer: str, max_duration_s: float, source: str
) -> FloatArray:
    """Decodes with ffmpeg; some formats can only be read with seeking, so a pipe won't do."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise AudioFormatError(
            f"{source}: received {demuxer} audio, which needs ffmpeg, and ffmpeg is absent from "
            f"the server; send {SUPPORTED}"
        )
    # One reader by name and files only: a playlist could make ffmpeg fetch what it names.
    with _private_file(data) as (name, descriptors):
        command = [ffmpeg, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
        command += ["-f", demuxer, "-threads", "1", "-i", name, "-map", "0:a:0", "-vn"]
        command += ["-t", f"{max_duration_s + 1:.3f}", "-ac", "1", "-ar", str(SAMPLE_RATE)]
        command += ["-f", "f32le", "pipe:1"]
        try:
            result = subprocess.run(
                command,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=FFMPEG_TIMEOUT_S,
                pass_fds=descriptors,
            )
        except subprocess.TimeoutExpired as error:
            raise AudioError(
                f"{source}: not decoded within {FFMPEG_TIMEOUT_S:.0f} s; send wav"
            ) from error
    if result.returncode != 0 or not result.stdout:
        raise AudioError(
            f"{source}: {demuxer} audio that is truncated or damaged; send the whole file"
        )
    waveform = np.frombuffer(result.stdout, dtype="<f4").astype(np.float32)
    if not np.isfinite(waveform).all():
        raise AudioError(f"{source}: non-finite samples (NaN or infinity); record it again")
    if len(waveform) > max_duration_s * SAMPLE_RATE:
        raise _too_long(source, len(waveform) / SAMPLE_RATE, max_duration_s)
    return waveform


@contextlib.contextmanager
def _private_file(data: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields a name under which another program can read bytes, and what it must inherit.

    On Linux they stay in memory that is gone with the processes, also if they are killed. Other
    systems have a private folder for them.
    """
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("voiceprint"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}", (file.fileno(),)
        return
    with tempfile.TemporaryDirectory(prefix="voiceprint-") as folder:
        path = Path(folder) / "upload"
        # Closed before it is read: Windows would refuse ffmpeg an open one.
        path.write_bytes(data)
        yield str(path), ()


def _too_long(source: str, duration_s: float, max_duration_s: float) -> AudioTooLongError:
    """Returns the error that tells the limit."""
    return AudioTooLongError(
        f"{source}: {duration_s:.1f} s or more, expected at most {max_duration_s:g} s; "
        "send a shorter recording",
        max_duration_s,
    )

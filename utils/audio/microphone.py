"""Recordings from the microphone through PyAudio, and whether they are fit for use.

PyAudio is needed here and nowhere else: without it everything but the microphone works.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.activity import speech_seconds
from utils.audio.detector import missing_speech
from utils.audio.waveform import SAMPLE_RATE, SILENCE_PEAK_DB, peak_db
from utils.errors import MicrophoneError
from utils.messages import translate

BLOCK_S = 0.05
"""Seconds read at a time: short enough to notice soon that a device has gone."""

TIMEOUT_S = 5.0
"""Seconds without any sound from an open device until it is given up."""

MIN_SPEECH_S = 1.0
"""Seconds of speech that a recording of 3 s must hold; with less, scores are unreliable."""

CLIP_RATIO = 0.98
"""Samples above this share of the peak count as clipped: undistorted speech is hardly ever there
(its amplitudes are spread like a Laplace distribution, about 1 sample in 10,000)."""

MAX_CLIPPED_FRACTION = 0.003
"""Share of clipped samples from which a recording is refused; the spectrum is distorted then."""

CLIP_MIN_PEAK = 0.5
"""Peaks below this are no clipping: no converter saturates at half of its range."""

SOUND_NAMES = {
    "steady noise": "持续的噪声",
    "tones or music": "音调或音乐",
    "other sounds": "其他声音",
}
"""What is heard instead of speech, in the words of the menu."""

INSTALL_HINT = (
    "install it (Debian/Ubuntu: apt-get install portaudio19-dev gcc python3-dev, macOS: brew "
    "install portaudio; then pip install pyaudio), or use recordings from files"
)
DEVICE_HINT = "connect one and let this program use it, or use recordings from files"


def record(duration_s: float, on_start: Callable[[], None] | None = None) -> FloatArray:
    """Records from the default microphone.

    The device is opened at 16 kHz mono; one that refuses is opened at its own rate and with two
    channels if it must be, and the recording is mixed and resampled.

    Args:
        duration_s: Length of the recording in seconds.
        on_start: Called when sound arrives from the device, just before what is kept.

    Returns:
        Waveform in [-1, 1], shape `(round(16000 * duration_s),)`, 16 kHz.

    Raises:
        MicrophoneError: If PyAudio or a microphone is missing, or the device refuses or stops.
    """
    try:
        import pyaudio
    except ImportError as error:
        raise MicrophoneError(f"PyAudio is not installed ({error}); {INSTALL_HINT}") from error

    with _silenced_stderr():
        try:
            portaudio = pyaudio.PyAudio()
        except OSError as error:
            raise MicrophoneError(f"no sound system ({error}); {DEVICE_HINT}") from error
        try:
            stream, rate, num_channels = _open(portaudio, pyaudio.paInt16)
        except BaseException:
            portaudio.terminate()
            raise
    try:
        # Some devices take a second to come alive: the first block tells that sound flows.
        _read(stream, round(BLOCK_S * rate), rate, num_channels)
        if on_start is not None:
            on_start()
        samples = _read(stream, round(duration_s * rate), rate, num_channels)
    except OSError as error:
        raise MicrophoneError(f"the microphone stopped ({error}); {DEVICE_HINT}") from error
    finally:
        # A device that was unplugged fails here once more; the recording is what counts.
        with contextlib.suppress(OSError):
            stream.close()
        portaudio.terminate()
    return _to_waveform(samples, rate, round(duration_s * SAMPLE_RATE))


def describe_recording_defect(waveform: FloatArray) -> str | None:
    """Says why a recording should be made again, in Chinese for the loop, or returns None.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz.
    """
    level_db = peak_db(waveform)
    if level_db < SILENCE_PEAK_DB:
        return translate(f"没有录到声音（峰值{level_db:.0f} dBFS），请检查麦克风")
    magnitudes = np.abs(waveform)
    peak = float(magnitudes.max())
    clipped = float(np.mean(magnitudes >= CLIP_RATIO * peak))
    if peak >= CLIP_MIN_PEAK and clipped > MAX_CLIPPED_FRACTION:
        return translate(f"声音过大而失真（{clipped:.1%}的采样被削波），请离麦克风远一点或调低音量")
    speech_s = speech_seconds(waveform)
    if speech_s < MIN_SPEECH_S:
        return translate(f"说话时间太短（{speech_s:.1f}秒，至少需要{MIN_SPEECH_S:.1f}秒）")
    sound = missing_speech(waveform)
    if sound is not None:
        return translate(f"没有听到说话声，只有{SOUND_NAMES[sound]}")
    return None


def _open(portaudio: Any, sample_format: int) -> tuple[Any, int, int]:
    """Opens the default microphone; returns the running stream, its rate and its channels."""
    try:
        device = portaudio.get_default_input_device_info()
    except OSError as error:
        raise MicrophoneError(
            f"no microphone found ({portaudio.get_device_count()} sound devices); {DEVICE_HINT}"
        ) from error
    own_rate = round(float(device["defaultSampleRate"]))
    attempts = [(SAMPLE_RATE, 1), (own_rate, 1), (own_rate, 2)]
    refusal: OSError | ValueError | None = None
    for rate, num_channels in attempts:
        try:
            stream = portaudio.open(
                format=sample_format,
                channels=num_channels,
                rate=rate,
                input=True,
                input_device_index=int(device["index"]),
                frames_per_buffer=round(BLOCK_S * rate),
            )
        except (OSError, ValueError) as error:
            refusal = error
        else:
            return stream, rate, num_channels
    raise MicrophoneError(
        f"the microphone {device['name']} cannot be opened ({refusal}), tried {SAMPLE_RATE} and "
        f"{own_rate} Hz; close other programs that use it, or use recordings from files"
    ) from refusal


def _read(stream: Any, num_frames: int, rate: int, num_channels: int) -> FloatArray:
    """Reads frames, shape `(num_frames, num_channels)`, in [-1, 1]."""
    block = round(BLOCK_S * rate)
    blocks: list[bytes] = []
    missing = num_frames
    last_sound = time.monotonic()
    while missing > 0:
        # Asked first, since a device that delivers nothing would hold `read` for ever.
        available = stream.get_read_available()
        if available < min(block, missing):
            if time.monotonic() - last_sound > TIMEOUT_S:
                raise MicrophoneError(
                    f"the microphone delivered nothing for {TIMEOUT_S:.0f} s; {DEVICE_HINT}"
                )
            time.sleep(BLOCK_S / 5)
            continue
        last_sound = time.monotonic()
        length = min(block, missing)
        blocks.append(stream.read(length, exception_on_overflow=False))
        missing -= length
    integers = np.frombuffer(b"".join(blocks), dtype=np.int16).reshape(-1, num_channels)
    samples: FloatArray = integers.astype(np.float32) / np.float32(32768)
    return samples


def _to_waveform(samples: FloatArray, rate: int, num_samples: int) -> FloatArray:
    """Mixes to mono and brings to 16 kHz; the length is `num_samples` whatever the rounding."""
    mono = samples.mean(axis=1, dtype=np.float32)
    if rate != SAMPLE_RATE:
        import soxr

        mono = np.asarray(soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ"), np.float32)
    return np.pad(mono, (0, max(num_samples - len(mono), 0)))[:num_samples]


@contextlib.contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Hides what the sound libraries print to stderr while they look for devices.

    ALSA and JACK print dozens of lines about devices that are not there, below Python's
    `sys.stderr`; what matters comes back as an exception.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:
        # No stderr at all, as under pythonw: nothing to hide.
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)

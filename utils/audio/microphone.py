"""Recordings from the microphone through PyAudio, and whether they are fit for use.

PyAudio is needed here and nowhere else: without it everything but the microphone works.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.channels import Mixer
from utils.audio.recording import Recording
from utils.audio.waveform import SAMPLE_RATE, SILENCE_PEAK_DB, peak_db
from utils.errors import MicrophoneError
from utils.messages import translate

BLOCK_S = 0.05
"""Seconds read at a time: short enough to notice soon that a device has gone."""

SAMPLE_RATES = (48_000, 44_100, 32_000, SAMPLE_RATE, 22_050, 8_000)
"""Hz. Tried one after the other if a device refuses the rate that it calls its own: the usual ones
of converters, of wireless headsets and of telephones, all but the last two without loss."""

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


@dataclass(frozen=True)
class Microphone:
    """A device that records.

    Attributes:
        index: Its number in PortAudio's list of devices.
        name: As the system calls it.
        rate: The sample rate that it calls its own, in Hz.
        channels: The most that it records.
        is_default: Whether it is used if none is named.
    """

    index: int
    name: str
    rate: int
    channels: int
    is_default: bool


def list_microphones() -> list[Microphone]:
    """Returns the devices that record; none if there are none.

    Raises:
        MicrophoneError: If PyAudio is missing, or there is no sound system.
    """
    with _portaudio() as (_, portaudio):
        return _find_microphones(portaudio)


def record(
    duration_s: float,
    on_start: Callable[[], None] | None = None,
    *,
    microphone: str | None = None,
    on_block: Callable[[FloatArray], None] | None = None,
) -> FloatArray:
    """Records from a microphone.

    The device is opened at its own rate, else at one of `SAMPLE_RATES`, with one channel, two, or
    all that it has; the recording is mixed and resampled.

    Args:
        duration_s: Length of the recording in seconds.
        on_start: Called when sound arrives from the device, just before what is kept.
        microphone: Its number, its name or a part of it; None for the default device.
        on_block: Called with each 50 ms that are kept, shape `(num_frames, num_channels)`.

    Returns:
        Waveform in [-1, 1], shape `(round(16000 * duration_s),)`, 16 kHz.

    Raises:
        MicrophoneError: If PyAudio or the microphone is missing, or the device refuses every rate
            or stops.
    """
    with _started(microphone) as (stream, rate, num_channels):
        if on_start is not None:
            on_start()
        samples = _read(stream, round(duration_s * rate), rate, num_channels, on_block)
    return _to_waveform(samples, rate, round(duration_s * SAMPLE_RATE))


def listen(microphone: str | None = None) -> Iterator[FloatArray]:
    """Yields what a microphone hears, about 50 ms at a time, until the caller stops asking.

    Args:
        microphone: As in `record`.

    Yields:
        Samples in [-1, 1], shape `(num_samples,)`, 16 kHz mono.

    Raises:
        MicrophoneError: As `record`.
    """
    with _started(microphone) as (stream, rate, num_channels):
        mixer = Mixer(num_channels)
        resample: Callable[[FloatArray], FloatArray] = lambda block: block  # noqa: E731
        if rate != SAMPLE_RATE:
            import soxr

            resample = soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ").resample_chunk
        while True:
            yield resample(mixer(_read(stream, round(BLOCK_S * rate), rate, num_channels)))


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
    recording = Recording(waveform)
    speech_s = recording.speech_s
    if speech_s < MIN_SPEECH_S:
        return translate(f"说话时间太短（{speech_s:.1f}秒，至少需要{MIN_SPEECH_S:.1f}秒）")
    sound = recording.missing_speech
    if sound is not None:
        return translate(f"没有听到说话声，只有{SOUND_NAMES[sound]}")
    return None


@contextlib.contextmanager
def _started(microphone: str | None) -> Iterator[tuple[Any, int, int]]:
    """Opens a microphone from which sound flows: the stream, its rate and its channels."""
    with _portaudio() as (pyaudio, portaudio):
        with _silenced_stderr():
            device = _choose(portaudio, microphone)
            stream, rate, num_channels = _open(portaudio, device, pyaudio.paInt16)
        try:
            # Some devices take a second to come alive: the first block tells that sound flows.
            _read(stream, round(BLOCK_S * rate), rate, num_channels)
            yield stream, rate, num_channels
        except OSError as error:
            raise MicrophoneError(f"the microphone stopped ({error}); {DEVICE_HINT}") from error
        finally:
            # A device that was unplugged fails here once more; what was heard is what counts.
            with contextlib.suppress(OSError):
                stream.close()


@contextlib.contextmanager
def _portaudio() -> Iterator[tuple[Any, Any]]:
    """Starts PortAudio and ends it: the module pyaudio, and what it opens devices with."""
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
        yield pyaudio, portaudio
    finally:
        portaudio.terminate()


def _find_microphones(portaudio: Any) -> list[Microphone]:
    """Returns the devices that record."""
    try:
        default = int(portaudio.get_default_input_device_info()["index"])
    except OSError:
        default = -1
    found = []
    for index in range(portaudio.get_device_count()):
        device = portaudio.get_device_info_by_index(index)
        num_channels = int(device["maxInputChannels"])
        if num_channels > 0:
            rate, name = round(float(device["defaultSampleRate"])), str(device["name"])
            found.append(Microphone(index, name, rate, num_channels, index == default))
    return found


def _choose(portaudio: Any, wanted: str | None) -> Microphone:
    """Returns the default microphone, or the one that is wanted."""
    microphones = _find_microphones(portaudio)
    if wanted is None:
        fitting = [device for device in microphones if device.is_default]
    else:
        fitting = [device for device in microphones if wanted == str(device.index)]
        fitting = fitting or [device for device in microphones if wanted == device.name]
        folded = wanted.casefold()
        fitting = fitting or [device for device in microphones if folded in device.name.casefold()]
    if len(fitting) == 1:
        return fitting[0]
    if not microphones or wanted is None:
        num_devices = portaudio.get_device_count()
        raise MicrophoneError(f"no microphone found ({num_devices} sound devices); {DEVICE_HINT}")
    names = ", ".join(f"{device.index} {device.name}" for device in fitting or microphones)
    raise MicrophoneError(
        f"{len(fitting)} microphones named {wanted}, expected the number or the name of one of: "
        f"{names}; --list_microphones shows them"
    )


def _open(portaudio: Any, device: Microphone, sample_format: int) -> tuple[Any, int, int]:
    """Opens a microphone; returns the running stream, its rate and its channels."""
    refusals: dict[str, list[str]] = {}
    for rate in dict.fromkeys((device.rate, *SAMPLE_RATES)):
        for num_channels in dict.fromkeys((1, 2, device.channels)):
            try:
                stream = portaudio.open(
                    format=sample_format,
                    channels=num_channels,
                    rate=rate,
                    input=True,
                    input_device_index=device.index,
                    frames_per_buffer=round(BLOCK_S * rate),
                )
            except (OSError, ValueError) as error:
                refusals.setdefault(str(error), []).append(f"{rate} Hz x {num_channels}")
            else:
                return stream, rate, num_channels
    told = "; ".join(f"{', '.join(tried)}: {reason}" for reason, tried in refusals.items())
    raise MicrophoneError(
        f"the microphone {device.name} cannot be opened, tried (rate x channels) {told}; close "
        "other programs that use it, choose another with --microphone, or use recordings from files"
    )


def _read(
    stream: Any,
    num_frames: int,
    rate: int,
    num_channels: int,
    on_block: Callable[[FloatArray], None] | None = None,
) -> FloatArray:
    """Reads frames, shape `(num_frames, num_channels)`, in [-1, 1]."""
    block = round(BLOCK_S * rate)
    blocks: list[FloatArray] = []
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
        data = stream.read(length, exception_on_overflow=False)
        integers = np.frombuffer(data, dtype=np.int16).reshape(-1, num_channels)
        blocks.append(integers.astype(np.float32) / np.float32(32768))
        missing -= length
        if on_block is not None:
            on_block(blocks[-1])
    return np.concatenate(blocks)


def _to_waveform(samples: FloatArray, rate: int, num_samples: int) -> FloatArray:
    """Mixes to mono and brings to 16 kHz; the length is `num_samples` whatever the rounding."""
    mono = Mixer(samples.shape[1])(samples)
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

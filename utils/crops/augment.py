"""Augmentations: what can happen to a voice on its way to the microphone and into a file.

Every augmentation is a function `(waveform, rng, context) -> waveform` of the same length, in
NumPy, deterministic for a given random generator. `AUGMENTATIONS` lists them in physical order:
room, other sounds, microphone, line, file. `docs/augmentation.md` illustrates them.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.audio.spectrogram import CROP_FRAMES, NUM_BINS, extend
from utils.audio.waveform import SAMPLE_RATE
from utils.crops.noises import SoundFolder
from utils.settings import option

RECORDED_SHARE = 0.85
"""Share of noise taken from recordings, if there are any; the rest is coloured noise."""

MAX_ROOM_S = 0.5
"""Seconds of a room response to use: anything later is 30 dB or more below the voice."""


def _probability(default: float) -> Any:
    """Returns the field of how often something is done, a fraction."""
    return option(default, "fraction", f"default {default}", metavar="P")


@dataclass(frozen=True)
class AugmentSettings:
    """Probabilities and strengths of the augmentations; a probability of 0 switches one off."""

    reverb: float = _probability(0.0)
    noise: float = _probability(0.0)
    babble: float = _probability(0.0)
    equalizer: float = _probability(0.0)
    gain: float = _probability(0.0)
    clipping: float = _probability(0.0)
    telephone: float = _probability(0.0)
    codec: float = _probability(0.0)
    flip: float = _probability(0.3)
    spec_mask: float = _probability(0.0)
    snr_db: tuple[float, float] = option((0.0, 20.0), "float", nargs=2)
    babble_snr_db: tuple[float, float] = option((3.0, 20.0), "float", nargs=2)
    noise_dir: str = option("", help="folder of noise recordings")
    rir_dir: str = option("", help="folder of room impulse responses")


@dataclass
class AugmentContext:
    """Material of the augmentations: settings, noise and room recordings, other speech."""

    settings: AugmentSettings
    noises: SoundFolder | None = None
    rooms: SoundFolder | None = None
    others: Sequence[FloatArray] = ()

    @classmethod
    def load(cls, settings: AugmentSettings) -> "AugmentContext":
        """Lists the folders that the settings name.

        Raises:
            DataListError: If a named folder is missing or holds no audio that can be read.
        """
        noises = SoundFolder(settings.noise_dir) if settings.noise_dir else None
        rooms = SoundFolder(settings.rir_dir) if settings.rir_dir else None
        return cls(settings, noises, rooms)


def augment(waveform: FloatArray, rng: np.random.Generator, context: AugmentContext) -> FloatArray:
    """Applies each augmentation with its probability.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz.
        rng: Source of all random choices.
        context: Settings and material.

    Returns:
        Same shape, within [-1, 1].
    """
    for name, function in AUGMENTATIONS.items():
        # Draw for each, used or not: switching one off doesn't change the others' choices.
        use, seed = rng.random(), int(rng.integers(2**63))
        if use < getattr(context.settings, name):
            waveform = function(waveform, np.random.default_rng(seed), context)
    return np.clip(waveform, -1.0, 1.0).astype(np.float32, copy=False)


def add_reverb(
    waveform: FloatArray, rng: np.random.Generator, context: AugmentContext
) -> FloatArray:
    """Adds reverberation, with a recorded impulse response if there is one, else simulated."""
    recorded = context.rooms.draw_response(rng) if context.rooms else None
    response = simulate_room(rng) if recorded is None else recorded
    reverberant = _convolve(waveform, response[: round(MAX_ROOM_S * SAMPLE_RATE)])
    return _to_power(reverberant, waveform)


def simulate_room(rng: np.random.Generator) -> FloatArray:
    """Returns a random room impulse response, shape `(n,)`, `n <= 8000`, 16 kHz.

    Direct sound, some early reflections within 30 ms and noise that decays by 60 dB in 0.1-0.8 s,
    high frequencies sooner (the statistical model of Polack, 1988).
    """
    reverberation_s = rng.uniform(0.1, 0.8)
    length = int(min(reverberation_s, MAX_ROOM_S) * SAMPLE_RATE)
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    decay = np.exp(-6.908 / reverberation_s * time)  # 60 dB: ln(1000)
    tail: FloatArray = rng.standard_normal(length, dtype=np.float32) * decay
    # A one-pole low-pass would cost a loop; averaging neighbours damps the highs alike.
    damped = np.convolve(tail, np.full(4, 0.25, np.float32))[:length]
    share = np.minimum(time / 0.2, 1.0)
    tail = np.asarray((1 - share) * tail + share * damped, dtype=np.float32)
    tail[: int(rng.uniform(0.002, 0.015) * SAMPLE_RATE)] = 0
    early = rng.integers(16, 480, size=8)
    early = early[early < length]
    tail[early] += rng.standard_normal(len(early), dtype=np.float32) * 3
    direct_db = rng.uniform(-3.0, 15.0)
    tail *= 10 ** (-direct_db / 20) / max(float(np.sqrt(np.sum(tail**2))), 1e-6)
    tail[0] = 1.0
    return tail


def add_noise(
    waveform: FloatArray, rng: np.random.Generator, context: AugmentContext
) -> FloatArray:
    """Adds a noise recording, or coloured noise where there is none, at a random ratio."""
    noise = None
    if context.noises and rng.random() < RECORDED_SHARE:
        noise = context.noises.draw_stretch(len(waveform), rng)
    if noise is None:
        noise = coloured_noise(len(waveform), rng)
    return _mix(waveform, noise, rng.uniform(*context.settings.snr_db))


def coloured_noise(num_samples: int, rng: np.random.Generator) -> FloatArray:
    """Returns noise with a power that falls by 0 to 6 dB an octave, shape `(num_samples,)`."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples, dtype=np.float32))
    frequency = np.arange(1, len(spectrum) + 1, dtype=np.float32)
    spectrum *= frequency ** np.float32(-rng.uniform(0.0, 1.0))
    return np.fft.irfft(spectrum, num_samples).astype(np.float32)


def add_babble(
    waveform: FloatArray, rng: np.random.Generator, context: AugmentContext
) -> FloatArray:
    """Adds three to seven other voices at a random ratio; does nothing without others."""
    if not len(context.others):
        return waveform
    babble = np.zeros(len(waveform), dtype=np.float32)
    for _ in range(int(rng.integers(3, 8))):
        other = extend(context.others[int(rng.integers(len(context.others)))], len(waveform))
        power = float(np.mean(other**2))
        babble += np.roll(other, int(rng.integers(len(other)))) / np.sqrt(power + 1e-8)
    return _mix(waveform, babble, rng.uniform(*context.settings.babble_snr_db))


def equalize(waveform: FloatArray, rng: np.random.Generator, _: AugmentContext) -> FloatArray:
    """Simulates another microphone: a smooth random frequency response of +-10 dB."""
    points = rng.uniform(-10.0, 10.0, size=8)
    return _filter(waveform, np.linspace(0, SAMPLE_RATE / 2, 8), points)


def change_gain(waveform: FloatArray, rng: np.random.Generator, _: AugmentContext) -> FloatArray:
    """Makes the recording louder or softer: a peak of -30 to 0 dBFS."""
    peak = max(float(np.abs(waveform).max()), 1e-5)
    return np.asarray(waveform * np.float32(10 ** (rng.uniform(-30.0, 0.0) / 20) / peak))


def clip(waveform: FloatArray, rng: np.random.Generator, _: AugmentContext) -> FloatArray:
    """Clips the loudest 0.1 to 10 % of the samples."""
    limit = max(float(np.quantile(np.abs(waveform[::7]), 1 - 10 ** rng.uniform(-3, -1))), 1e-5)
    return np.clip(waveform, -limit, limit)


def telephone(waveform: FloatArray, rng: np.random.Generator, _: AugmentContext) -> FloatArray:
    """Passes about 300-3400 Hz, half the time with a telephone's 8-bit mu-law."""
    low, high = rng.uniform(150.0, 450.0), rng.uniform(3000.0, 3900.0)
    edges = [0.0, low * 0.6, low, high, high * 1.08, SAMPLE_RATE / 2]
    waveform = _filter(waveform, edges, [-45.0, -30.0, 0.0, 0.0, -45.0, -60.0])
    if rng.random() < 0.5:
        waveform = _mu_law(waveform)
    return waveform


def encode(waveform: FloatArray, rng: np.random.Generator, _: AugmentContext) -> FloatArray:
    """Encodes and decodes at a low bit rate: GSM, ADPCM, mp3, Opus or Vorbis."""
    import soundfile
    import soxr

    rate, container, subtype, level = CODECS[int(rng.integers(len(CODECS)))]
    samples = waveform if rate == SAMPLE_RATE else soxr.resample(waveform, SAMPLE_RATE, rate, "LQ")
    samples = np.clip(samples, -1.0, 1.0)
    options = {} if level is None else {"compression_level": level}
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype, **options)
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    if rate != SAMPLE_RATE:
        decoded = soxr.resample(decoded, rate, SAMPLE_RATE, "LQ")
    return extend(decoded, len(waveform)) if len(decoded) else waveform


CODECS: tuple[tuple[int, str, str, float | None], ...] = (
    (8000, "WAV", "GSM610", None),
    (8000, "WAV", "IMA_ADPCM", None),
    (8000, "MP3", "MPEG_LAYER_III", 0.99),
    (16000, "MP3", "MPEG_LAYER_III", 0.95),
    (16000, "OGG", "OPUS", 0.97),
    (16000, "OGG", "VORBIS", 0.95),
)
"""Sample rate, container, coding and soundfile's compression level (1 = smallest file)."""

AUGMENTATIONS: dict[
    str, Callable[[FloatArray, np.random.Generator, AugmentContext], FloatArray]
] = {
    "reverb": add_reverb,
    "noise": add_noise,
    "babble": add_babble,
    "equalizer": equalize,
    "gain": change_gain,
    "clipping": clip,
    "telephone": telephone,
    "codec": encode,
}


def change_speed(waveform: FloatArray, speed: float) -> FloatArray:
    """Plays a waveform faster or slower; pitch and formants move too, making another speaker.

    Args:
        waveform: Shape `(n,)`, 16 kHz.
        speed: Above 1 is faster and higher.

    Returns:
        Shape `(about n / speed,)`.
    """
    if speed == 1.0:
        return waveform
    import soxr

    return np.asarray(soxr.resample(waveform, SAMPLE_RATE * speed, SAMPLE_RATE, "MQ"), np.float32)


def spectrogram_mask(
    rng: np.random.Generator, probability: float, num_frames: int = CROP_FRAMES
) -> npt.NDArray[np.int32]:
    """Draws the masks of SpecAugment: one band of frequencies and one stretch of time.

    Args:
        rng: Source of the random choices.
        probability: Probability of masking at all.
        num_frames: Frames of the crop.

    Returns:
        `(first_bin, end_bin, first_frame, end_frame)`, shape `(4,)`; empty ranges mask nothing.

    Source: Park et al., SpecAugment (2019), section 2: F = 32 bins, T = 32 frames.
    """
    use = rng.random() < probability
    num_bins, num_times = (int(rng.integers(0, 33)) for _ in range(2))
    num_times = min(num_times, num_frames - 1)
    first_bin = int(rng.integers(0, NUM_BINS - num_bins))
    first_frame = int(rng.integers(0, num_frames - num_times))
    mask = (first_bin, first_bin + num_bins, first_frame, first_frame + num_times)
    return np.array(mask if use else (0, 0, 0, 0), dtype=np.int32)


def _convolve(waveform: FloatArray, response: FloatArray) -> FloatArray:
    """Returns the first `len(waveform)` samples of a convolution, through the FFT."""
    size = _fast_size(len(waveform) + len(response))
    product = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[: len(waveform)].astype(np.float32, copy=False)


def _fast_size(size: int) -> int:
    """Returns the next size of the form 2^k or 3 * 2^k, for a fast FFT."""
    power = 1 << (size - 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= size else power


def _filter(waveform: FloatArray, hertz: npt.ArrayLike, gains_db: npt.ArrayLike) -> FloatArray:
    """Applies a zero-phase response given by its gain at some frequencies."""
    spectrum = np.fft.rfft(waveform)
    grid = np.linspace(0, SAMPLE_RATE / 2, 513)
    gains = 10 ** (np.interp(grid, np.asarray(hertz), np.asarray(gains_db)) / 20)
    bins = np.linspace(0, 512, len(spectrum)).astype(np.int32)
    spectrum *= gains.astype(np.float32)[bins]
    return np.fft.irfft(spectrum, len(waveform)).astype(np.float32, copy=False)


def _mu_law(waveform: FloatArray) -> FloatArray:
    """Quantises to the 256 levels of ITU-T G.711's mu-law, scaled to the waveform's peak."""
    peak = max(float(np.abs(waveform).max()), 1e-5)
    magnitude = np.log1p(255 * np.abs(waveform) / peak) / np.log(256.0)
    rounded = np.round(magnitude * 127) / 127
    expanded = np.sign(waveform) * np.expm1(rounded * np.log(256.0)) / 255 * peak
    return np.asarray(expanded, dtype=np.float32)


def _mix(waveform: FloatArray, noise: FloatArray, snr_db: float) -> FloatArray:
    """Adds noise so that the ratio of the powers is `snr_db`; keeps the peak within [-1, 1]."""
    signal_power, noise_power = float(np.mean(waveform**2)), float(np.mean(noise**2))
    if noise_power < 1e-12 or signal_power < 1e-12:
        return waveform
    mixed = waveform + noise * np.float32(
        np.sqrt(signal_power / noise_power) * 10 ** (-snr_db / 20)
    )
    return np.asarray(mixed / max(1.0, float(np.abs(mixed).max())), dtype=np.float32)


def _to_power(waveform: FloatArray, reference: FloatArray) -> FloatArray:
    """Scales a waveform to the power of another one, within [-1, 1]."""
    power, target = float(np.mean(waveform**2)), float(np.mean(reference**2))
    scaled = waveform * np.float32(np.sqrt(target / max(power, 1e-12)))
    return np.asarray(scaled / max(1.0, float(np.abs(scaled).max())), dtype=np.float32)

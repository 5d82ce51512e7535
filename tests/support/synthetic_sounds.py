"""Sounds in which nobody speaks: noise, hum, tones of the telephone, and simple music.

Made anew from a seed each time, the same on every machine; no recording is needed.
"""

from collections.abc import Callable

import numpy as np

SAMPLE_RATE = 16000

DTMF_HZ = [(low, high) for low in (697, 770, 852, 941) for high in (1209, 1336, 1477)]
MAJOR = np.array([0, 2, 4, 5, 7, 9, 11, 12])
"""Semitones of a scale."""

Random = np.random.Generator


def sounds(duration_s: float = 3.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns one sound of each kind.

    Args:
        duration_s: Length in seconds.
        seed: Chooses phases, notes and rhythms.

    Returns:
        Waveforms, `(duration_s * 16000,)`, float32, by name; most at -20 dBFS.
    """
    made = {}
    for name, make in KINDS.items():
        random = np.random.default_rng([seed, *name.encode()])
        made[name] = make(round(duration_s * SAMPLE_RATE), random)
    return made


def coloured_noise(num_samples: int, random: Random, exponent: float) -> np.ndarray:
    """Returns noise of mean square 1 whose power falls with frequency to the `exponent`."""
    spectrum = np.fft.rfft(random.standard_normal(num_samples))
    # Flat below 20 Hz: no room swells without end.
    bins = np.maximum(np.arange(len(spectrum)), 20 * num_samples / SAMPLE_RATE)
    return _at_level(np.fft.irfft(spectrum / bins ** (exponent / 2), num_samples), 0.0)


def _at_level(waveform: np.ndarray, level_db: float = -20.0) -> np.ndarray:
    gain = 10 ** (level_db / 20) / np.sqrt(np.mean(np.square(waveform)))
    return (gain * waveform).astype(np.float32)


def _noise(exponent: float, level_db: float) -> Callable[[int, Random], np.ndarray]:
    return lambda n, random: _at_level(coloured_noise(n, random, exponent), level_db)


def _time(num_samples: int) -> np.ndarray:
    return np.arange(num_samples) / SAMPLE_RATE


def _tones(*hertz: float, on_s: float = 1.0, off_s: float = 0.0) -> Callable[..., np.ndarray]:
    """Returns tones in a cadence over the faint noise of a line."""

    def make(num_samples: int, random: Random) -> np.ndarray:
        time = _time(num_samples)
        gate = (time + random.uniform(0, on_s / 2)) % (on_s + off_s) < on_s
        tone = sum(np.sin(2 * np.pi * f * time) for f in hertz) * gate
        return _at_level(tone) + _at_level(coloured_noise(num_samples, random, 1.0), -60.0)

    return make


def _hum(hertz: float) -> Callable[[int, Random], np.ndarray]:
    def make(num_samples: int, random: Random) -> np.ndarray:
        time, slope = _time(num_samples), random.uniform(0.5, 1.5)
        waves = (
            np.sin(2 * np.pi * hertz * k * time + random.uniform(0, 6)) * k**-slope
            for k in range(1, 40)
        )
        return _at_level(sum(waves) + 0.03 * coloured_noise(num_samples, random, 1.0))

    return make


def _dtmf(num_samples: int, random: Random) -> np.ndarray:
    keys = np.zeros(num_samples)
    time = _time(1600)
    for start in range(0, num_samples - 1600, 3200):
        low, high = DTMF_HZ[random.integers(len(DTMF_HZ))]
        keys[start : start + 1600] = np.sin(2 * np.pi * low * time) + np.sin(
            2 * np.pi * high * time
        )
    return _at_level(keys)


def _sweep(num_samples: int, random: Random) -> np.ndarray:
    octaves = _time(num_samples) * SAMPLE_RATE / num_samples * 5
    return _at_level(np.sin(2 * np.pi * np.cumsum(200 * 2.0**octaves) / SAMPLE_RATE))


def _clicks(num_samples: int, random: Random) -> np.ndarray:
    clicks = np.zeros(num_samples)
    click = np.exp(-np.arange(200) / 40)
    for start in random.integers(0, num_samples - 200, max(num_samples // 6000, 1)):
        clicks[start : start + 200] += click * random.standard_normal(200)
    return (0.5 * clicks / np.abs(clicks).max()).astype(np.float32)


def _drums(num_samples: int, random: Random) -> np.ndarray:
    beats = np.zeros(num_samples + SAMPLE_RATE)
    time, step = _time(8000), round(SAMPLE_RATE * 30 / random.uniform(80, 150))
    for number, start in enumerate(range(0, num_samples, step)):
        noise = random.standard_normal(8001)
        beats[start : start + 8000] += (
            np.sin(2 * np.pi * 60 * time) * np.exp(-12 * time),  # bass drum
            0.3 * np.diff(noise) * np.exp(-70 * time),  # hi-hat
            0.6 * noise[1:] * np.exp(-25 * time),  # snare drum
            0.3 * np.diff(noise) * np.exp(-70 * time),
        )[number % 4]
    return _at_level(beats[:num_samples])


def _piano(hertz: float, num_samples: int) -> np.ndarray:
    time = _time(num_samples)
    partials = (
        np.sin(2 * np.pi * hertz * k * np.sqrt(1 + 4e-4 * k * k) * time)
        * (k**-1.2 * np.exp(-1.2 * k * time))
        for k in range(1, 12)
        if hertz * k < 7500
    )
    return sum(partials) * np.minimum(time / 0.003, 1)


def _organ(hertz: float, num_samples: int) -> np.ndarray:
    time = _time(num_samples)
    partials = (
        np.sin(2 * np.pi * hertz * k * time) / k for k in (1, 2, 3, 4, 6, 8) if hertz * k < 7500
    )
    return sum(partials) * np.minimum(np.minimum(time, time[::-1]) / 0.02, 1)


def _flute(hertz: float, num_samples: int) -> np.ndarray:
    time = _time(num_samples)
    # An octave up: low notes of so few partials sound like somebody who hums.
    phase = 4 * np.pi * hertz * np.cumsum(1 + 0.003 * np.sin(2 * np.pi * 5 * time)) / SAMPLE_RATE
    tone = np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.1 * np.sin(3 * phase)
    return tone * np.minimum(np.minimum(time, time[::-1]) / 0.05, 1)


def _music(
    play: Callable[[float, int], np.ndarray], chord: tuple[int, ...]
) -> Callable[[int, Random], np.ndarray]:
    """Returns notes, or chords, of a random melody in one key."""

    def make(num_samples: int, random: Random) -> np.ndarray:
        music = np.zeros(num_samples + SAMPLE_RATE)
        root = 220 * 2 ** (random.integers(-12, 13) / 12)
        start = 0
        while start < num_samples:
            length = round(SAMPLE_RATE * random.choice([0.2, 0.3, 0.4, 0.6]))
            step = random.choice(MAJOR)
            for interval in chord:
                music[start : start + length] += play(root * 2 ** ((step + interval) / 12), length)
            start += length
        return _at_level(music[:num_samples])

    return make


KINDS: dict[str, Callable[[int, Random], np.ndarray]] = {
    "white noise": _noise(0, -20),
    "white noise, loud": _noise(0, -10),
    "white noise, quiet": _noise(0, -40),
    "pink noise": _noise(1, -20),
    "pink noise, quiet": _noise(1, -40),
    "brown noise": _noise(2, -20),
    "hum of 50 Hz": _hum(50),
    "hum of 60 Hz": _hum(60),
    "sine of 100 Hz": _tones(100),
    "sine of 440 Hz": _tones(440),
    "sine of 1000 Hz": _tones(1000),
    "sweep": _sweep,
    "dial tone, 350 and 440 Hz": _tones(350, 440),
    "dial tone, 425 Hz": _tones(425),
    "ringback, 440 and 480 Hz": _tones(440, 480, on_s=2, off_s=4),
    "ringback, 425 Hz": _tones(425, on_s=1, off_s=4),
    "ringback, 400 and 450 Hz": _tones(400, 450, on_s=0.4, off_s=0.2),
    "busy tone, 480 and 620 Hz": _tones(480, 620, on_s=0.5, off_s=0.5),
    "busy tone, 425 Hz": _tones(425, on_s=0.35, off_s=0.35),
    "keys of a telephone": _dtmf,
    "clicks": _clicks,
    "drums": _drums,
    "piano, melody": _music(_piano, (0,)),
    "piano, chords": _music(_piano, (0, 4, 7, 12)),
    "organ, melody": _music(_organ, (0,)),
    "organ, chords": _music(_organ, (0, 4, 7, 12)),
    "flute, melody": _music(_flute, (0,)),
    "flute, chords": _music(_flute, (0, 4, 7, 12)),
}
"""From a number of samples and a random generator to a waveform."""

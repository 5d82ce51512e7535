"""Synthetic speakers for the tests: fast, the same every time, told apart by pitch and formants.

A voice is a harmonic source at its own pitch through the resonances of its own vocal tract, in
syllables of fricatives and changing vowels with short pauses, over faint breath noise. It is no
speech, but a spectrogram, a speech detector and a small network take it for some.
"""

import functools
import wave
from pathlib import Path

import numpy as np

SAMPLE_RATE = 16000

# First three formants of five vowels in Hz, for a vocal tract of 17 cm.
VOWELS_HZ = np.array(
    [
        [730.0, 1090.0, 2440.0],  # a
        [530.0, 1840.0, 2480.0],  # e
        [270.0, 2290.0, 3010.0],  # i
        [570.0, 840.0, 2410.0],  # o
        [300.0, 870.0, 2240.0],  # u
    ]
)
BANDWIDTHS_HZ = np.array([80.0, 110.0, 160.0])

LONGEST_REMEMBERED_S = 5.0
"""Many tests ask for the same short utterance: it is made once in a process."""


def synthetic_speech(
    speaker: int, utterance: int = 0, duration_s: float = 2.0, sample_rate: int = SAMPLE_RATE
) -> np.ndarray:
    """Returns an utterance of a synthetic speaker.

    Args:
        speaker: Any number from 0; the same number has always the same voice.
        utterance: Any number from 0; chooses vowels, rhythm and intonation.
        duration_s: Length in seconds.
        sample_rate: In Hz.

    Returns:
        The waveform, `(duration_s * sample_rate,)`, float32, peak 0.5.
    """
    make = _remembered if duration_s <= LONGEST_REMEMBERED_S else _synthetic_speech
    return make(speaker, utterance, float(duration_s), sample_rate).copy()


def _synthetic_speech(
    speaker: int, utterance: int, duration_s: float, sample_rate: int
) -> np.ndarray:
    """Returns the utterance, made anew."""
    # Golden-ratio steps spread any number of speakers evenly over the ranges.
    pitch_hz = 85.0 * 2.0 ** (1.6 * ((speaker * 0.618034) % 1.0))
    tract = 0.85 + 0.35 * ((speaker * 0.754878 + 0.3) % 1.0)
    tilt = 0.8 + 0.8 * ((speaker * 0.569840 + 0.6) % 1.0)

    random = np.random.default_rng([speaker, utterance])
    hiss = np.random.default_rng([speaker, utterance, 1])
    num_samples = round(duration_s * sample_rate)
    waveform = np.zeros(num_samples)
    start = 0
    while start < num_samples:
        length = round(random.uniform(0.15, 0.30) * sample_rate)
        stop = min(start + length, num_samples)
        vowel = VOWELS_HZ[random.integers(len(VOWELS_HZ))] * tract
        bend = random.uniform(-0.12, 0.12)
        level = random.uniform(0.6, 1.0)
        time_s = np.arange(stop - start) / sample_rate
        instant_hz = pitch_hz * (1.0 + bend * (time_s / (length / sample_rate) - 0.5))
        phase = 2.0 * np.pi * np.cumsum(instant_hz) / sample_rate
        numbers = np.arange(1, int(min(4000.0, 0.45 * sample_rate) / pitch_hz) + 1)
        harmonics_hz = numbers * pitch_hz
        resonance = 1.0 / np.hypot(1.0, (harmonics_hz[:, None] - vowel) / (BANDWIDTHS_HZ / 2.0))
        amplitudes = resonance.sum(axis=1) * numbers**-tilt
        envelope = np.sin(np.pi * np.minimum(np.arange(stop - start) / length, 1.0)) ** 0.5
        sound = amplitudes @ np.sin(numbers[:, None] * phase)
        waveform[start:stop] = level * envelope * sound
        # A fricative leads into the vowel; without any, nobody takes this for speech.
        before = min(round(hiss.uniform(0.05, 0.10) * sample_rate), start)
        noise = np.diff(hiss.standard_normal(before + 1)) * np.hanning(before)
        waveform[start - before : start] += 0.1 * np.abs(sound).max() * noise
        start = stop + round(random.uniform(0.01, 0.06) * sample_rate)
    waveform *= 0.5 / max(float(np.abs(waveform).max(initial=0.0)), 1e-9)
    waveform += random.normal(0.0, 5e-4, num_samples)
    return np.clip(waveform, -0.5, 0.5).astype(np.float32)


_remembered = functools.lru_cache(500)(_synthetic_speech)


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int = SAMPLE_RATE) -> Path:
    """Writes `(num_samples,)` or `(num_samples, num_channels)` in [-1, 1] as 16-bit PCM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.round(np.asarray(waveform, dtype=np.float64) * 32767.0).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.tobytes())
    return path


def write_speech_folder(
    folder: Path,
    num_speakers: int = 3,
    num_utterances: int = 4,
    duration_s: float = 2.0,
    first_speaker: int = 0,
) -> list[tuple[Path, int]]:
    """Writes `folder/speaker_00/utterance_00.wav` and so on.

    Returns:
        `(path, speaker)` of every file, sorted.
    """
    files = []
    for speaker in range(first_speaker, first_speaker + num_speakers):
        for utterance in range(num_utterances):
            path = folder / f"speaker_{speaker:02d}" / f"utterance_{utterance:02d}.wav"
            write_wav(path, synthetic_speech(speaker, utterance, duration_s))
            files.append((path, speaker))
    return files

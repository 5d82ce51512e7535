"""Hum, rumble and offsets don't move a score; clean recordings stay as they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from utils.audio.decode import load_audio
from utils.audio.rumble import without_rumble
from utils.model.encoder import SpeakerEncoder

SAMPLES = ("a_1.wav", "b_2.wav")


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return SpeakerEncoder(num_threads=1)


def tone(hertz: float, amplitude: float, phase: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    def add(waveform: np.ndarray) -> np.ndarray:
        time_s = np.arange(len(waveform)) / 16000
        wave = amplitude * np.sin(2 * np.pi * hertz * time_s + phase)
        return (waveform + wave).astype(np.float32)

    return add


def rumble(waveform: np.ndarray) -> np.ndarray:
    """Noise between 5 and 45 Hz, louder than the voice."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(len(waveform)))
    hertz = np.fft.rfftfreq(len(waveform), 1 / 16000)
    noise = np.fft.irfft(spectrum * ((hertz > 5) & (hertz < 45)), len(waveform))
    return (waveform + 0.1 * noise / noise.std()).astype(np.float32)


@pytest.mark.parametrize(
    ("disturb", "least"),
    [
        (lambda waveform: waveform + np.float32(0.3), 0.999),
        (tone(40, 0.3), 0.995),
        (tone(25, 0.3, 2.5), 0.995),
        (tone(45.3, 0.02, 4.0), 0.995),
        (tone(45.3, 0.3), 0.995),
        (lambda waveform: tone(16.7, 0.1)(tone(33.4, 0.2)(waveform)) + np.float32(0.1), 0.995),
        (tone(50, 0.1), 0.995),
        (tone(60, 0.1), 0.995),
        (rumble, 0.995),
    ],
)
def test_what_lies_below_the_voice_moves_no_score(
    disturb: Callable[[np.ndarray], np.ndarray], least: float, encoder: SpeakerEncoder, root: Path
) -> None:
    for name in SAMPLES:
        clean = load_audio(root / "audio" / name)
        same = encoder.embed_waveform(clean) @ encoder.embed_waveform(disturb(clean))
        assert float(same) >= least, name


def test_clean_recordings_stay_as_they_are(root: Path) -> None:
    for path in sorted((root / "audio").glob("*.wav")):
        waveform = load_audio(path)
        np.testing.assert_array_equal(without_rumble(waveform), waveform - np.median(waveform))


def test_a_steady_tone_goes_and_all_else_stays() -> None:
    noise = np.random.default_rng(0).normal(0, 0.03, 48000)
    noise = np.diff(noise, prepend=0).astype(np.float32)  # little of it below 64 Hz
    cleaned = without_rumble(tone(40, 0.3)(noise))
    # A fit takes two numbers out of the noise, not its band.
    assert float(np.std(cleaned - noise)) < 0.01 * float(np.std(noise))


@pytest.mark.parametrize("num_samples", [0, 1, 2, 100, 120, 400, 4800])
def test_short_waveforms_keep_their_length(num_samples: int) -> None:
    waveform = np.random.default_rng(0).normal(0, 0.1, num_samples).astype(np.float32)
    for disturbed in (waveform, tone(30, 0.5)(waveform)):
        cleaned = without_rumble(disturbed)
        assert cleaned.shape == (num_samples,)
        assert cleaned.dtype == np.float32
        assert np.isfinite(cleaned).all()

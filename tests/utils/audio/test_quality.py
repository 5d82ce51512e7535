"""Quality is measured on signals whose figures are known."""

import json

import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech
from utils.audio.quality import Quality, measure_quality
from utils.audio.waveform import SAMPLE_RATE


def bursts(level_dbfs: float, noise_dbfs: float, seconds: float = 4.0) -> np.ndarray:
    """Half a second of a tone, half a second of pause, and so on, over white noise."""
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sqrt(2) * 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * 300 * time_s)
    noise = np.random.default_rng(3).normal(0, 10 ** (noise_dbfs / 20), len(time_s))
    return ((time_s % 1.0 < 0.5) * tone + noise).astype(np.float32)


@pytest.mark.parametrize("level", [-12.0, -26.0])
@pytest.mark.parametrize("snr", [15.0, 30.0, 45.0])
def test_level_noise_and_their_ratio_are_found(level: float, snr: float) -> None:
    quality = measure_quality(bursts(level, level - snr))
    # The detector keeps 100 ms around each burst where it can tell them apart: up to 40 % more.
    assert quality.level_dbfs == pytest.approx(level, abs=3.1)
    assert quality.noise_dbfs == pytest.approx(level - snr, abs=1.5)
    assert quality.snr_db == pytest.approx(snr, abs=3.5)
    assert quality.duration_s == 4.0
    assert quality.warnings == ()


def test_a_steady_tone_has_exact_levels() -> None:
    time_s = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    quality = measure_quality((0.5 * np.sin(2 * np.pi * 400 * time_s)).astype(np.float32))
    assert quality.peak_dbfs == pytest.approx(-6.02, abs=0.01)
    assert quality.level_dbfs == pytest.approx(-9.03, abs=0.01)
    assert quality.speech_s == 3.0


@pytest.mark.parametrize("gain", [2.0, 4.0, 20.0])
def test_clipping_is_counted(gain: float) -> None:
    time_s = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    wave = np.clip(gain * np.sin(2 * np.pi * 100.3 * time_s), -1, 1).astype(np.float32)
    share = 1 - 2 / np.pi * np.arcsin(1 / gain)
    quality = measure_quality(wave)
    assert quality.clipped_fraction == pytest.approx(share, abs=0.02)
    assert "clipped" in quality.warnings


def test_full_scale_without_flat_peaks_is_not_clipped() -> None:
    wave = synthetic_speech(1, duration_s=3)
    quality = measure_quality(wave / np.abs(wave).max() * 0.98)
    assert quality.clipped_fraction == 0.0
    assert "clipped" not in quality.warnings


@pytest.mark.parametrize(
    ("wave", "warning"),
    [
        (bursts(-45.0, -80.0), "quiet"),
        (bursts(-20.0, -28.0), "noisy"),
        (bursts(-20.0, -60.0, seconds=1.0), "short"),
    ],
)
def test_each_warning(wave: np.ndarray, warning: str) -> None:
    assert warning in measure_quality(wave).warnings


def test_a_clean_voice_has_no_warning() -> None:
    assert measure_quality(synthetic_speech(2, duration_s=4.0)).warnings == ()


@pytest.mark.parametrize("length", [0, 1, 159, 160, 16000])
def test_silence_of_any_length_has_finite_figures(length: int) -> None:
    quality = measure_quality(np.zeros(length, np.float32))
    assert isinstance(quality, Quality)
    assert quality.speech_s == 0
    assert {"quiet", "noisy", "short"} == set(quality.warnings)
    json.dumps(quality.to_dict(), allow_nan=False)


def test_a_constant_offset_is_neither_level_nor_noise() -> None:
    quality = measure_quality(bursts(-26.0, -60.0) + np.float32(0.2))
    assert quality.noise_dbfs == pytest.approx(-60, abs=1.5)

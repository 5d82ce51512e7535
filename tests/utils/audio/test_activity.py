"""Where speech is: synthetic speech among silence, clicks and noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.support.synthetic_voices import synthetic_speech
from utils.audio.activity import (
    FRAME_SAMPLES,
    _quantile,
    middle,
    remove_silence,
    speech_mask,
    speech_seconds,
)
from utils.audio.waveform import SAMPLE_RATE


def silence(seconds: float, level: float = 1e-4, seed: int = 0) -> np.ndarray:
    """Returns faint noise, as a microphone gives it in a quiet room."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))
    return (noise * level).astype(np.float32)


def seconds_of(mask: np.ndarray, start_s: float, end_s: float) -> float:
    """Returns the share of frames between two times that are marked."""
    return float(mask[round(start_s * 100) : round(end_s * 100)].mean())


def test_speech_between_silences_is_found() -> None:
    waveform = np.concatenate(
        [silence(1.0), synthetic_speech(0, 0, 2.0), silence(1.5), synthetic_speech(0, 1, 1.0),
         silence(0.7)]
    )  # fmt: skip
    mask = speech_mask(waveform)
    assert mask.dtype == bool
    assert mask.shape == (620,)
    assert seconds_of(mask, 0.0, 0.85) == 0
    assert seconds_of(mask, 1.05, 2.95) > 0.97
    assert seconds_of(mask, 3.15, 4.35) == 0
    assert seconds_of(mask, 4.55, 5.45) > 0.95
    assert seconds_of(mask, 5.65, 6.2) == 0
    assert speech_seconds(waveform) == pytest.approx(3.2, abs=0.35)
    np.testing.assert_array_equal(
        remove_silence(waveform), waveform[np.repeat(mask, FRAME_SAMPLES)]
    )


@pytest.mark.parametrize("speaker", range(6))
def test_short_pauses_inside_speech_stay(speaker: int) -> None:
    waveform = synthetic_speech(speaker, 3, 3.0)
    assert speech_seconds(waveform) > 2.9


@pytest.mark.parametrize("gain_db", [-30, -20, 0, 6])
def test_loudness_does_not_matter(gain_db: float) -> None:
    waveform = np.concatenate([silence(1.0), synthetic_speech(0), silence(1.0)])
    expected = speech_mask(waveform)
    mask = speech_mask(waveform * np.float32(10 ** (gain_db / 20)))
    assert (mask != expected).mean() < 0.03


def test_constant_offset_does_not_matter() -> None:
    waveform = np.concatenate([silence(1.0), synthetic_speech(0), silence(1.0)])
    np.testing.assert_array_equal(speech_mask(waveform + np.float32(0.3)), speech_mask(waveform))


@pytest.mark.parametrize("snr_db", [5, 15])
def test_speech_in_loud_noise_is_kept(snr_db: float) -> None:
    speech = synthetic_speech(0)
    noise = silence(2.0, float(np.sqrt(np.mean(speech**2))) * 10 ** (-snr_db / 20))
    assert speech_seconds(speech + noise) > 1.95


def test_clicks_are_no_speech() -> None:
    waveform = silence(2.0)
    waveform[8000:8160] += 0.5
    waveform[20000:20300] -= 0.7
    assert speech_seconds(waveform) == 0
    assert len(remove_silence(waveform)) == 0


def test_click_before_speech_is_cut_off() -> None:
    waveform = np.concatenate([silence(1.0), synthetic_speech(0)])
    waveform[1600:1700] += 0.3
    assert seconds_of(speech_mask(waveform), 0.0, 0.85) == 0


@pytest.mark.parametrize("level", [0.0, 1e-5, 2e-4])
def test_silence_is_no_speech(level: float) -> None:
    assert not speech_mask(silence(2.0, level)).any()


def test_empty_recording() -> None:
    empty = np.zeros(0, np.float32)
    assert speech_mask(empty).shape == (0,)
    assert remove_silence(empty).shape == (0,)
    assert speech_seconds(empty) == 0


def test_last_incomplete_frame_counts() -> None:
    waveform = synthetic_speech(0)[: 16000 + 37]
    assert speech_mask(waveform).shape == (101,)
    assert speech_seconds(waveform) == len(remove_silence(waveform)) / SAMPLE_RATE


@given(
    hnp.arrays(
        np.float32, st.integers(0, 2000), elements=st.floats(-1, 1, width=32, allow_nan=False)
    )
)
def test_any_waveform_is_cut_to_whole_frames_of_it(waveform: np.ndarray) -> None:
    mask = speech_mask(waveform)
    kept = remove_silence(waveform)
    assert mask.shape == (-(-len(waveform) // FRAME_SAMPLES),)
    assert kept.dtype == np.float32
    assert len(kept) == round(speech_seconds(waveform) * SAMPLE_RATE)
    assert len(kept) == np.repeat(mask, FRAME_SAMPLES)[: len(waveform)].sum()


@pytest.mark.parametrize("size", [1, 2, 3, 10, 301])
def test_the_middle_is_the_median(size: int) -> None:
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    assert middle(values) == np.median(values)


@pytest.mark.parametrize("size", [1, 2, 3, 20, 21, 300, 6_000])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.95, 1.0])
def test_the_quantile_is_that_of_numpy(size: int, fraction: float) -> None:
    values = np.random.default_rng(size).normal(-40, 15, size).astype(np.float32)
    assert _quantile(values, fraction) == pytest.approx(np.quantile(values, fraction), abs=1e-5)

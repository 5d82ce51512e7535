"""The features against librosa's recipe, and the crops that training and evaluation take."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.support.synthetic_voices import synthetic_speech
from utils.audio.decode import load_audio
from utils.audio.spectrogram import (
    CROP_FRAMES,
    CROP_SAMPLES,
    EPSILON,
    HOP_LENGTH,
    N_FFT,
    NUM_BINS,
    WIN_LENGTH,
    evaluation_waveform,
    extend,
    magnitude,
    normalize,
    padded_window,
    spectrogram,
    training_waveform,
)


def librosa_recipe(path: Path) -> np.ndarray:
    """The features by librosa alone: load, transform, magnitude, every frame normalised."""
    import librosa

    waveform, _ = librosa.load(path, sr=16000)
    linear = librosa.stft(waveform, n_fft=512, win_length=400, hop_length=160)
    magnitudes, _ = librosa.magphase(linear)
    mean = np.mean(magnitudes, 0, keepdims=True)
    deviation = np.std(magnitudes, 0, keepdims=True)
    return (magnitudes - mean) / (deviation + 1e-5)


@pytest.mark.parametrize(
    ("suffix", "container", "subtype"),
    [
        ("wav", "WAV", "PCM_16"),
        ("wav", "WAV", "PCM_24"),
        ("wav", "WAV", "PCM_32"),
        ("wav", "WAV", "FLOAT"),
        ("flac", "FLAC", "PCM_16"),
        ("ogg", "OGG", "VORBIS"),
        ("opus", "OGG", "OPUS"),
        ("mp3", "MP3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_features_of_a_file_equal_librosa(
    tmp_path: Path, rate: int, suffix: str, container: str, subtype: str
) -> None:
    if subtype == "OPUS" and rate in (22050, 44100):
        pytest.skip("Opus has no such rate")
    path = tmp_path / f"a.{suffix}"
    for channels in (1, 2, 3) if subtype == "PCM_16" else (2,):
        voices = [synthetic_speech(voice, 0, 1.0, rate) for voice in range(channels)]
        soundfile.write(path, np.stack(voices, 1), rate, format=container, subtype=subtype)
        np.testing.assert_allclose(spectrogram(load_audio(path)), librosa_recipe(path), atol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 100, 159, 160, 161, 511, 4000, CROP_SAMPLES])
def test_shape_of_any_length(num_samples: int) -> None:
    waveform = synthetic_speech(0, duration_s=3.0)[:num_samples]
    result = spectrogram(waveform)
    assert result.shape == (NUM_BINS, 1 + num_samples // HOP_LENGTH)
    assert result.dtype == np.float32
    assert np.isfinite(result).all()


def test_crop_has_257_frames() -> None:
    assert (N_FFT, WIN_LENGTH, HOP_LENGTH, NUM_BINS, EPSILON) == (512, 400, 160, 257, 1e-5)
    assert magnitude(np.ones(CROP_SAMPLES, np.float32)).shape == (257, CROP_FRAMES)


def test_tone_is_a_line_at_its_frequency() -> None:
    waveform = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    inner = magnitude(waveform)[:, 3:-3]
    assert set(inner.argmax(axis=0)) == {1000 * 512 // 16000}
    assert inner.max() == pytest.approx(padded_window().sum() / 2, rel=1e-3)


def test_every_frame_has_mean_0_and_deviation_1() -> None:
    result = spectrogram(synthetic_speech(0))
    np.testing.assert_allclose(result.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=0), 1, atol=1e-2)


def test_loudness_hardly_matters() -> None:
    waveform = synthetic_speech(0)
    np.testing.assert_allclose(spectrogram(waveform), spectrogram(waveform * 0.5), atol=0.03)


def test_digital_silence_is_zero() -> None:
    assert not spectrogram(np.zeros(1000, np.float32)).any()
    assert not normalize(np.full((257, 4), 3.0, np.float32)).any()


@pytest.mark.parametrize("shape", [(0,), (10, 2), ()])
def test_wrong_shape_is_a_mistake_of_the_caller(shape: tuple[int, ...]) -> None:
    for function in (magnitude, spectrogram):
        with pytest.raises(ValueError, match="expected samples in one dimension"):
            function(np.zeros(shape, np.float32))


@given(length=st.integers(1, 200), need=st.integers(1, 500), seed=st.integers(0, 99))
def test_training_crop_is_a_stretch_of_the_clip_in_a_ring(
    length: int, need: int, seed: int
) -> None:
    clip = np.arange(length, dtype=np.float32)
    crop = training_waveform(clip, np.random.default_rng(seed), need)
    assert crop.shape == (need,)
    assert crop.flags.c_contiguous
    steps = np.diff(crop) % length
    assert (steps == 1 % length).all() or (steps == -1 % length).all()


def test_training_crop_is_reversed_as_often_as_asked() -> None:
    clip, rng = np.arange(1000.0, dtype=np.float32), np.random.default_rng(0)

    def share(probability: float) -> float:
        crops = [training_waveform(clip, rng, 50, probability) for _ in range(400)]
        return float(np.mean([np.median(np.diff(crop)) < 0 for crop in crops]))

    assert share(0.0) == 0
    assert share(0.3) == pytest.approx(0.3, abs=0.07)
    assert share(1.0) == 1


def test_training_crops_begin_everywhere() -> None:
    clip, rng = np.arange(100.0, dtype=np.float32), np.random.default_rng(0)
    starts = {training_waveform(clip, rng, 50, 0.0)[0] for _ in range(2000)}
    assert starts == set(range(100))


def test_evaluation_crop_is_the_clip_and_its_mirror_image() -> None:
    clip = np.array([1, 2, 3], np.float32)
    assert evaluation_waveform(clip, 8).tolist() == [1, 2, 3, 3, 2, 1, 1, 2]
    assert evaluation_waveform(clip, 2).tolist() == [1, 2]
    assert evaluation_waveform(clip).shape == (CROP_SAMPLES,)


@given(length=st.integers(1, 50), need=st.integers(0, 200))
def test_extend_repeats(length: int, need: int) -> None:
    clip = np.arange(length, dtype=np.float32)
    assert extend(clip, need).tolist() == [i % length for i in range(need)]


def test_empty_clip_cannot_be_extended() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        extend(np.zeros(0, np.float32), 10)

"""Every augmentation does what it says, the same for the same seed, and keeps the shape."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.crops import augment as module
from utils.crops.augment import (
    AUGMENTATIONS,
    CODECS,
    AugmentContext,
    AugmentSettings,
    add_babble,
    add_noise,
    add_reverb,
    augment,
    change_gain,
    change_speed,
    clip,
    coloured_noise,
    encode,
    equalize,
    simulate_room,
    spectrogram_mask,
    telephone,
)
from utils.crops.noises import SoundFolder
from utils.errors import DataListError

SPEECH = synthetic_speech(0, 0, 2.57)
OTHERS = [synthetic_speech(speaker, 0, 2.57) for speaker in range(1, 5)]
ALL_ON = AugmentSettings(**dict.fromkeys(AUGMENTATIONS, 1.0))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def context(**changes: object) -> AugmentContext:
    return AugmentContext(AugmentSettings(**changes), others=OTHERS)


def power(waveform: np.ndarray) -> float:
    return float(np.mean(np.square(waveform, dtype=np.float64)))


def band_power_db(waveform: np.ndarray, low_hz: float, high_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(waveform)) ** 2
    hertz = np.fft.rfftfreq(len(waveform), 1 / 16000)
    return float(10 * np.log10(spectrum[(hertz >= low_hz) & (hertz < high_hz)].mean() + 1e-20))


def snr_of(mixed: np.ndarray, clean: np.ndarray) -> float:
    """Returns the ratio of the powers of `clean` and of what was added; both may be scaled."""
    scale = float(mixed @ clean) / float(clean @ clean)
    return 10 * np.log10(scale**2 * power(clean) / power(mixed - scale * clean))


@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("length", [1600, 16001, 40960])
def test_keeps_shape_and_type_and_is_finite(name: str, length: int) -> None:
    waveform = SPEECH[:length]
    before = waveform.copy()
    for seed in range(8):
        changed = AUGMENTATIONS[name](waveform, rng(seed), context())
        assert changed.shape == waveform.shape
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert np.abs(changed).max() < 2.0
    np.testing.assert_array_equal(waveform, before)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_same_seed_same_result_other_seed_other_result(name: str) -> None:
    results = [AUGMENTATIONS[name](SPEECH, rng(seed), context()) for seed in (1, 1, 2, 3, 4)]
    np.testing.assert_array_equal(results[0], results[1])
    assert any(not np.array_equal(results[0], other) for other in results[2:])


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("level", [0.0, 1e-6, 1.0])
def test_silence_and_full_scale_stay_finite(name: str, level: float) -> None:
    waveform = np.full(8000, level, np.float32)
    for seed in range(4):
        assert np.isfinite(AUGMENTATIONS[name](waveform, rng(seed), context())).all()


# All of them, one after the other.


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    np.testing.assert_array_equal(augment(SPEECH, rng(), context()), SPEECH)


@pytest.mark.slow
@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_everything_at_once_stays_within_full_scale(seed: int) -> None:
    result = augment(SPEECH, rng(seed), AugmentContext(ALL_ON, others=OTHERS))
    assert result.shape == SPEECH.shape
    assert result.dtype == np.float32
    assert np.abs(result).max() <= 1
    np.testing.assert_array_equal(
        result, augment(SPEECH, rng(seed), AugmentContext(ALL_ON, others=OTHERS))
    )


def test_probability_is_how_often() -> None:
    generator = rng()
    used = [
        not np.array_equal(augment(SPEECH[:800], generator, context(gain=0.3)), SPEECH[:800])
        for _ in range(1000)
    ]
    assert np.mean(used) == pytest.approx(0.3, abs=0.05)


def test_order_is_room_sounds_microphone_line_file(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def spy(name: str):
        return lambda waveform, rng, context: order.append(name) or waveform

    monkeypatch.setattr(module, "AUGMENTATIONS", {name: spy(name) for name in AUGMENTATIONS})
    augment(SPEECH, rng(), AugmentContext(ALL_ON))
    assert order == [
        "reverb", "noise", "babble", "equalizer", "gain", "clipping", "telephone", "codec",
    ]  # fmt: skip


def test_switching_one_off_leaves_the_choices_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds: dict[str, list[int]] = {"gain": [], "telephone": []}

    def spy(name: str):
        return lambda waveform, rng, context: seeds[name].append(rng.integers(2**32)) or waveform

    monkeypatch.setattr(module, "AUGMENTATIONS", {name: spy(name) for name in seeds})
    augment(SPEECH, rng(5), context(gain=1.0, telephone=1.0))
    augment(SPEECH, rng(5), context(gain=0.0, telephone=1.0))
    assert seeds["telephone"][0] == seeds["telephone"][1]


# Room.


def test_room_begins_with_the_direct_sound_and_dies_away() -> None:
    for seed in range(20):
        response = simulate_room(rng(seed))
        assert response.dtype == np.float32
        assert 1600 <= len(response) <= 8000
        assert response[0] == 1
        assert not response[1:16].any()
        early, late = response[480 : len(response) // 2], response[len(response) // 2 :]
        assert power(late) < power(early)


def test_room_keeps_the_power_and_smears_the_pauses() -> None:
    waveform = SPEECH.copy()
    waveform[16000:24000] = 0
    for seed in range(5):
        result = add_reverb(waveform, rng(seed), context())
        assert power(result) <= power(waveform) * 1.01
        assert power(result) > power(waveform) * 0.5
        assert power(result[16000:16800]) > 1e-7


def test_recorded_room_is_applied_from_its_direct_sound_on(tmp_path: Path) -> None:
    response = np.zeros(4000, np.float32)
    response[300], response[700] = 0.8, 0.4
    write_wav(tmp_path / "room.wav", response)
    with_room = AugmentContext(AugmentSettings(), rooms=SoundFolder(tmp_path))
    expected = SPEECH.copy()
    expected[400:] += 0.5 * SPEECH[:-400]
    result = add_reverb(SPEECH, rng(), with_room)
    scale = np.sqrt(power(SPEECH) / power(expected))
    scale /= max(1.0, np.abs(expected * scale).max())
    np.testing.assert_allclose(result, expected * scale, atol=2e-4)


def test_silent_room_response_is_replaced_by_a_simulated_one(tmp_path: Path) -> None:
    write_wav(tmp_path / "room.wav", np.zeros(8000))
    result = add_reverb(
        SPEECH, rng(), AugmentContext(AugmentSettings(), rooms=SoundFolder(tmp_path))
    )
    assert power(result) > 0.5 * power(SPEECH)


# Other sounds.


@pytest.mark.parametrize("snr_db", [0.0, 5.0, 20.0])
@pytest.mark.parametrize("length", [1700, 40000, 90000])
def test_noise_has_the_ratio_that_was_asked_for(tmp_path: Path, snr_db: float, length: int) -> None:
    write_wav(tmp_path / "noise.wav", rng(9).standard_normal(length) * 0.01)
    for noises in (None, SoundFolder(tmp_path)):
        made = AugmentContext(AugmentSettings(snr_db=(snr_db, snr_db)), noises=noises)
        for seed in range(4):
            clean = SPEECH - SPEECH.mean()
            assert snr_of(add_noise(clean, rng(seed), made), clean) == pytest.approx(
                snr_db, abs=0.5
            )


def test_ratios_are_spread_over_their_range() -> None:
    made = context(snr_db=(0.0, 20.0))
    ratios = [snr_of(add_noise(SPEECH, rng(seed), made), SPEECH) for seed in range(60)]
    assert min(ratios) > -0.6
    assert max(ratios) < 20.6
    assert np.ptp(ratios) > 15


@pytest.mark.parametrize("snr_db", [3.0, 10.0])
def test_babble_has_the_ratio_that_was_asked_for(snr_db: float) -> None:
    made = context(babble_snr_db=(snr_db, snr_db))
    made.others = [rng(n).standard_normal(30000).astype(np.float32) for n in range(4)]
    for seed in range(4):
        assert snr_of(add_babble(SPEECH, rng(seed), made), SPEECH) == pytest.approx(snr_db, abs=0.5)


def test_babble_without_others_and_noise_without_sound_change_nothing(tmp_path: Path) -> None:
    empty = AugmentContext(AugmentSettings())
    np.testing.assert_array_equal(add_babble(SPEECH, rng(), empty), SPEECH)
    write_wav(tmp_path / "noise.wav", np.zeros(9000))
    silent = AugmentContext(AugmentSettings(), noises=SoundFolder(tmp_path))
    unchanged = [np.array_equal(add_noise(SPEECH, rng(s), silent), SPEECH) for s in range(20)]
    assert np.mean(unchanged) > 0.5  # the others got coloured noise


def test_loud_mixtures_are_scaled_and_not_cut() -> None:
    made = context(snr_db=(-20.0, -20.0))
    result = add_noise(SPEECH, rng(), made)
    assert np.abs(result).max() == pytest.approx(1.0)
    assert snr_of(result, SPEECH) == pytest.approx(-20, abs=0.5)


def test_coloured_noise_falls_by_up_to_6_db_an_octave() -> None:
    slopes = []
    for seed in range(20):
        noise = coloured_noise(65536, rng(seed))
        slopes.append((band_power_db(noise, 4000, 8000) - band_power_db(noise, 250, 500)) / 4)
    assert min(slopes) > -6.5
    assert max(slopes) < 0.5
    assert np.ptp(slopes) > 4


# Microphone.


def test_equalizer_is_a_smooth_response_of_10_db() -> None:
    white = rng(3).standard_normal(65536).astype(np.float32) * 0.1
    edges = np.arange(0, 8001, 250)
    gains = []
    for seed in range(10):
        result = equalize(white, rng(seed), context())
        gains.append(
            [band_power_db(result, a, b) - band_power_db(white, a, b)
             for a, b in pairwise(edges)]
        )  # fmt: skip
    assert np.abs(gains).max() < 10.3
    assert np.ptp(gains) > 12
    assert np.abs(np.diff(gains)).max() < 5.5  # 20 dB from point to point, 1143 Hz apart


def test_gain_gives_a_peak_between_minus_30_and_0_dbfs() -> None:
    peaks = [
        20 * np.log10(np.abs(change_gain(SPEECH, rng(seed), context())).max()) for seed in range(80)
    ]
    assert min(peaks) >= -30.001
    assert max(peaks) <= 0.001
    assert np.ptp(peaks) > 24


def test_clipping_cuts_up_to_10_percent_of_the_samples_flat() -> None:
    shares = []
    for seed in range(30):
        result = clip(SPEECH, rng(seed), context())
        limit = np.abs(result).max()
        is_cut = np.abs(result) >= limit * 0.9999
        np.testing.assert_array_equal(result[~is_cut], SPEECH[~is_cut])
        shares.append(is_cut.mean())
    assert max(shares) < 0.12
    assert max(shares) > 0.05
    assert min(shares) < 0.005


# Line and file.


def test_telephone_passes_its_band_only() -> None:
    white = rng(3).standard_normal(65536).astype(np.float32) * 0.1
    with_steps = 0
    for seed in range(12):
        result = telephone(white, rng(seed), context())
        change = {
            band: band_power_db(result, *band) - band_power_db(white, *band)
            for band in [(0, 60), (500, 2900), (4400, 8000)]
        }
        assert abs(change[500, 2900]) < 0.5
        with_steps += len(np.unique(result)) <= 256
        # The rounding of mu-law is a noise of its own, 38 dB below the voice.
        limit = -25 if len(np.unique(result)) > 256 else -15
        assert change[0, 60] < limit
        assert change[4400, 8000] < limit
    assert 2 <= with_steps <= 10


def test_mu_law_is_that_of_the_standard() -> None:
    waveform = np.linspace(-1, 1, 4001, dtype=np.float32)
    result = module._mu_law(waveform)
    assert len(np.unique(result)) <= 256
    assert np.abs(result - waveform).max() < 0.03
    near_zero = np.abs(waveform) < 0.01
    assert np.abs(result - waveform)[near_zero].max() < 5e-4


@pytest.mark.parametrize("codec", CODECS, ids=lambda row: f"{row[2]}-{row[0]}")
def test_codec_changes_the_sound_and_keeps_its_time(
    codec: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CODECS", (codec,))
    result = encode(SPEECH, rng(), context())
    assert not np.array_equal(result, SPEECH)
    spectrum = np.fft.rfft(result, 2**17) * np.conj(np.fft.rfft(SPEECH, 2**17))
    correlation = np.fft.irfft(spectrum)
    lag = int(np.argmax(np.abs(correlation)))
    lag = lag - 2**17 if lag > 2**16 else lag
    assert abs(lag) <= 160, "more than one frame late"
    similarity = correlation[lag] / np.sqrt(np.sum(result**2) * np.sum(SPEECH**2))
    assert similarity > 0.8
    if codec[0] == 8000:
        assert band_power_db(result, 5000, 8000) < band_power_db(result, 500, 3000) - 30


@pytest.mark.parametrize("codec", CODECS, ids=lambda row: f"{row[2]}-{row[0]}")
@pytest.mark.parametrize("length", [1, 100, 5000])
def test_codec_takes_short_and_loud_clips(
    codec: tuple, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CODECS", (codec,))
    result = encode(np.full(length, 1.5, np.float32), rng(), context())
    assert result.shape == (length,)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("speed", [0.8, 0.9, 1.1, 1.25])
def test_speed_moves_pitch_and_length(speed: float) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000).astype(np.float32)
    result = change_speed(tone, speed)
    assert result.dtype == np.float32
    assert len(result) == pytest.approx(32000 / speed, abs=2)
    peak_hz = np.abs(np.fft.rfft(result)).argmax() * 16000 / len(result)
    assert peak_hz == pytest.approx(1000 * speed, abs=2)


def test_speed_1_is_the_waveform_itself() -> None:
    assert change_speed(SPEECH, 1.0) is SPEECH


# Masks of the spectrogram.


@given(seed=st.integers(0, 2**32), num_frames=st.integers(1, 600))
def test_mask_is_one_band_and_one_stretch_inside_the_crop(seed: int, num_frames: int) -> None:
    mask = spectrogram_mask(rng(seed), 1.0, num_frames)
    assert mask.dtype == np.int32
    first_bin, end_bin, first_frame, end_frame = mask
    assert 0 <= first_bin <= end_bin <= 257
    assert 0 <= first_frame <= end_frame <= num_frames
    assert end_bin - first_bin <= 32
    assert end_frame - first_frame <= min(32, num_frames - 1)


def test_mask_is_there_as_often_as_asked() -> None:
    generator = rng()
    masks = [spectrogram_mask(generator, 0.4).any() for _ in range(1000)]
    assert np.mean(masks) == pytest.approx(0.4, abs=0.05)
    assert not spectrogram_mask(generator, 0.0).any()


def test_folders_are_those_of_the_settings(tmp_path: Path) -> None:
    write_wav(tmp_path / "noise" / "a.wav", SPEECH)
    made = AugmentContext.load(AugmentSettings(noise_dir=str(tmp_path / "noise")))
    assert made.noises is not None
    assert len(made.noises) == 1
    assert made.rooms is None
    for option in ("noise_dir", "rir_dir"):
        with pytest.raises(DataListError, match="leave the option out"):
            AugmentContext.load(replace(AugmentSettings(), **{option: str(tmp_path / "absent")}))


def test_every_augmentation_has_a_probability_of_its_own() -> None:
    for name in AUGMENTATIONS:
        assert getattr(AugmentSettings(), name) == 0
        assert getattr(AugmentSettings(**{name: 0.25}), name) == 0.25

"""The filter bank against an independent computation, frame by frame, and against kaldi's own."""

import keras
import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech
from utils.networks.filterbank import filterbank, mel_filters, num_filterbank_frames
from utils.networks.front_ends import FRONT_ENDS, FilterBank, front_end


def by_the_book(waveform):
    """Kaldi's steps, one frame and one mel bin at a time, in 64 bits."""
    mels = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(8000 / 700), 82)
    rows = []
    for start in range(0, len(waveform) - 399, 160):
        frame = waveform[start : start + 400].astype(np.float64)
        frame = frame - frame.mean()
        frame = np.concatenate([[frame[0] * 0.03], frame[1:] - 0.97 * frame[:-1]])
        n = np.arange(400)
        frame = frame * (0.5 - 0.5 * np.cos(2 * np.pi * n / 399)) ** 0.85
        power = np.abs(np.fft.fft(np.pad(frame, (0, 112)))[:256]) ** 2
        bins = 1127 * np.log1p(np.arange(256) * 31.25 / 700)
        energies = []
        for left, centre, right in zip(mels, mels[1:], mels[2:], strict=False):
            rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
            weight = np.where(bins <= centre, rising, falling).clip(0)
            energies.append(max(float(power @ weight), 1.1920929e-07))
        rows.append(np.log(energies))
    return (np.array(rows) - np.mean(rows, axis=0)).T


@pytest.mark.parametrize("num_samples", [400, 559, 560, 16000, 16123])
def test_equals_the_definition(num_samples):
    waveform = synthetic_speech(3, duration_s=1.2)[:num_samples]
    ours = filterbank(waveform)
    expected = by_the_book(waveform)
    assert ours.shape == expected.shape == (80, num_filterbank_frames(num_samples))
    # 32-bit sums of 400 products leave about 1e-4 of a weak bin's energy.
    np.testing.assert_allclose(ours, expected, atol=5e-3)


def test_layer_equals_numpy():
    waveforms = np.stack(
        [synthetic_speech(1, duration_s=1.0)[:16000], synthetic_speech(2, duration_s=1.0)[:16000]]
    )
    ours = keras.ops.convert_to_numpy(FilterBank()(waveforms))
    assert ours.shape == FilterBank().compute_output_shape(waveforms.shape) == (2, 80, 98, 1)
    for row, waveform in zip(ours, waveforms, strict=True):
        np.testing.assert_allclose(row[:, :, 0], filterbank(waveform), atol=5e-3)


def test_mean_over_time_is_gone_and_loudness_with_it():
    waveform = synthetic_speech(4, duration_s=1.0)
    features = filterbank(waveform)
    assert np.abs(features.mean(axis=1)).max() < 1e-4
    loud = features[20:50]  # bins well above the floor
    np.testing.assert_allclose(filterbank(4 * waveform)[20:50], loud, atol=0.2)


def test_triangles():
    filters = mel_filters()
    assert filters.shape == (257, 80)
    assert (filters >= 0).all() and filters.max() <= 1
    assert not filters[-1].any()  # the bin at 8 kHz
    peaks = filters.argmax(axis=0)
    assert (np.diff(peaks) >= 0).all()


def test_digital_silence_is_finite():
    assert np.abs(filterbank(np.zeros(4000, np.float32))).max() < 1e-5


@pytest.mark.parametrize("shape", [(399,), (2, 400)])
def test_refuses_what_is_no_frame(shape):
    with pytest.raises(ValueError, match="at least 400 samples in one dimension"):
        filterbank(np.zeros(shape, np.float32))


def test_front_end_by_the_name_of_the_input():
    for name, kind in FRONT_ENDS.items():
        inputs = keras.Input((80, None, 1), name=name)
        assert type(front_end(keras.Model(inputs, inputs))) is kind
    inputs = keras.Input((80, None, 1), name="pixels")
    with pytest.raises(ValueError, match="'pixels', expected one of"):
        front_end(keras.Model(inputs, inputs))


def test_equals_kaldi_native_fbank():
    import kaldi_native_fbank as knf

    waveform = synthetic_speech(5, duration_s=2.0)
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 80
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16000, waveform.tolist())
    bank.input_finished()
    frames = np.array([bank.get_frame(index) for index in range(bank.num_frames_ready)])
    np.testing.assert_allclose(filterbank(waveform), (frames - frames.mean(axis=0)).T, atol=5e-3)

"""The synthetic voices that other tests rely on."""

import wave

import numpy as np

from tests.support.synthetic_voices import SAMPLE_RATE, synthetic_speech, write_speech_folder


def test_speech_is_the_same_every_time():
    first = synthetic_speech(3, 1, duration_s=1.5)
    np.testing.assert_array_equal(first, synthetic_speech(3, 1, duration_s=1.5))
    assert first.dtype == np.float32
    assert first.shape == (round(1.5 * SAMPLE_RATE),)
    assert 0.4 < np.abs(first).max() <= 0.5


def long_term_spectrum(waveform):
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 512)[::160] * np.hanning(512)
    levels = np.log(np.abs(np.fft.rfft(frames)) + 1e-3)
    return (levels - levels.mean(axis=1, keepdims=True)).mean(axis=0)


def test_speakers_can_be_told_apart_and_utterances_of_one_speaker_belong_together():
    spectra = np.stack(
        [long_term_spectrum(synthetic_speech(s, u)) for s in range(6) for u in (0, 1)]
    )
    spectra -= spectra.mean(axis=0)
    spectra /= np.linalg.norm(spectra, axis=1, keepdims=True)
    scores = spectra @ spectra.T
    np.fill_diagonal(scores, -1.0)
    assert [int(best) // 2 for best in scores.argmax(axis=1)] == [
        s for s in range(6) for _ in (0, 1)
    ]


def test_folder_holds_16_bit_mono_files(tmp_path):
    files = write_speech_folder(tmp_path, num_speakers=2, num_utterances=2, duration_s=0.5)
    assert [speaker for _, speaker in files] == [0, 0, 1, 1]
    assert files[0][0] == tmp_path / "speaker_00" / "utterance_00.wav"
    with wave.open(str(files[0][0])) as file:
        assert file.getparams()[:4] == (1, 2, SAMPLE_RATE, SAMPLE_RATE // 2)

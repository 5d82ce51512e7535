from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic_sounds import KINDS, coloured_noise, sounds
from tests.support.synthetic_voices import synthetic_speech
from utils.audio import detector
from utils.audio.detector import NoSpeechError, SpeechListener, describe_sound
from utils.audio.recording import Recording
from utils.errors import ModelError


def hears_speech(waveform: np.ndarray) -> bool:
    listener = SpeechListener()
    listener.hear(waveform)
    return listener.hears_speech


@pytest.mark.slow
@pytest.mark.parametrize("duration_s", [1.0, 3.0, 6.0])
def test_noise_tones_and_music_are_no_speech(duration_s: float) -> None:
    accepted = [name for name, sound in sounds(duration_s).items() if hears_speech(sound)]
    assert accepted == []


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_what_is_heard_instead_is_named(name: str) -> None:
    expected = "tones or music"
    if "noise" in name:
        expected = "steady noise"
    elif name == "clicks":
        expected = "other sounds"
    assert describe_sound(sounds(6.0, seed=1)[name]) == expected


def test_shipped_recordings_are_speech(root: Path) -> None:
    for path in [*(root / "audio").glob("*.wav"), *(root / "audio_db").glob("*.wav")]:
        assert Recording.load(path).missing_speech is None, path


@pytest.mark.parametrize("speaker", range(4))
def test_voices_are_speech_in_noise_and_between_pauses(speaker: int) -> None:
    voice = synthetic_speech(speaker, 0, 3.0)
    assert Recording(voice).missing_speech is None
    noise = coloured_noise(len(voice), np.random.default_rng(speaker), 1.0)
    noise *= np.sqrt(np.mean(np.square(voice)) / 10**0.5)  # 5 dB below the voice
    assert Recording(voice + noise).missing_speech is None
    # A minute of noise before it does not count: one voice is enough.
    late = np.concatenate([np.tile(0.01 * noise, 20), voice])
    assert Recording(late).missing_speech is None


def test_pieces_are_heard_as_one_recording() -> None:
    voice = synthetic_speech(1, 0, 2.0)
    size = detector.BLOCK_FRAMES * detector.FRAME_SAMPLES
    whole, pieces = SpeechListener(), SpeechListener()
    whole.hear(voice)
    for start in range(0, len(voice), size):
        pieces.hear(voice[start : start + size])
    assert whole.hears_speech
    assert whole.__dict__["_num_speech"] == pieces.__dict__["_num_speech"]


def test_a_short_word_is_heard_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    hear = detector.SpeechStream.hear

    def count(stream: detector.SpeechStream, samples: np.ndarray) -> np.ndarray:
        heard.append(len(samples))
        return hear(stream, samples)

    monkeypatch.setattr(detector.SpeechStream, "hear", count)
    word = synthetic_speech(1, 0, 0.5)[: 2 * detector.FRAME_SAMPLES * 2]
    assert Recording(word).missing_speech is None
    assert heard == [len(word), 2 * len(word)]
    heard.clear()
    assert Recording(0.1 * sounds(2.0)["pink noise"]).missing_speech == "steady noise"
    assert sum(heard) == 32000


def test_nothing_heard_is_no_speech() -> None:
    assert not SpeechListener().hears_speech
    assert Recording(np.empty(0, np.float32)).missing_speech == "other sounds"


def test_the_error_says_what_was_heard() -> None:
    error = NoSpeechError("a.wav", "tones or music")
    assert str(error) == (
        "a.wav: no speech: tones or music, expected somebody who speaks; record a voice"
    )
    assert error.sound == "tones or music"


def test_a_missing_detector_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(detector, "MODEL_PATH", tmp_path / "none.onnx")
    detector._session.cache_clear()
    with pytest.raises(ModelError, match="missing, expected the speech detector"):
        _ = Recording(synthetic_speech(0)).missing_speech
    (tmp_path / "none.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"none.onnx: the network cannot be loaded \("):
        _ = Recording(synthetic_speech(0)).missing_speech

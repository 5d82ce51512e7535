"""Several voices in a recording that should hold one."""

import re
from pathlib import Path

import numpy as np
import pytest

from utils.audio.decode import load_audio
from utils.audio.recording import Recording
from utils.diarization import voices
from utils.diarization.voices import is_long, note_voices, voices_of
from utils.errors import AudioError
from utils.model.encoder import SpeakerEncoder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return SpeakerEncoder(ROOT / "models" / "campplus.onnx", 1)


@pytest.fixture(scope="module")
def conversation() -> Recording:
    return Recording(load_audio(ROOT / "audio" / "conversation.wav"), "conversation.wav")


@pytest.mark.slow
def test_two_voices_are_noted_and_refused(
    encoder: SpeakerEncoder, conversation: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    two = conversation.part(0.5, 12.9)
    note_voices(encoder, [two], is_strict=False)
    note = capsys.readouterr().err
    pattern = (
        r"note: conversation\.wav: 2 voices \(6\.\d s, 4\.\d s\), mixed here; choose a part of it\n"
    )
    assert re.fullmatch(pattern, note)
    with pytest.raises(AudioError, match=r"conversation\.wav: 2 voices .*, expected one"):
        note_voices(encoder, [two], is_strict=True)


def test_one_voice_passes(
    encoder: SpeakerEncoder, conversation: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    note_voices(encoder, [conversation.part(6.4, 13.1)], is_strict=True)
    assert capsys.readouterr().err == ""
    assert voices_of(Recording(np.zeros(32000, np.float32)), encoder) == []


def test_short_recordings_are_searched_only_if_asked(
    encoder: SpeakerEncoder, conversation: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[float] = []
    monkeypatch.setattr(
        voices, "voices_of", lambda recording, encoder: searched.append(recording.duration_s) or []
    )
    parts = [conversation.part(0, 7.9), conversation.part(0, 8)]
    assert [is_long(part) for part in parts] == [False, True]
    note_voices(encoder, parts, is_strict=False)
    assert searched == [8]
    note_voices(encoder, parts, is_strict=True)
    assert searched == [8, 7.9, 8]


def test_parts_lie_inside(conversation: Recording) -> None:
    part = conversation.part(1.5, 2)
    np.testing.assert_array_equal(part.waveform, conversation.waveform[24000:32000])
    assert part.source == "conversation.wav"
    with pytest.raises(AudioError, match=r"lasts 40\.2\d s, expected the part 30-50 s inside it"):
        conversation.part(30, 50)

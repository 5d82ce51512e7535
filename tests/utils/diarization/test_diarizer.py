"""The windows of a recording, and the speakers of long ones; the networks are stand-ins."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from utils.arrays import BoolArray, FloatArray
from utils.audio.decode import load_audio
from utils.diarization import diarizer, segmentation, stretches
from utils.diarization.diarizer import HOP_SAMPLES, diarize
from utils.diarization.segmentation import FRAME_SAMPLES, local_speakers, num_frames
from utils.errors import AudioError, ModelError

ROOT = Path(__file__).resolve().parents[3]


class Voices:
    """Embeds a stretch by its loudest frequency: a tone is a speaker."""

    def embed_speech(self, speech: FloatArray) -> FloatArray:
        loudest = int(np.abs(np.fft.rfft(speech, 16000)).argmax())
        embedding = np.zeros(32, np.float32)
        embedding[loudest // 100] = 1
        return embedding


def loud(samples: FloatArray) -> BoolArray:
    """Calls everything that is not silent local speaker 0."""
    count = num_frames(max(len(samples), segmentation.LEAST_SAMPLES))
    padded = np.pad(samples, (0, 2 * segmentation.LEAST_SAMPLES))
    starts = np.arange(count) * FRAME_SAMPLES + segmentation.FRAME_START
    active = np.zeros((count, 3), bool)
    active[:, 0] = [np.abs(padded[s : s + FRAME_SAMPLES]).max() > 0.01 for s in starts]
    return active


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tones are speech."""
    monkeypatch.setattr(stretches, "local_speakers", loud)
    monkeypatch.setattr(
        stretches.SpeechStream, "hear", lambda self, samples: np.ones(len(samples) // 512 + 1)
    )
    monkeypatch.setattr(diarizer.SpeechListener, "hear", lambda self, samples: None)
    monkeypatch.setattr(diarizer.SpeechListener, "hears_speech", property(lambda self: True))


def write_tones(path: Path, hertz: list[int], seconds: float = 3.0) -> Path:
    """Tones one after the other, half a second of silence between them."""
    time = np.arange(round(seconds * 16000)) / 16000
    pieces = [np.concatenate([0.5 * np.sin(2 * np.pi * f * time), np.zeros(8000)]) for f in hertz]
    soundfile.write(path, np.concatenate(pieces), 16000)
    return path


@pytest.mark.usefixtures("tones")
@pytest.mark.parametrize("num_threads", [1, 3])
def test_turns_are_where_the_tones_are(tmp_path: Path, num_threads: int) -> None:
    hertz = [350, 750, 350, 1150, 750, 350, 1150]
    heard: list[float] = []
    found = diarize(
        write_tones(tmp_path / "a.wav", hertz), Voices(), num_threads=num_threads,
        on_progress=heard.append,
    )  # fmt: skip
    names = {350: "1", 750: "2", 1150: "3"}
    assert [turn.speaker for turn in found.turns] == [names[f] for f in hertz]
    for number, turn in enumerate(found.turns):
        assert turn.start_s == pytest.approx(3.5 * number, abs=0.04)
        assert turn.end_s == pytest.approx(3.5 * number + 3, abs=0.04)
        assert turn.score == pytest.approx(1)
    assert found.duration_s == pytest.approx(24.5)
    assert sum(heard) == pytest.approx(24.5, abs=2 * HOP_SAMPLES / 16000)
    assert found.embeddings.shape == (3, 32)


@pytest.mark.usefixtures("tones")
def test_everybody_at_once_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crowd(samples: FloatArray) -> BoolArray:
        active = loud(samples)
        active[60:, 1] = active[60:, 0]  # alone for the first second only
        return active

    path = write_tones(tmp_path / "a.wav", [350], 8)
    assert diarize(path, Voices()).overlap_share == 0
    monkeypatch.setattr(stretches, "local_speakers", crowd)
    found = diarize(path, Voices())
    assert found.overlap_share == pytest.approx(7 / 8, abs=0.01)
    assert len(found.embeddings) == 1


@pytest.mark.usefixtures("tones")
@pytest.mark.parametrize(
    "num_samples", [6400, HOP_SAMPLES, HOP_SAMPLES + 1, 2 * HOP_SAMPLES, 160001]
)
def test_any_length_is_heard_to_its_end(tmp_path: Path, num_samples: int) -> None:
    seconds = num_samples / 16000
    time = np.arange(num_samples) / 16000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 350 * time), 16000)
    (turn,) = diarize(tmp_path / "a.wav", Voices()).turns
    assert turn.start_s == pytest.approx(0, abs=0.05)
    assert turn.end_s == pytest.approx(seconds, abs=0.08)


@pytest.mark.usefixtures("tones")
def test_fifty_speakers(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    hertz = [150 + 100 * (number % 25) for number in range(50)]
    assert len(diarize(write_tones(path, hertz, 2.5), Voices()).embeddings) == 25


@pytest.mark.slow
@pytest.mark.usefixtures("tones")
def test_six_hours_are_heard_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    num_blocks = 6 * 3600 * 16000 // HOP_SAMPLES

    def blocks(*_: object, **__: object) -> Iterator[FloatArray]:
        for number in range(num_blocks):
            # Four people, a minute each in turn.
            yield np.full(HOP_SAMPLES, 0.1 * (1 + number // 12 % 4), np.float32)

    def somebody(samples: FloatArray) -> BoolArray:
        active = np.zeros((num_frames(len(samples)), 3), bool)
        active[250:330, 0] = True  # 1.3 s in the middle
        return active

    class Loudness:
        def embed_speech(self, speech: FloatArray) -> FloatArray:
            embedding = np.zeros(192, np.float32)
            embedding[round(10 * float(speech[0]))] = 1
            return embedding

    monkeypatch.setattr(diarizer, "read_blocks", blocks)
    monkeypatch.setattr(stretches, "local_speakers", somebody)
    monkeypatch.setattr(stretches, "without_rumble", lambda samples: samples)
    tracemalloc.start()
    try:
        found = diarize("long.wav", Loudness(), num_threads=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.duration_s == pytest.approx(6 * 3600, abs=6)
    assert len(found.embeddings) == 4
    assert peak < 300e6  # the samples alone would be 1.4 GB


@pytest.mark.usefixtures("tones")
def test_clicks_alone_are_no_turns(tmp_path: Path) -> None:
    waveform = np.zeros(48000)
    waveform[16000:17000] = 0.5
    soundfile.write(tmp_path / "a.wav", waveform, 16000)
    with pytest.raises(AudioError, match="nobody is heard alone"):
        diarize(tmp_path / "a.wav", Voices())


def test_network_hears_two_people_at_once() -> None:
    window = load_audio(ROOT / "audio" / "conversation.wav")[12 * 16000 : 22 * 16000]
    active = local_speakers(window)
    assert active.shape == (589, 3)
    times = (np.arange(589) * FRAME_SAMPLES + segmentation.FIELD_SAMPLES / 2) / 16000 + 12
    both = active.sum(axis=1) == 2
    # The reference: one ends at 20.65 s, another begins at 19.85 s.
    assert both[(times > 19.95) & (times < 20.35)].mean() > 0.8
    assert both[(times < 19.5) | (times > 20.9)].mean() < 0.05


def test_missing_network_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    segmentation._session.cache_clear()
    monkeypatch.setattr(segmentation, "MODEL_PATH", tmp_path / "segmentation.onnx")
    with pytest.raises(ModelError, match=r"missing, expected the segmentation network"):
        local_speakers(np.zeros(16000, np.float32))
    segmentation._session.cache_clear()

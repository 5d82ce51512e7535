"""The benchmark of silence: its conditions, its detectors, its table."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import silence
from benchmarks.speaker_models import rms
from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.audio.activity import remove_silence
from utils.audio.recording import Recording
from utils.audio.rumble import without_rumble
from utils.errors import DataListError, ModelError

RATE = 16_000


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three synthetic speakers with three utterances each, and a stub for the network."""
    lines = ["path\tspeaker"]
    for speaker in range(3):
        for number in range(3):
            path = f"{speaker}/{number}.wav"
            write_wav(tmp_path / path, synthetic_speech(speaker, number, 1.5))
            lines.append(f"{path}\t{speaker}")
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(silence, "load_embedder", lambda *_: FakeEncoder().embed_waveform)
    return tmp_path


def arguments(dev: Path) -> list[str]:
    return [str(dev / "dev.tsv"), "--root", str(dev), "--treatments", "none", "energy"]


def table(text: str) -> dict[tuple[str, str], list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {(row[0], row[1]): row[2:] for row in rows[2:]}


def test_energy_takes_the_silence_out_and_leaves_the_voices_apart(
    dev: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert silence.main([*arguments(dev), "--output", str(dev / "out.md")]) == 0
    text = capsys.readouterr().out
    assert (dev / "out.md").read_text(encoding="utf-8") == text.removesuffix("\n")
    rows = table(text)
    assert list(rows) == [(c, t) for c in silence.TRIALS for t in ("none", "energy")]
    assert text.startswith("9 utterances of 3 speakers (dev.tsv), ")
    for treatment in ("none", "energy"):
        assert float(rows["clean", treatment][0]) == 0.0
        assert rows["noise", treatment][3] == "0"  # refused
    # 1.5 s of speech in 7.5 s of recording, and at most 100 ms of padding on each side.
    assert float(rows["silence", "none"][2]) == 100.0
    assert 15.0 < float(rows["silence", "energy"][2]) < 25.0
    assert float(rows["silence on one side", "energy"][0]) <= float(
        rows["silence on one side", "none"][0]
    )


def test_some_rows_of_every_second_utterance(dev: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert silence.main([*arguments(dev), "--conditions", "clean", "--every", "2"]) == 0
    text = capsys.readouterr().out
    assert list(table(text)) == [("clean", "none"), ("clean", "energy")]
    assert text.startswith("5 utterances of 3 speakers")


def test_refused_utterances_are_counted(dev: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(dev / "0/0.wav", synthetic_speech(0, 0, 0.35))
    assert silence.main([*arguments(dev), "--conditions", "clean"]) == 0
    assert table(capsys.readouterr().out)["clean", "none"][3] == "1"


def test_no_trials_are_an_error(dev: Path) -> None:
    with pytest.raises(DataListError, match="clean, none: no trials of both kinds left"):
        silence.main([*arguments(dev), "--conditions", "clean", "--every", "3"])


def test_a_detector_that_is_not_installed_is_named(
    dev: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    monkeypatch.setattr(silence.importlib.util, "find_spec", lambda name: None)
    for load in (silence.load_webrtcvad, silence.load_silero):
        with pytest.raises(ModelError, match="install"):
            load()
    names = ["--treatments", "none", "webrtcvad", "silero", "--conditions", "clean"]
    assert silence.main([*arguments(dev)[:3], *names]) == 0
    text = capsys.readouterr().out
    assert list(table(text)) == [("clean", "none")]
    assert "Not measured: webrtcvad (install webrtcvad-wheels)." in text
    assert "Not measured: silero (install onnxruntime" in text


@pytest.mark.parametrize("name", ["webrtcvad", "silero"])
def test_detectors_of_others_find_the_voice_between_pauses(name: str) -> None:
    try:
        treat = silence.TREATMENTS[name]()
    except ModelError as error:
        pytest.skip(str(error))
    voice = synthetic_speech(1, 0, 3.0)
    recording = silence.recorded(voice, "silence", seed=0)
    kept = treat(recording)
    assert 0 < len(kept) < 0.7 * len(recording)
    assert rms(kept) > 1.2 * rms(recording)
    assert len(treat(np.zeros(2 * RATE, np.float32))) == 0


def test_conditions_are_what_the_help_says() -> None:
    voice = synthetic_speech(0, 0, 2.0)
    assert silence.recorded(voice, "clean", 0) is voice
    quiet = silence.recorded(voice, "silence", 0)
    assert quiet.dtype == np.float32
    assert len(quiet) == len(voice) + 6 * RATE
    pauses = np.concatenate([quiet[: 3 * RATE], quiet[-3 * RATE :]])
    assert 20 * np.log10(rms(pauses)) == pytest.approx(-60, abs=0.5)
    np.testing.assert_allclose(quiet[3 * RATE : -3 * RATE], voice, atol=0.01)
    assert not np.array_equal(quiet, silence.recorded(voice, "silence", 1))
    loud = silence.recorded(voice, "noise", 0)
    snr_db = 20 * np.log10(rms(remove_silence(voice)) / rms(loud[: 3 * RATE]))
    assert snr_db == pytest.approx(15, abs=0.5)


def test_noise_of_a_room_falls_by_3_db_an_octave() -> None:
    power = np.square(np.abs(np.fft.rfft(silence.room_noise(8 * RATE, -20.0, 0))))
    octaves = [10 * np.log10(power[8 * low : 16 * low].mean()) for low in (200, 400, 800, 1600)]
    np.testing.assert_allclose(np.diff(octaves), -3.0, atol=0.5)


def test_marked_frames_are_kept_with_100_ms_around() -> None:
    waveform = np.arange(2 * RATE + 7, dtype=np.float32)
    mask = np.zeros(67, bool)
    mask[20] = True
    kept = silence.kept_frames(waveform, mask, 480)
    assert kept[0] == 17 * 480
    assert kept[-1] == 24 * 480 - 1
    assert len(silence.kept_frames(waveform, np.ones(67, bool), 480)) == len(waveform)
    assert silence.framed(waveform, 480).shape == (67, 480)


@pytest.mark.slow
def test_the_embedder_cuts_no_silence_and_averages_windows(tmp_path: Path) -> None:
    from tests.support.tiny_model import write_tiny_model
    from utils.model.encoder import SpeakerEncoder

    path = str(write_tiny_model(tmp_path / "tiny.keras"))
    embed, encoder = silence.load_embedder(path, 1), SpeakerEncoder(path)
    voice = Recording(remove_silence(synthetic_speech(0, 0, 14.0)))  # two windows
    assert len(voice.speech) == len(voice.waveform)
    np.testing.assert_allclose(embed(voice.steady), encoder.embed_waveform(voice), atol=1e-5)
    quiet = without_rumble(silence.recorded(voice.waveform[: 2 * RATE], "silence", 0))
    assert np.linalg.norm(embed(quiet)) == pytest.approx(1, abs=1e-5)
    assert float(embed(quiet) @ encoder.embed_waveform(quiet)) < 0.9999

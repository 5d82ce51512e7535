"""The benchmark of replays on synthetic voices: who is compared, and what is counted."""

import json
from pathlib import Path

import pytest

from benchmarks import replay
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.errors import DataListError


def test_on_synthetic_voices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for speaker, utterance in [(1, 7), (1, 8), (2, 0), (2, 1)]:
        path = tmp_path / "people" / str(speaker) / f"{utterance}.wav"
        write_wav(path, synthetic_speech(speaker, utterance, 3.0))
    for digit in range(6):
        for take in range(2):
            path = tmp_path / "digits" / f"{digit}_eve_{take}.wav"
            write_wav(path, synthetic_speech(3, 10 * digit + take, 0.6))
    kept = ("20 dB quieter", "cut, quieter, mp3, Opus", "white noise, as loud")
    monkeypatch.setattr(replay, "CHANGES", {name: replay.CHANGES[name] for name in kept})
    command = [str(tmp_path / "people"), "--model_path", "none", "--strings", "3"]
    command += ["--digits", str(tmp_path / "digits"), "--json", str(tmp_path / "found.json")]
    assert replay.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 recordings each."
    quieter = next(line for line in lines if line.startswith("| 20 dB quieter"))
    assert quieter.split(" | ")[1] == "100.0%"
    assert any(line.startswith("| another utterance of the speaker | 2 |") for line in lines)
    assert any(line.startswith("| the same digits, read again | 3 |") for line in lines)
    overview = json.loads((tmp_path / "found.json").read_text())["overview"]
    assert overview[1][0].startswith("5 new recordings")


def test_changes_change(tmp_path: Path) -> None:
    import numpy as np

    random, speech = np.random.default_rng(0), synthetic_speech(1, 0, 2.0)
    for what, change in replay.CHANGES.items():
        changed = change(speech, random)
        assert 0.5 * len(speech) < len(changed) < 1.6 * len(speech), what
        assert not np.array_equal(changed, speech), what


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    write_wav(tmp_path / "1" / "a.wav", synthetic_speech(1, 0, 3.0))
    with pytest.raises(DataListError, match="no speaker with two utterances"):
        replay.utterances(str(tmp_path), 5)
    with pytest.raises(DataListError, match="nobody says 6 digits twice"):
        replay.read_digits(str(tmp_path))

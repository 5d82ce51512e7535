"""The benchmark of less noise and less silence: its conditions, its treatments, its table."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import denoise
from benchmarks.speaker_models import Item, rms
from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech, write_wav

pytest.importorskip("noisereduce")


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three synthetic speakers with two utterances each, a noise, and a stub for the network."""
    lines = ["path\tspeaker"]
    for speaker in range(3):
        for number in range(2):
            path = f"{speaker}/{number}.wav"
            write_wav(tmp_path / path, synthetic_speech(speaker, number, 1.5))
            lines.append(f"{path}\t{speaker}")
    noise = np.random.default_rng(0).standard_normal(16000)
    write_wav(tmp_path / "noise" / "hiss.wav", 0.1 * noise)
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(denoise, "load_encoder", lambda _: FakeEncoder())
    return tmp_path


@pytest.mark.slow
def test_table_has_every_condition_and_treatment(
    dev: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(dev / "dev.tsv"), "--root", str(dev), "--output", str(dev / "out.md")]
    assert denoise.main([*options, "--noise", str(dev / "noise")]) == 0
    text = capsys.readouterr().out
    assert (dev / "out.md").read_text(encoding="utf-8") == text.removesuffix("\n")
    assert text.startswith("6 utterances of 3 speakers (dev.tsv), ")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")][2:]
    expected = [(c, t) for c in denoise.TRIALS for t in denoise.TREATMENTS]
    assert [(row[0], row[1]) for row in rows] == expected
    assert {row[4] for row in rows} == {"0"}  # refused
    assert [row[2] for row in rows if row[:2] == ["clean", "none"]] == ["0.00"]


def test_without_recorded_noise_its_rows_are_left_out(
    dev: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(dev / "dev.tsv"), "--root", str(dev), "--treatments", "none", "--every", "2"]
    assert denoise.main(options) == 0
    text = capsys.readouterr().out
    assert text.startswith("4 utterances of 2 speakers")
    assert "recorded" not in text


@pytest.mark.parametrize("condition", ["steady", "recorded"])
def test_noise_lies_10_db_below_the_speech(dev: Path, condition: str) -> None:
    voice = synthetic_speech(0, 0, 1.5)
    item = Item("0/0.wav", "0", "", "", "")
    noisy = denoise.degraded(voice, condition, item, [dev / "noise" / "hiss.wav"])
    assert len(noisy) == len(voice) + 2 * 16000
    noise = noisy - np.pad(voice, 16000)
    assert 20 * np.log10(rms(voice) / rms(noise)) == pytest.approx(10, abs=1)

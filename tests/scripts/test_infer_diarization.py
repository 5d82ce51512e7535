"""Who spoke when, on the shell: the sample conversation, and recordings that cannot be used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import eval_diarization
import infer_diarization
from tests.support.synthetic_sounds import sounds
from utils.audio.decode import load_audio
from utils.diarization.turns import read_rttm
from utils.errors import VoiceprintError
from utils.messages import set_language

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "audio" / "conversation.wav"
MODEL = str(ROOT / "models" / "campplus.onnx")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without anybody enrolled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOICEPRINT_DATABASE", raising=False)


def run(*options: str | Path) -> int:
    return infer_diarization.main(["--model_path", MODEL, "--num_threads=1", *map(str, options)])


@pytest.mark.slow
def test_the_sample_conversation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "audio_db", "audio_db", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(SAMPLE, "conversation.wav")
    outputs = ["--rttm=out/", "--srt=out/", "--labels=out/", "--plot=out/"]
    assert run("--audio_path=conversation.wav", *outputs, "--enrol", "2=小艺") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("-----------  Configuration Arguments")
    assert "conversation.wav：共3个说话人" in lines
    assert any(line.startswith("李达康：14") and "5段" in line for line in lines)
    assert any(line.startswith("沙瑞金：") for line in lines)
    assert any(line.startswith("说话人2：") for line in lines)
    assert "40/40 s" in captured.err
    assert "已注册小艺" in captured.err
    names = sorted(path.suffix for path in Path("out").iterdir())
    assert names == [".png", ".rttm", ".srt", ".txt"]
    assert Path("audio_db/小艺.wav").is_file()

    reference = str(SAMPLE.with_suffix(".rttm"))
    assert eval_diarization.main([reference, "out", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["0"]["conversation"]["der"] < 0.06
    assert report["0.25"]["conversation"]["der"] < 0.03
    assert report["0"]["conversation"]["count_errors"] == [0]
    assert eval_diarization.main([reference, "out"]) == 0
    assert "conversation, collar 0 s: DER " in capsys.readouterr().out

    # The voice that was cut out of it is known from then on, in English too.
    try:
        assert run("--audio_path=conversation.wav", "--json", "--lang", "en") == 0
    finally:
        set_language("")
    found = json.loads(capsys.readouterr().out)
    assert set(found["speakers"]) == {"李达康", "沙瑞金", "小艺"}
    assert found["turns"][0]["start_s"] == pytest.approx(0.75, abs=0.1)
    assert found["duration_s"] == pytest.approx(40.2, abs=0.1)


@pytest.mark.slow
def test_telephone_one_speaker_and_a_given_number(capsys: pytest.CaptureFixture[str]) -> None:
    waveform = load_audio(SAMPLE)
    soundfile.write("telephone.wav", waveform[: 20 * 16000 : 2], 8000, subtype="ULAW")
    soundfile.write("one.flac", waveform[: round(5.9 * 16000)], 16000)
    Path("list.txt").write_text("telephone.wav\none.flac\n", encoding="utf-8")
    assert run("--list=list.txt", "--json", "--rttm=out") == 0
    telephone, one = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(telephone["speakers"]) == 3
    assert list(one["speakers"]) == ["说话人1"]
    assert list(read_rttm("out/one.rttm")) == ["one"]
    assert run("--audio_path=telephone.wav", "--json", "--num_speakers=2") == 0
    assert len(json.loads(capsys.readouterr().out)["speakers"]) == 2


@pytest.mark.slow
def test_recordings_that_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write("silence.wav", np.zeros(32000), 16000)
    soundfile.write("short.wav", load_audio(SAMPLE)[20000:23000], 16000)
    noise = next(sound for name, sound in sounds().items() if "white" in name)
    soundfile.write("noise.wav", noise, 16000)
    Path("cut.flac").write_bytes(b"fLaC")
    paths = ["silence.wav", "short.wav", "noise.wav", "cut.flac", "missing.wav"]
    assert run("--audio_path", *paths, "--json") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors] == paths
    assert "silent" in errors[0]
    assert "too short" in errors[1]
    assert "no speech: steady noise" in errors[2]
    assert "no such file" in errors[4]


def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--min_speakers=3", "--max_speakers=2"], "--min_speakers is above --max_speakers"),
        (["--audio_path", "a.wav", "b.wav", "--enrol", "1=x"], "--enrol takes speakers from one"),
    ):
        with pytest.raises(SystemExit):
            run(*options)
        assert message in capsys.readouterr().err
    with pytest.raises(VoiceprintError, match="expected SPEAKER=NAME"):
        run("--enrol", "Tom")
    with pytest.raises(VoiceprintError, match="no recording in the list"):
        Path("list.txt").write_text("\n", encoding="utf-8")
        run("--list=list.txt")


def test_evaluation_of_several_and_of_missing_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("reference.rttm").write_text(
        "SPEAKER a 1 0 2 <NA> <NA> x <NA> <NA>\nSPEAKER b 1 0 2 <NA> <NA> x <NA> <NA>\n",
        encoding="utf-8",
    )
    Path("found").mkdir()
    Path("found/a.rttm").write_text("SPEAKER a 1 0 2 <NA> <NA> y <NA> <NA>\n", encoding="utf-8")
    assert eval_diarization.main(["reference.rttm", "found", "--collar", "0"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == (
        "all, collar 0 s: DER 50.00 % (missed 50.00 %, false alarm 0.00 %, confusion 0.00 %), "
        "JER 50.00 %, number of speakers right in 1 of 2"
    )
    assert "b.rttm: missing, counted as nothing found" in captured.err
    for arguments in (["reference.rttm", "nowhere"], ["found/a.rttm", "reference.rttm"]):
        with pytest.raises(VoiceprintError, match="no such folder"):
            eval_diarization.main(arguments)
    Path("empty.rttm").touch()
    with pytest.raises(VoiceprintError, match="no SPEAKER line"):
        eval_diarization.main(["empty.rttm", "found"])


def test_a_file_that_ends_early_is_said_to(capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write("whole.flac", load_audio(SAMPLE)[: 8 * 16000], 16000)
    data = Path("whole.flac").read_bytes()
    Path("cut.flac").write_bytes(data[: len(data) // 2])
    assert run("--audio_path", "cut.flac", "--json") == 2
    assert capsys.readouterr().err.count("error: cut.flac: ") == 1

import json
import re
import wave
from pathlib import Path

import pytest
from fake_encoder import FakeEncoder
from voices import synthetic_speech, write_wav

import infer_contrast
from utils.calibration import Calibration
from utils.errors import AudioError


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer_contrast, "SpeakerEncoder", lambda path: FakeEncoder())
    stored = Calibration(threshold=0.8, strict_threshold=0.9, slope=10.0, offset=-8.0)
    monkeypatch.setattr(infer_contrast, "read_calibration", lambda path: stored)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two recordings of one speaker and one of another, as relative paths."""
    monkeypatch.chdir(tmp_path)
    for name, speaker, utterance in [("a_1", 0, 0), ("a_2", 0, 1), ("b_1", 2, 0)]:
        write_wav(Path(f"audio/{name}.wav"), synthetic_speech(speaker, utterance, 3.0))
    return ["audio/a_1.wav", "audio/a_2.wav", "audio/b_1.wav"]


def arguments_block(first: str, second: str, threshold: str) -> str:
    return (
        "-----------  Configuration Arguments -----------\n"
        f"audio1_path: {first}\n"
        f"audio2_path: {second}\n"
        "model_path: models/resnet34.keras\n"
        f"threshold: {threshold}\n"
        "------------------------------------------------\n"
        "==> successfully loading model models/resnet34.keras.\n\n"
    )


def test_different_persons(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    a, _, b = paths
    assert infer_contrast.main([f"--audio_path1={b}", f"--audio_path2={a}"]) == 0
    shown = capsys.readouterr().out
    block = arguments_block(b, a, "0.8")
    assert shown.startswith(block)
    assert re.fullmatch(
        r"audio/b_1\.wav 和 audio/a_1\.wav 不是同一个人，相似度仅为：-?0\.\d{6}，"
        r"平均预测时间：\d+ms\n"
        r"按模型的校准，两段录音为同一个人的概率：\d+\.\d%\n",
        shown.removeprefix(block),
    )


def test_same_person(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = paths
    options = [f"--audio1_path={first}", f"--audio2_path={second}", "--threshold=0.7"]
    assert infer_contrast.main(options) == 0
    shown = capsys.readouterr().out
    block = arguments_block(first, second, "0.7")
    assert shown.startswith(block)
    assert re.fullmatch(
        r"audio/a_1\.wav 和 audio/a_2\.wav 为同一个人，相似度为：0\.\d{6}，平均预测时间：\d+ms\n"
        r"按模型的校准，两段录音为同一个人的概率：\d+\.\d%\n",
        shown.removeprefix(block),
    )


def test_json_is_all_that_is_printed(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = paths
    infer_contrast.main([f"--audio_path1={first}", f"--audio_path2={second}", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report.pop("mean_time_ms") >= 0
    assert all(0 < seconds < 10 for seconds in report.pop("speech_s"))
    score = report.pop("score")
    assert report.pop("probability") == pytest.approx(FakeEncoder().probability(score))
    assert report == {
        "audio1_path": first,
        "audio2_path": second,
        "model_path": "models/resnet34.keras",
        "threshold": 0.8,
        "is_same_speaker": True,
    }
    assert 0.8 <= score <= 1


def test_a_score_at_the_threshold_is_the_same_person(
    paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--audio_path1={paths[0]}", f"--audio_path2={paths[1]}", "--json"]
    infer_contrast.main(options)
    score = json.loads(capsys.readouterr().out)["score"]
    infer_contrast.main([*options, f"--threshold={score!r}"])
    assert json.loads(capsys.readouterr().out)["is_same_speaker"]


def test_model_without_calibration_needs_a_threshold_and_tells_no_probability(
    paths: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEncoder, "is_calibrated", False)
    options = [f"--audio_path1={paths[0]}", f"--audio_path2={paths[1]}", "--threshold=0.7"]
    assert infer_contrast.main(options) == 0
    assert capsys.readouterr().out.endswith("ms\n")
    assert infer_contrast.main([*options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["probability"] is None


def test_unreadable_recording_is_told_before_the_model_is_loaded(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer_contrast, "SpeakerEncoder", None)
    with pytest.raises(AudioError, match=r"none\.wav: no such file"):
        infer_contrast.main([f"--audio_path1={paths[0]}", "--audio_path2=none.wav"])


@pytest.mark.parametrize("option", ["--threshold=1.5", "--threshold=x", "--audio_path3=x"])
def test_wrong_options_exit_with_2(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        infer_contrast.main([option])
    assert stop.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, "小于0.1%"), (0.0314, "3.1%"), (0.5, "50.0%"), (0.9987, "99.9%"), (1.0, "大于99.9%")],
)
def test_describe_probability(probability: float, text: str) -> None:
    assert infer_contrast.describe_probability(probability) == text


def test_sample_recordings_are_what_their_readme_says(root: Path) -> None:
    samples = [*(root / "audio").glob("?_?.wav"), root / "audio_db" / "李达康.wav"]
    samples.append(root / "audio_db" / "沙瑞金.wav")
    assert len(samples) == 6
    for path in samples:
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
            assert 3 <= file.getnframes() / 16000 <= 6

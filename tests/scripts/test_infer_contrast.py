import json
import re
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

import infer_contrast
from tests.support.fake_encoder import FakeEncoder, FakeHeader
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.errors import AudioError, DataListError
from utils.verification.calibration import Calibration


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer_contrast, "SpeakerEncoder", lambda *options: FakeEncoder())
    stored = Calibration(threshold=0.8, strict_threshold=0.9, slope=10.0, offset=-8.0)
    monkeypatch.setattr(infer_contrast, "read_header", lambda path: FakeHeader(path, stored))


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
    levels = report.pop("level_dbfs")
    assert len(levels) == 2
    assert all(-40 < level < 0 for level in levels)
    score = report.pop("score")
    assert report.pop("probability") == pytest.approx(FakeEncoder().probability(score))
    assert report == {
        "audio1_path": first,
        "audio2_path": second,
        "model_path": "models/resnet34.keras",
        "threshold": 0.8,
        "is_same_speaker": True,
        "differing_channels": [[], []],
    }
    assert 0.8 <= score <= 1


def test_channels_with_different_voices_are_noted(
    paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    voices = [synthetic_speech(speaker, 0, 3.0) for speaker in (0, 2, 0)]
    soundfile.write("call.wav", np.stack(voices[:2], axis=1), 16000)
    soundfile.write("stereo.wav", np.stack([voices[0], 0.5 * voices[2]], axis=1), 16000)
    options = ["--audio_path1=call.wav", "--audio_path2=stereo.wav"]
    assert infer_contrast.main([*options, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["differing_channels"] == [[1, 2], []]
    note = "note: call.wav: channels 1, 2 hold different voices, mixed here; choose one"
    assert shown.err.startswith(note)
    assert shown.err.count("\n") == 1
    assert infer_contrast.main([*options, "--channel=left"]) == 0
    assert "note" not in capsys.readouterr().err


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


# --- Many pairs -----------------------------------------------------------------------------------


def compare_list(lines: list[str], *options: str) -> list[list[str]]:
    Path("pairs.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    assert infer_contrast.main(["--trials=pairs.txt", "--scores=scores.tsv", *options]) == 0
    table = Path("scores.tsv").read_text(encoding="utf-8").splitlines()
    assert table[0] == "score\tis_same_speaker\tprobability\taudio1_path\taudio2_path\terror"
    return [line.split("\t") for line in table[1:]]


def test_list_of_pairs_has_the_scores_of_single_comparisons(
    paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    a1, a2, b1 = paths
    rows = compare_list([f"{a1} {a2}", f"0 {a1} {b1}", f"{b1}\t{b1}"])
    assert "written: scores.tsv (3 pairs, 0 of them left out)" in capsys.readouterr().out
    assert [row[1] for row in rows] == ["1", "0", "1"]
    for row in rows:
        infer_contrast.main([f"--audio_path1={row[3]}", f"--audio_path2={row[4]}", "--json"])
        report = json.loads(capsys.readouterr().out)
        assert float(row[0]) == pytest.approx(report["score"], abs=1e-6)
        assert float(row[2]) == pytest.approx(report["probability"], abs=1e-6)


def test_pairs_that_cannot_be_scored_keep_their_line(
    paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = compare_list([f"none.wav {paths[0]}", f"{paths[0]} {paths[1]}"])
    assert rows[0][:5] == ["", "", "", "none.wav", paths[0]]
    assert "none.wav: no such file" in rows[0][5]
    assert rows[1][1] == "1"
    shown = capsys.readouterr()
    assert "(2 pairs, 1 of them left out)" in shown.out
    assert "left out 1 of 3 clips" in shown.err


def test_paths_below_a_root_and_stored_embeddings(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--trials_root=audio", "--embeddings=e.npz"]
    first = compare_list(["a_1.wav b_1.wav"], *options)
    assert first[0][3:5] == ["audio/a_1.wav", "audio/b_1.wav"]
    monkeypatch.setattr(FakeEncoder, "embed_files", None)
    assert compare_list(["1 a_1.wav b_1.wav"], *options) == first


def test_list_without_calibration_tells_no_probability(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEncoder, "is_calibrated", False)
    ((score, _, probability, *_),) = compare_list([f"{paths[0]} {paths[1]}"], "--threshold=0.5")
    assert score and probability == ""


@pytest.mark.parametrize("line", ["a.wav", "2 a.wav b.wav", "1 a.wav b.wav c.wav"])
def test_wrong_line_in_a_list_of_pairs(paths: list[str], line: str) -> None:
    with pytest.raises(DataListError, match=r"pairs\.txt, line 1: received .*two paths"):
        compare_list([line])
    assert not Path("scores.tsv").exists()


def test_empty_list_of_pairs(paths: list[str]) -> None:
    with pytest.raises(DataListError, match="no pair in the list"):
        compare_list([])


def test_no_usable_recording_in_a_list_of_pairs(paths: list[str]) -> None:
    with pytest.raises(AudioError, match="none of the 2 clips can be used"):
        compare_list(["x.wav y.wav"])
    assert not Path("scores.tsv").exists()


def test_sample_recordings_are_what_their_readme_says(root: Path) -> None:
    samples = [*(root / "audio").glob("?_?.wav"), root / "audio_db" / "李达康.wav"]
    samples.append(root / "audio_db" / "沙瑞金.wav")
    assert len(samples) == 6
    for path in samples:
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
            assert 3 <= file.getnframes() / 16000 <= 6


def test_parts_of_recordings_are_compared(
    paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two speakers one after the other: the parts are compared, not the whole."""
    both = np.concatenate([synthetic_speech(0, 5, 3.0), synthetic_speech(2, 5, 3.0)])
    write_wav(Path("both.wav"), both)
    scores = []
    for segment in ("0-3", "3.0-5.9"):
        options = [f"--audio_path1={paths[0]}", "--audio_path2=both.wav", "--json"]
        assert infer_contrast.main([*options, f"--segment2={segment}"]) == 0
        scores.append(json.loads(capsys.readouterr().out)["score"])
    assert scores[0] > 0.8 > scores[1]
    with pytest.raises(AudioError, match=r"both\.wav: lasts 6\.00 s, expected the part 5-7 s"):
        infer_contrast.main([*options, "--segment2=5-7"])
    for option in ("--segment1=1-2", "--channel=left", "--strict_single_speaker"):
        with pytest.raises(SystemExit):
            infer_contrast.main(["--trials=x", option])
        assert "are for two recordings, not for a list" in capsys.readouterr().err

"""The whole chain on synthetic voices through the real scripts, each as a user starts it."""

import json
import re
from pathlib import Path

import pytest

import create_data
import eval as eval_script
import infer_contrast
import infer_recognition
import train
from tests.support.synthetic_voices import write_speech_folder
from tests.support.tiny_model import TRAIN_OPTIONS
from utils.errors import ModelError

MODEL = "--model_path=models/resnet34-2.keras"


@pytest.mark.slow
def test_from_recordings_to_a_recognised_speaker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_speech_folder(Path("speech"), num_speakers=4, num_utterances=4)
    clips = [f"speech/speaker_00/utterance_0{number}.wav" for number in range(4)]

    def run(main: object, *options: str, status: int = 0) -> str:
        assert callable(main)
        capsys.readouterr()
        assert main(list(options)) == status
        return capsys.readouterr().out

    # Lists: two speakers to train on, two strangers to measure with.
    shown = run(
        create_data.main, "--dataset=folders:speech", "--test_speakers=2", "--num_workers=1"
    )
    assert shown.endswith("num_classes: 2\n")
    assert len(Path("dataset/train_list.txt").read_text().splitlines()) == 8
    assert len(Path("dataset/test_list.txt").read_text().splitlines()) == 8

    shown = run(train.main, *TRAIN_OPTIONS, "--num_epoch=2", "--steps_per_epoch=2")
    assert re.search(r"^epoch 2: .*\beer 0\.\d+", shown, re.MULTILINE)

    shown = run(eval_script.main, MODEL, "--report_dir=report")
    assert re.search(r"当阈值为0\.\d{6}, 准确率最大，准确率为：0\.\d{6}", shown)
    assert "Model's threshold" in shown
    report = json.loads(Path("report/report.json").read_text(encoding="utf-8"))
    assert (report["num_speakers"], report["num_clips"]) == (2, 8)
    assert (report["num_target_trials"], report["num_nontarget_trials"]) == (12, 16)
    assert Path("report/det.png").exists()

    pair = [f"--audio_path1={clips[0]}", f"--audio_path2={clips[1]}", MODEL]
    answer = json.loads(run(infer_contrast.main, *pair, "--json"))
    assert answer["is_same_speaker"] == (answer["score"] >= answer["threshold"])
    itself = [f"--audio_path1={clips[0]}", f"--audio_path2={clips[0]}", MODEL]
    assert "为同一个人，相似度为：1.000000" in run(infer_contrast.main, *itself)

    shown = run(infer_recognition.main, "--register", "夜雨飘零", *clips[:3], MODEL)
    assert "已注册夜雨飘零" in shown
    run(infer_recognition.main, "--register", "李达康", "speech/speaker_02/utterance_00.wav", MODEL)
    shown = run(infer_recognition.main, "--recognize", clips[0], "--threshold=0.9", MODEL)
    assert "Loaded 夜雨飘零 audio.\n" in shown
    assert "识别说话的为：夜雨飘零，相似度为：" in shown


@pytest.mark.slow
def test_checkpoint_without_thresholds_can_be_measured_and_used_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = write_speech_folder(Path("speech"), num_speakers=2, num_utterances=2)
    Path("dataset").mkdir()
    lines = "".join(f"{path.as_posix()}\t{label}\n" for path, label in files)
    Path("dataset/train_list.txt").write_text(lines)
    options = ["--test_list_path=", "--num_epoch=2", "--steps_per_epoch=1"]
    assert train.main([*TRAIN_OPTIONS, *options]) == 0

    capsys.readouterr()
    assert eval_script.main([MODEL, "--list_path=dataset/train_list.txt"]) == 0
    shown = capsys.readouterr().out
    assert "EER: " in shown
    assert "Model's" not in shown

    path = str(files[0][0])
    with pytest.raises(ModelError, match=r"resnet34-2\.keras: holds no calibrated threshold"):
        infer_contrast.main([f"--audio_path1={path}", f"--audio_path2={path}", MODEL])
    with pytest.raises(ModelError, match="holds no calibrated threshold"):
        infer_recognition.main(["--recognize", path, MODEL])
    capsys.readouterr()
    options = [f"--audio_path1={path}", f"--audio_path2={path}", "--threshold=0.5", MODEL]
    assert infer_contrast.main(options) == 0
    assert "概率" not in capsys.readouterr().out

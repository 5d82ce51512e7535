"""The script itself: zhvoice as the baseline has it, its output, and a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

import create_data
from tests.support.script_runs import run_here
from tests.support.synthetic_voices import synthetic_speech, write_speech_folder
from utils.corpus.lists import read_data_list
from utils.errors import DataListError


def make_zhvoice(folder: Path, num_speakers: int, num_clips: int, duration_s: float = 1.5) -> None:
    """Writes mp3 files and infodata.json; the second clip of the first speaker is too short."""
    entries = []
    for speaker in range(num_speakers):
        for number in range(num_clips):
            index = f"zhset/{speaker}/{speaker}_{number}.mp3"
            path = folder / index
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, synthetic_speech(speaker, number, duration_s), 16000)
            milliseconds = 1200 if (speaker, number) == (0, 1) else int(duration_s * 1000)
            entries.append(
                {"index": index, "speaker": f"说话人{speaker}", "duration_ms": milliseconds}
            )
    (folder / "text").mkdir()
    text = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    (folder / "text" / "infodata.json").write_text(text + "\n", encoding="utf-8")


def test_zhvoice_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_zhvoice(tmp_path / "dataset" / "zhvoice", 3, 5)
    monkeypatch.chdir(tmp_path)
    assert create_data.main([]) == 0
    output = capsys.readouterr()
    assert output.out == (
        "-----------  Configuration Arguments -----------\n"
        "dataset: zhvoice:dataset/zhvoice\n"
        "list_dir: dataset\n"
        "------------------------------------------------\n"
        "dataset/train_list.txt: 13 clips of 3 speakers\n"
        "dataset/test_list.txt: 1 clips of 1 speakers\n"
        "speakers: 3 (0 of them only in the test list)\n"
        "clips: 14\n"
        "hours: 0.01\n"
        "rejected: 1 (reasons in dataset/rejected.tsv)\n"
        "  too short: 1\n"
        "num_classes: 3\n"
    )
    assert "14/14" in output.err
    lines = Path("dataset/train_list.txt").read_bytes().decode().splitlines()
    assert lines[0] == "dataset/zhvoice/zhset/0/0_2.wav\t0"
    assert lines[-1] == "dataset/zhvoice/zhset/2/2_4.wav\t2"
    assert Path("dataset/test_list.txt").read_bytes() == b"dataset/zhvoice/zhset/0/0_0.wav\t0\n"
    info = soundfile.info("dataset/zhvoice/zhset/2/2_4.wav")
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    assert Path("dataset/zhvoice/zhset/2/2_4.mp3").exists()
    assert not Path("dataset/zhvoice/zhset/0/0_1.wav").exists()


def test_missing_zhvoice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataListError, match="get the data set zhvoice from"):
        create_data.main([])
    assert list(tmp_path.iterdir()) == []


def test_missing_zhvoice_is_one_line_in_a_shell(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(root / "create_data.py") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: dataset/zhvoice/text/infodata.json not found")


def test_strangers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_speech_folder(tmp_path / "data", 5, 2)
    lists = tmp_path / "lists"
    options = ["--dataset", f"folders:{tmp_path / 'data'}", "--list_dir", str(lists)]
    assert create_data.main([*options, "--test_speakers", "0.4"]) == 0
    output = capsys.readouterr()
    assert "speakers: 5 (2 of them only in the test list)" in output.out
    assert "num_classes: 3" in output.out
    assert "warning" not in output.err
    assert {item.label for item in read_data_list(lists / "test_list.txt")} == {3, 4}
    assert create_data.main([*options, "--test_every", "100"]) == 0
    assert "warning: no speaker has two clips in the test list" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--dataset", "data"],
        ["--speaker_level", "0"],
        ["--speaker_level", "two"],
        ["--test_speakers", "1.5"],
        ["--test_speakers", "-1"],
        ["--test_speakers", "many"],
        ["--min_duration_s", "-1"],
        ["--test_every", "0"],
    ],
)
def test_bad_options(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        create_data.main(options)
    assert caught.value.code == 2
    assert f"argument {options[0]}: received '{options[1]}', expected" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_half_way_it_goes_on_and_redoes_nothing(tmp_path: Path, root: Path) -> None:
    zhvoice = tmp_path / "dataset" / "zhvoice"
    make_zhvoice(zhvoice, 8, 25)
    command = [sys.executable, str(root / "create_data.py"), "--num_workers", "2"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while len(list(zhvoice.rglob("[0-9]*.wav"))) < 20 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    time.sleep(1.0)  # the workers notice and end
    finished = {path: path.stat().st_mtime_ns for path in zhvoice.rglob("[0-9]*.wav")}
    assert 20 <= len(finished) < 199, "killed too late to show anything"
    assert not (tmp_path / "dataset" / "train_list.txt").exists()
    for path in finished:
        assert soundfile.info(path).duration > 1.4

    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "clips: 199" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(list(zhvoice.rglob("[0-9]*.wav"))) == 199
    assert not list(zhvoice.rglob(".*")), "temporary files are left"

    lists = (tmp_path / "dataset" / "train_list.txt").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in zhvoice.rglob("*.wav")}
    subprocess.run([*command, "--delete_source"], cwd=tmp_path, capture_output=True, check=True)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert [path.name for path in zhvoice.rglob("*.mp3")] == ["0_1.mp3"]  # was never converted
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "dataset" / "train_list.txt").read_bytes() == lists

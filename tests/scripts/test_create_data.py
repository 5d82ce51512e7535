"""The script itself: zhvoice as the baseline has it, its output, and a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import create_data
from tests.support.script_runs import run_here
from tests.support.synthetic_voices import synthetic_speech, write_speech_folder
from utils.corpus.lists import read_training_lists
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
    read = lists / "train_list.txt", lists / "test_list.txt"
    assert {item.label for item in read_training_lists(*read)[1]} == {3, 4}
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
    make_zhvoice(zhvoice, 6, 11)
    command = [sys.executable, str(root / "create_data.py"), "--num_workers", "2"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while len(list(zhvoice.rglob("[0-9]*.wav"))) < 12 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    time.sleep(1.0)  # the workers notice and end
    finished = {path: path.stat().st_mtime_ns for path in zhvoice.rglob("[0-9]*.wav")}
    assert 12 <= len(finished) < 65, "killed too late to show anything"
    assert not (tmp_path / "dataset" / "train_list.txt").exists()
    for path in finished:
        assert soundfile.info(path).duration > 1.4

    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "clips: 65" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(list(zhvoice.rglob("[0-9]*.wav"))) == 65
    assert not list(zhvoice.rglob(".*")), "temporary files are left"

    lists = (tmp_path / "dataset" / "train_list.txt").read_bytes()
    wavs = set(zhvoice.rglob("*.wav"))
    subprocess.run([*command, "--delete_source"], cwd=tmp_path, capture_output=True, check=True)
    assert set(zhvoice.rglob("*.wav")) == wavs
    assert [path.name for path in zhvoice.rglob("*.mp3")] == ["0_1.mp3"]  # was never converted
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "dataset" / "train_list.txt").read_bytes() == lists


def test_one_speaker_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_speech_folder(tmp_path / "data", 1, 3)
    options = ["--dataset", f"folders:{tmp_path / 'data'}", "--list_dir", str(tmp_path / "lists")]
    assert create_data.main(options) == 0
    assert "warning: one speaker only: train.py needs two or more" in capsys.readouterr().err


def test_channel_and_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speech = [synthetic_speech(number, duration_s=2.0) for number in (0, 1)]
    pause = np.zeros((16000, 2), np.float32)
    for number in (0, 1):
        path = tmp_path / "data" / str(number) / "call.wav"
        path.parent.mkdir(parents=True)
        voices = np.stack(speech[:: 1 - 2 * number], axis=1)
        soundfile.write(path, np.concatenate([pause, voices, pause]), 16000)
    options = ["--dataset", f"folders:{tmp_path / 'data'}", "--list_dir", str(tmp_path / "lists")]
    options += ["--channel", "right", "--trim_silence"]
    with pytest.raises(DataListError, match="channel right, trim_silence: changes what is conv"):
        create_data.main(options)
    wavs = tmp_path / "wavs"
    assert create_data.main([*options, "--wav_dir", str(wavs)]) == 0
    assert "channel: right\n" in capsys.readouterr().out
    for number in (0, 1):
        written, _ = soundfile.read(wavs / "data" / str(number) / "call.wav")
        assert 1.9 < len(written) / 16000 < 2.3
        start = int(np.argmax(np.correlate(written, speech[1 - number][8000:16000], "valid")))
        part = written[start : start + 8000]
        assert np.corrcoef(part, speech[1 - number][8000:16000])[0, 1] > 0.99


@pytest.mark.slow
def test_a_source_goes_when_its_wav_sounds_the_same(tmp_path: Path, root: Path) -> None:
    make_zhvoice(tmp_path / "dataset" / "zhvoice", 2, 2, duration_s=2.0)
    voices = [synthetic_speech(number, duration_s=2.0) for number in (5, 6)]
    call = tmp_path / "dataset" / "zhvoice" / "zhset" / "1" / "1_0.mp3"
    soundfile.write(call, np.stack(voices, axis=1), 16000)
    command = [sys.executable, str(root / "create_data.py"), "--delete_source"]
    command += ["--num_workers", "1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "  conversion not verified: 1" in result.stdout
    kept = sorted(path.name for path in (tmp_path / "dataset").rglob("*.mp3"))
    assert kept == ["0_1.mp3", "1_0.mp3"]  # too short, and a call of two people
    reasons = (tmp_path / "dataset" / "rejected.tsv").read_text(encoding="utf-8")
    assert "1_0.mp3\tconversion not verified: " in reasons

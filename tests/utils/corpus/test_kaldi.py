"""Folders of Kaldi."""

from pathlib import Path

import pytest

from utils.corpus.clip_lists import read_clips
from utils.corpus.kaldi import read_recordings
from utils.errors import DataListError


def make_folder(folder: Path, wav_scp: str, utt2spk: str = "u1 tom\nu2 ann\n") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "wav.scp").write_text(wav_scp, encoding="utf-8")
    (folder / "utt2spk").write_text(utt2spk, encoding="utf-8")
    return folder


def test_recordings_and_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b 2.wav").touch()
    folder = make_folder(tmp_path / "train", f"u1 {tmp_path}/train/a.wav\nu2 b 2.wav\n")
    assert list(read_recordings(folder)) == [
        ("u1", "a.wav", "tom"),
        ("u2", f"{tmp_path.as_posix()}/b 2.wav", "ann"),
    ]
    clips = read_clips(folder)
    assert [(Path(clip.path).name, clip.label) for clip in clips] == [("a.wav", 0), ("b 2.wav", 1)]


@pytest.mark.parametrize("command", ["sph2pipe -f wav a.sph |", "| cat", "flac -c -d -s a.flac |"])
def test_commands_are_not_run(tmp_path: Path, command: str) -> None:
    folder = make_folder(tmp_path / "train", f"u1 a.wav\nu2 {command}\n")
    with pytest.raises(DataListError, match=r"wav\.scp, line 2: .*commands are not run"):
        list(read_recordings(folder))


def test_utterance_without_a_speaker(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "train", "u3 a.wav\n")
    with pytest.raises(DataListError, match="no speaker for u3"):
        list(read_recordings(folder))


def test_line_with_one_field(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "train", "u1 a.wav\n", "u1\n")
    with pytest.raises(DataListError, match=r"utt2spk, line 1: .*an utterance and its speaker"):
        list(read_recordings(folder))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"utt2spk: no such list, expected wav\.scp"):
        list(read_recordings(tmp_path))


def test_segments_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "train", "r1 a.wav\n")
    (folder / "segments").write_text("u1 r1 0.0 1.0\n")
    with pytest.raises(DataListError, match="parts of recordings are not read"):
        list(read_recordings(folder))

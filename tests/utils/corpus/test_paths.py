"""Paths of other systems and places."""

import os
from pathlib import Path

import pytest

from utils.corpus.paths import local_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "speech" / "tom").mkdir(parents=True)
    (tmp_path / "speech" / "tom" / "1.wav").touch()
    return tmp_path / "speech"


def test_relative_paths_get_slashes(folder: Path) -> None:
    assert local_path("tom\\1.wav", folder) == "tom/1.wav"
    assert local_path("tom/1 a.wav", folder) == "tom/1 a.wav"


def test_absolute_paths_in_the_folder_become_relative(folder: Path) -> None:
    assert local_path(f"{folder.as_posix()}/tom/2.wav", folder) == "tom/2.wav"


@pytest.mark.parametrize("root", ["D:\\data\\", "/home/ann/", "d:/", "D:\\speech\\speech\\.."])
def test_a_data_set_that_was_moved(folder: Path, root: str) -> None:
    if root.endswith(".."):
        assert local_path(f"{root}\\tom\\1.wav", folder) == "D:/speech/speech/../tom/1.wav"
    else:
        assert local_path(f"{root}speech/tom/1.wav", folder) == "tom/1.wav"


def test_others_stay(folder: Path) -> None:
    assert local_path("D:\\data\\tom\\1.wav", folder) == "D:/data/tom/1.wav"
    assert local_path("/data/tom/1.wav", folder) == "/data/tom/1.wav"
    assert local_path("/data/speech/tom/2.wav", folder) == "/data/speech/tom/2.wav"


@pytest.mark.skipif(os.name == "nt", reason="drives are folders there")
def test_drives_of_the_linux_subsystem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: path.as_posix() == "/mnt/d/a/b.wav")
    assert local_path("D:\\a\\b.wav") == "/mnt/d/a/b.wav"

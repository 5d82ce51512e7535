"""Turns in files: read from RTTM, written for people and programs."""

import json
from pathlib import Path

import pytest

from utils.diarization.turns import (
    Turn,
    format_json,
    format_labels,
    format_rttm,
    format_srt,
    read_rttm,
    speaking_seconds,
)
from utils.errors import DataListError

TURNS = [Turn(0.5, 2.0, "李 达康", 0.9), Turn(1.75, 3601.25, "Speaker 2")]


def test_rttm_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.rttm"
    path.write_text(format_rttm(TURNS, "a b"), encoding="utf-8")
    assert path.read_text(encoding="utf-8").splitlines()[0] == (
        "SPEAKER a_b 1 0.500 1.500 <NA> <NA> 李_达康 <NA> <NA>"
    )
    assert read_rttm(path) == {"a_b": [Turn(0.5, 2.0, "李_达康"), Turn(1.75, 3601.25, "Speaker_2")]}


def test_rttm_of_several_recordings_is_sorted_and_has_other_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.rttm"
    path.write_text(
        ";; a comment\nSPKR-INFO a 1 <NA> <NA> <NA> unknown x <NA> <NA>\n\n"
        "SPEAKER b 1 1 2 <NA> <NA> x <NA> <NA>\nSPEAKER a 1 3 1 <NA> <NA> x\n"
        "SPEAKER a 1 0 1 <NA> <NA> y <NA> <NA>\n",
        encoding="utf-8",
    )
    found = read_rttm(path)
    assert list(found) == ["b", "a"]
    assert [turn.speaker for turn in found["a"]] == ["y", "x"]


@pytest.mark.parametrize(
    "line",
    ["SPEAKER a 1 0", "SPEAKER a 1 x 1 - - n", "SPEAKER a 1 0 -1 - - n", "SPEAKER a 1 nan 1 - - n"],
)
def test_lines_that_are_no_rttm(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.rttm"
    path.write_text(f"\n{line}\n", encoding="utf-8")
    with pytest.raises(DataListError, match="line 2: received 'SPEAKER a 1"):
        read_rttm(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.rttm"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataListError, match="expected an RTTM file"):
        read_rttm(path)


def test_other_formats() -> None:
    assert format_labels(TURNS[:1]) == "0.500\t2.000\t李 达康\n"
    assert format_srt(TURNS) == (
        "1\n00:00:00,500 --> 00:00:02,000\n李 达康\n\n"
        "2\n00:00:01,750 --> 01:00:01,250\nSpeaker 2\n\n"
    )
    report = json.loads(format_json(TURNS, "a.wav", 3602.0, 0.25))
    assert report["speakers"] == {"李 达康": 1.5, "Speaker 2": 3599.5}
    assert report["turns"][1] == {
        "start_s": 1.75, "end_s": 3601.25, "speaker": "Speaker 2", "score": None,
    }  # fmt: skip
    assert (report["duration_s"], report["overlap_share"]) == (3602, 0.25)


def test_speaking_seconds_follow_the_first_turns() -> None:
    turns = [Turn(0, 1, "b"), Turn(1, 2, "a"), Turn(3, 5, "b")]
    assert list(speaking_seconds(turns).items()) == [("b", 3), ("a", 1)]

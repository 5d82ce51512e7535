"""Names of found speakers, the speech to enrol them, what is printed and written."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from utils.diarization.diarizer import Diarization
from utils.diarization.enrolment import Wish, find_label, parse_wish, speech_of
from utils.diarization.names import name_speakers
from utils.diarization.report import Report, plan_outputs, turn_time, write_outputs
from utils.diarization.timeline import clock_time, plot_timeline
from utils.diarization.turns import Turn
from utils.errors import VoiceprintError

EMBEDDINGS = np.eye(4, dtype=np.float32)[:3]
FOUND = Diarization(
    [Turn(0, 2, "1", 0.8), Turn(1, 4, "2", 0.9), Turn(3.5, 5, "3", 0.7), Turn(6, 7, "1", 0.6)],
    EMBEDDINGS,
    8.0,
    0.2,
)


def rank(embedding: np.ndarray) -> list[tuple[str, float]]:
    """Tom is speaker 2 and, less so, speaker 3."""
    score = float(np.array([0.1, 0.9, 0.6, 0.0]) @ embedding)
    return [("Tom", score), ("Ann", -0.5)]


def test_enrolled_people_are_named_others_numbered() -> None:
    turns, speakers = name_speakers(FOUND, rank, 0.7)
    assert [turn.speaker for turn in turns] == ["说话人1", "Tom", "说话人3", "说话人1"]
    assert [(s.label, s.numbers, s.score) for s in speakers] == [
        ("说话人1", (0,), pytest.approx(0.1)),
        ("Tom", (1,), pytest.approx(0.9)),
        ("说话人3", (2,), pytest.approx(0.6)),
    ]


def test_two_groups_of_one_enrolled_person_are_one() -> None:
    turns, speakers = name_speakers(FOUND, rank, 0.5)
    assert [(t.speaker, t.start_s, t.end_s) for t in turns][1] == ("Tom", 1, 5)
    assert turns[1].score == 0.9
    assert [(s.label, s.numbers) for s in speakers] == [("说话人1", (0,)), ("Tom", (1, 2))]


def test_without_enrolled_people_there_are_numbers_alone() -> None:
    _, speakers = name_speakers(FOUND, None, 0.5)
    assert [(s.label, s.score) for s in speakers] == [
        ("说话人1", None), ("说话人2", None), ("说话人3", None),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["Speaker 2", "speaker2", "说话人2", "2", "说话人 2"])
def test_speakers_to_enrol_are_named_in_any_language(text: str) -> None:
    turns, _ = name_speakers(FOUND, None, 0.5)
    assert find_label(Wish(text, "x"), turns) == "说话人2"
    with pytest.raises(VoiceprintError, match="nobody is called so, expected one of: 说话人1"):
        find_label(Wish("Speaker 4", "x"), turns)


@pytest.mark.parametrize("text", ["Speaker 2", "=Tom", "2=", "2=a/b"])
def test_wishes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(VoiceprintError):
        parse_wish(text)
    assert parse_wish(" Speaker 2 = Tom ") == Wish("Speaker 2", "Tom")


def test_speech_to_enrol_is_the_longest_that_is_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    seconds = np.repeat(np.arange(80) / 100, 16000).astype(np.float32)
    soundfile.write(path, seconds, 16000, subtype="FLOAT")
    turns = [Turn(2, 5, "x"), Turn(4, 6, "y"), Turn(10, 70, "x"), Turn(15, 20, "y")]
    speech = speech_of(Wish("y", "Y"), turns, path)
    np.testing.assert_allclose(np.unique(speech), [0.05])  # 5 to 6 s
    speech = speech_of(Wish("x", "X"), turns, path)
    assert len(speech) == 30 * 16000
    assert np.unique(np.round(speech * 100)).tolist() == list(range(20, 50))
    with pytest.raises(VoiceprintError, match="speaks only while others do"):
        speech_of(Wish("y", "Y"), [Turn(0, 9, "x"), Turn(3, 4, "y")], path)


def test_report_has_a_line_a_turn_and_a_line_a_speaker() -> None:
    report = Report("a.wav", 8.0, 0.2, *name_speakers(FOUND, rank, 0.7))
    assert report.lines() == [
        "0:00:00.00  0:00:02.00  说话人1  0.800",
        "0:00:01.00  0:00:04.00  Tom  0.900",
        "0:00:03.50  0:00:05.00  说话人3  0.700",
        "0:00:06.00  0:00:07.00  说话人1  0.600",
        "a.wav：共3个说话人",
        "说话人1：3.0秒，40.0%，2段，与声纹库最高相似度0.100",
        "Tom：3.0秒，40.0%，1段，与声纹库最高相似度0.900",
        "说话人3：1.5秒，20.0%，1段，与声纹库最高相似度0.600",
    ]
    assert turn_time(3661.239) == "1:01:01.24"


def test_many_overlaps_give_a_warning() -> None:
    report = Report("a.wav", 8.0, 0.612, *name_speakers(FOUND, rank, 0.7))
    assert report.lines()[-1].startswith("警告：61%的语音中有多人同时说话")
    assert json.loads(report.json())["overlap_share"] == 0.612


def test_outputs_of_one_and_of_several_recordings(tmp_path: Path) -> None:
    wishes = {"rttm": str(tmp_path / "t.rttm"), "srt": f"{tmp_path}/", "labels": None}
    assert plan_outputs(["a.wav"], wishes) == {
        "a.wav": [("rttm", tmp_path / "t.rttm"), ("srt", tmp_path / "a.srt")]
    }
    folder = {"rttm": str(tmp_path / "out")}
    planned = plan_outputs(["x/a.wav", "b.wav"], folder)
    assert planned["x/a.wav"] == [("rttm", tmp_path / "out" / "a.rttm")]
    with pytest.raises(VoiceprintError, match="would both be written"):
        plan_outputs(["x/a.wav", "y/a.mp3"], folder)


def test_files_are_written_whole(tmp_path: Path) -> None:
    report = Report("a.wav", 8.0, 0.2, *name_speakers(FOUND, rank, 0.7))
    kinds = {"rttm": ".rttm", "srt": ".srt", "labels": ".txt", "plot": ".png"}
    write_outputs(report, [(kind, tmp_path / f"a{suffix}") for kind, suffix in kinds.items()])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.rttm").read_text(encoding="utf-8").count("SPEAKER a 1") == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.rttm", "a.srt", "a.txt"]
    (tmp_path / "file").touch()
    with pytest.raises(VoiceprintError, match="cannot be written"):
        write_outputs(report, [("rttm", tmp_path / "file" / "a.rttm")])


@pytest.mark.slow
def test_timeline_of_many_speakers_and_of_none(tmp_path: Path) -> None:
    turns = [Turn(number, number + 1.5, f"说话人{number}") for number in range(50)]
    plot_timeline(turns, 60, tmp_path / "a.png", "a")
    plot_timeline([], 60, tmp_path / "b.png", "b")
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size
    assert [clock_time(s) for s in (0, 61, 3725)] == ["0:00", "1:01", "1:02:05"]

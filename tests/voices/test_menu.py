import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech
from utils.arrays import FloatArray
from utils.errors import DatabaseError, MicrophoneError
from voices import menu
from voices.folder import FolderVoiceStore
from voices.menu import Menu, choose_if_exists, describe_match

CHOOSE = "请选择功能，0为注册音频到声纹库，1为执行声纹识别："
ENTER = "按下回车键开机录音，录音3秒中："
RECORDED = "开始录音......\n录音已结束!\n"
NAME = "请输入该音频用户的名称："

Run = Callable[..., str]


def register(
    database: FolderVoiceStore, name: str, waveforms: list[FloatArray], replace: bool
) -> list[Path]:
    return (database.replace if replace else database.add)(name, *waveforms)


def recognise(database: FolderVoiceStore, waveform: FloatArray) -> tuple[str | None, float]:
    name, score = database.rank(FakeEncoder().embed_waveform(waveform))[0]
    return (name if score >= FakeEncoder.strict_threshold else None), score


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the menu with answers and microphone recordings; returns all that a terminal shows."""

    def run_menu(
        answers: list[str], recordings: Sequence[FloatArray | MicrophoneError] = ()
    ) -> str:
        left, sounds = list(answers), list(recordings)

        def answer(prompt: str) -> str:
            print(prompt, end="")
            if not left:
                raise EOFError
            print(left[0])
            return left.pop(0)

        def record(
            duration_s: float, on_start: Callable[[], None], **options: object
        ) -> FloatArray:
            assert options == {"microphone": None, "on_block": None}
            assert duration_s == 3
            sound = sounds.pop(0)
            if isinstance(sound, MicrophoneError):
                raise sound
            on_start()
            return sound

        monkeypatch.setattr("builtins.input", answer)
        monkeypatch.setattr(menu, "record", record)
        database = FolderVoiceStore(tmp_path, FakeEncoder())
        database.load()
        capsys.readouterr()
        Menu(database, register, partial(recognise, database)).run()
        assert not left
        assert not sounds
        return capsys.readouterr().out

    return run_menu


def voice(speaker: int, utterance: int = 0) -> FloatArray:
    return synthetic_speech(speaker, utterance, 3.0)


def enrolled(folder: Path) -> dict[str, list[str]]:
    database = FolderVoiceStore(folder)
    return {name: [path.name for path in database.recordings(name)] for name in database.names()}


def test_enrol_and_recognise_word_for_word(run: Run) -> None:
    shown = run(["0", "", "夜雨飘零", "1", "", "q"], [voice(0), voice(0, 1)])
    assert re.sub(r"0\.[89]\d{5}", "SCORE", shown) == (
        f"{CHOOSE}0\n{ENTER}\n{RECORDED}{NAME}夜雨飘零\n"
        f"{CHOOSE}1\n{ENTER}\n{RECORDED}识别说话的为：夜雨飘零，相似度为：SCORE\n{CHOOSE}q\n"
    )


def test_stranger_is_refused(run: Run) -> None:
    assert "声纹库中没有匹配的用户，最高相似度仅为：" in run(
        ["0", "", "甲", "1", "", "q"], [voice(0), voice(2)]
    )


def test_end_of_input_leaves_at_every_question(run: Run, tmp_path: Path) -> None:
    for answers, sounds in [
        ([], 0),
        (["0"], 0),
        (["0", ""], 1),
        (["0", "", "甲"], 1),
        (["0", "", "甲"], 1),
        (["1", ""], 1),
        (["3"], 0),
        (["3", "甲"], 0),
    ]:
        assert run(answers, [voice(0)] * sounds).endswith("\n")
    assert enrolled(tmp_path) == {"甲": ["甲.wav"]}


def test_unknown_key_names_the_others(run: Run) -> None:
    assert (
        run(["x", " Ｑ"])
        == f"{CHOOSE}x\n其他功能：2为列出用户，3为删除用户，q为退出\n{CHOOSE} Ｑ\n"
    )


def test_unusable_recordings_are_refused_with_the_reason_and_tried_again(
    run: Run, tmp_path: Path
) -> None:
    short = np.concatenate([synthetic_speech(0, 0, 0.3), np.zeros(43200, np.float32)])
    clipped = np.clip(voice(0) * 8, -1, 1)
    silence = np.zeros(48000, np.float32)
    shown = run(["0", "", "", "", "", "甲", "q"], [silence, short, clipped, voice(0)])
    assert shown.count("录音不可用：") == 3
    assert shown.count("请重新录音\n" + ENTER) == 3
    assert enrolled(tmp_path) == {"甲": ["甲.wav"]}


def test_q_instead_of_a_recording_leads_back(run: Run, tmp_path: Path) -> None:
    assert run(["0", "q", "q"]) == f"{CHOOSE}0\n{ENTER}q\n{CHOOSE}q\n"
    assert enrolled(tmp_path) == {}


def test_unusable_name_is_asked_again(run: Run, tmp_path: Path) -> None:
    shown = run(["0", "", "../甲", "", "甲", "q"], [voice(0)])
    assert shown.count(NAME) == 3
    assert shown.count("名称不可用：") == 2
    assert enrolled(tmp_path) == {"甲": ["甲.wav"]}


@pytest.mark.parametrize(("answer", "num_recordings"), [("a", 2), ("R", 1), ("", 1), ("x", 1)])
def test_existing_name_asks(run: Run, tmp_path: Path, answer: str, num_recordings: int) -> None:
    run(["0", "", "甲", "q"], [voice(0)])
    before = (tmp_path / "甲.wav").read_bytes()
    shown = run(["0", "", "甲", answer, "q"], [voice(1)])
    assert "甲已在声纹库中（1段录音），输入a追加录音，输入r替换原有录音，直接回车取消：" in shown
    assert len(enrolled(tmp_path)["甲"]) == num_recordings
    assert ((tmp_path / "甲.wav").read_bytes() != before) == (answer == "R")
    assert ("已取消" in shown) == (answer in ("", "x"))


def test_list(run: Run) -> None:
    shown = run(["0", "", "甲", "0", "", "甲", "a", "2", "q"], [voice(0), voice(0, 1)])
    assert "甲（2段录音）\n声纹库中共有1个用户\n" in shown


def test_delete_asks_and_says_what_went(run: Run, tmp_path: Path) -> None:
    run(["0", "", "甲", "q"], [voice(0)])
    assert "已取消" in run(["3", "甲", "n", "q"])
    assert enrolled(tmp_path) != {}
    assert f"已删除：{tmp_path / '甲.wav'}\n" in run(["3", "甲", "y", "q"])
    assert enrolled(tmp_path) == {}
    assert "声纹库中没有甲" in run(["3", "甲", "q"])


def test_recognition_needs_somebody(run: Run) -> None:
    assert "声纹库中没有用户，请先注册" in run(["1", "q"])


def test_missing_microphone_is_told_and_the_menu_goes_on(run: Run) -> None:
    shown = run(["0", "", "2", "q"], [MicrophoneError("no microphone found")])
    assert "无法录音：no microphone found\n" + CHOOSE in shown


def test_errors_are_told_and_the_menu_goes_on(run: Run, tmp_path: Path) -> None:
    (tmp_path / "甲").write_text("a file where a folder would go")
    shown = run(["0", "", "甲", "0", "", "甲", "a", "q"], [voice(0), voice(0)])
    assert "操作失败：" in shown


def test_describe_match_is_the_seeds_line() -> None:
    assert describe_match("夜雨飘零", 0.9204339) == "识别说话的为：夜雨飘零，相似度为：0.920434"


def test_choose_if_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = FolderVoiceStore(tmp_path, FakeEncoder())
    assert choose_if_exists(database, "甲", "ask") == "add"
    assert choose_if_exists(database, "甲", "replace") == "add"
    database.add("甲", voice(0))
    assert choose_if_exists(database, "甲", "replace") == "replace"
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(DatabaseError, match=r"甲 is enrolled already .* --if_exists"):
        choose_if_exists(database, "甲", "ask")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: "r")
    assert choose_if_exists(database, "甲", "ask") == "replace"

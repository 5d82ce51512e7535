import sys
from pathlib import Path

import pytest

import infer_recognition
import move_voices
from tests.support.fake_encoder import FakeEncoder, FakeHeader
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.audio.microphone import Microphone
from utils.errors import AudioError, DatabaseError, MicrophoneError
from utils.verification.calibration import Calibration
from voices import menu
from voices.sql.store import SqlVoiceStore

BLOCK = (
    "-----------  Configuration Arguments -----------\n"
    "audio_db: audio_db\n"
    "model_path: models/resnet34.keras\n"
    "threshold: 0.8\n"
    "------------------------------------------------\n"
    "==> successfully loading model models/resnet34.keras.\n\n"
)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with two enrolled speakers and files of them and of a stranger; a fake model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(infer_recognition, "SpeakerEncoder", lambda *options: FakeEncoder())
    stored = Calibration(threshold=0.5, strict_threshold=0.8, slope=10.0, offset=-5.0)
    monkeypatch.setattr(infer_recognition, "read_header", lambda path: FakeHeader(path, stored))
    for name, speaker in [("audio_db/李达康", 0), ("audio_db/沙瑞金", 1), ("stranger", 2)]:
        write_wav(Path(f"{name}.wav"), synthetic_speech(speaker, 0, 3.0))
    write_wav(Path("known.wav"), synthetic_speech(1, 1, 3.0))


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_seeds_session(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["0", "", "夜雨飘零", "1", "", "q"]

    def answer(prompt: str) -> str:
        print(prompt + answers[0])
        return answers.pop(0)

    def record(duration_s: float, on_start: object, **options: object) -> object:
        assert callable(on_start)
        on_start()
        return synthetic_speech(4, 0, duration_s)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(menu, "record", record)
    assert infer_recognition.main([]) == 0
    assert capsys.readouterr().out == (
        BLOCK + "Loaded 李达康 audio.\n"
        "Loaded 沙瑞金 audio.\n"
        "请选择功能，0为注册音频到声纹库，1为执行声纹识别：0\n"
        "按下回车键开机录音，录音3秒中：\n"
        "开始录音......\n"
        "录音已结束!\n"
        "请输入该音频用户的名称：夜雨飘零\n"
        "请选择功能，0为注册音频到声纹库，1为执行声纹识别：1\n"
        "按下回车键开机录音，录音3秒中：\n"
        "开始录音......\n"
        "录音已结束!\n"
        "识别说话的为：夜雨飘零，相似度为：1.000000\n"
        "请选择功能，0为注册音频到声纹库，1为执行声纹识别：q\n"
    )
    assert Path("audio_db/夜雨飘零.wav").exists()


def test_microphones_are_listed_without_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer_recognition, "read_header", None)
    devices = [Microphone(2, "USB", 44100, 1, True), Microphone(5, "Headset", 8000, 1, False)]
    monkeypatch.setattr(menu, "list_microphones", lambda: devices)
    assert infer_recognition.main(["--list_microphones"]) == 0
    assert lines(capsys) == ["2：USB（44100 Hz） *", "5：Headset（8000 Hz）", "共有2个麦克风"]


def test_the_microphone_that_is_named_records(monkeypatch: pytest.MonkeyPatch) -> None:
    named = []

    def record(*positional: object, **options: object) -> object:
        named.append(options["microphone"])
        raise MicrophoneError("refused")

    answers = iter(["0", "", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    monkeypatch.setattr(menu, "record", record)
    assert infer_recognition.main(["--microphone", "headset"]) == 0
    assert named == ["headset"]


def test_recognize_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert infer_recognition.main(["--recognize", "known.wav"]) == 0
    shown = lines(capsys)
    assert shown[-3:-1] == ["Loaded 李达康 audio.", "Loaded 沙瑞金 audio."]
    assert shown[-1].startswith("识别说话的为：沙瑞金，相似度为：0.9")


def test_recognize_refuses_a_stranger_at_the_strict_threshold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert infer_recognition.main(["--recognize", "stranger.wav"]) == 1
    assert lines(capsys)[-1].startswith("声纹库中没有匹配的用户，最高相似度仅为：0.")
    assert infer_recognition.main(["--recognize", "stranger.wav", "--threshold=-1"]) == 0
    assert "threshold: -1.0\n" in capsys.readouterr().out


def test_recognize_without_speakers_makes_up_no_score() -> None:
    with pytest.raises(DatabaseError, match="nobody is enrolled in empty"):
        infer_recognition.main(["--recognize", "known.wav", "--audio_db=empty"])


def test_unusable_recordings_are_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Path("audio_db/broken.wav").write_bytes(b"no audio")
    assert infer_recognition.main(["--recognize", "known.wav"]) == 0
    assert "warning: audio_db/broken.wav is left out: " in capsys.readouterr().err


def test_register_files(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--register", "甲", "stranger.wav", "stranger.wav"]
    assert infer_recognition.main(options) == 0
    assert lines(capsys)[-1].startswith("已注册甲： audio_db/甲.wav audio_db/甲/")
    assert infer_recognition.main(["--recognize", "stranger.wav"]) == 0
    assert lines(capsys)[-1].startswith("识别说话的为：甲，")


def test_register_an_enrolled_name() -> None:
    options = ["--register", "李达康", "known.wav"]
    with pytest.raises(DatabaseError, match="李达康 is enrolled already"):
        infer_recognition.main(options)
    assert not Path("audio_db/李达康").exists()
    infer_recognition.main([*options, "--if_exists=add"])
    assert len(list(Path("audio_db/李达康").iterdir())) == 1
    infer_recognition.main([*options, "--if_exists=replace"])
    assert not Path("audio_db/李达康").exists()
    assert Path("audio_db/李达康.wav").read_bytes() == Path("known.wav").read_bytes()


def test_a_name_that_looks_like_an_enrolled_one(capsys: pytest.CaptureFixture[str]) -> None:
    infer_recognition.main(["--register", "Ann", "known.wav"])
    assert capsys.readouterr().err == ""
    infer_recognition.main(["--register", "Аnn", "known.wav"])  # in Cyrillic
    assert capsys.readouterr().err == "note: Аnn looks like Ann, but is another name\n"


@pytest.mark.parametrize(
    ("name", "path", "error"),
    [("../甲", "known.wav", DatabaseError), ("甲", "none.wav", AudioError)],
)
def test_register_tells_mistakes_before_the_model_is_loaded(
    name: str, path: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer_recognition, "SpeakerEncoder", None)
    with pytest.raises(error):
        infer_recognition.main(["--register", name, path])


def test_list_and_delete_need_no_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer_recognition, "SpeakerEncoder", None)
    monkeypatch.setattr(infer_recognition, "read_header", None)
    assert infer_recognition.main(["--list"]) == 0
    assert lines(capsys) == ["李达康（1段录音）", "沙瑞金（1段录音）", "声纹库中共有2个用户"]
    assert infer_recognition.main(["--delete", "李达康"]) == 0
    assert lines(capsys) == ["已删除：audio_db/李达康.wav"]
    with pytest.raises(DatabaseError, match="nobody named 李达康"):
        infer_recognition.main(["--delete", "李达康"])


@pytest.mark.parametrize("options", [["--register", "甲"], ["--list", "--delete", "甲"]])
def test_wrong_options_exit_with_2(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        infer_recognition.main(options)
    assert stop.value.code == 2
    assert capsys.readouterr().err


def test_the_same_menu_with_an_sql_database(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    # As from the environment, where a password is not seen by others.
    monkeypatch.setenv("VOICEPRINT_DATABASE", database_url)
    for name in ["李达康", "沙瑞金"]:
        assert infer_recognition.main(["--register", name, f"audio_db/{name}.wav"]) == 0
        assert lines(capsys)[-1].startswith(f"已注册{name}： {name}/")
    answers = ["0", "", "夜雨飘零", "1", "", "2", "3", "夜雨飘零", "y", "q"]

    def answer(prompt: str) -> str:
        print(prompt + answers[0])
        return answers.pop(0)

    def record(duration_s: float, on_start: object, **options: object) -> object:
        return synthetic_speech(4, 0, duration_s)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(menu, "record", record)
    assert infer_recognition.main([]) == 0
    shown = capsys.readouterr().out
    assert "@" not in shown.split("\n")[1], "the user's name stays out"
    assert "Loaded 李达康 audio.\nLoaded 沙瑞金 audio.\n" in shown
    assert "识别说话的为：夜雨飘零，相似度为：1.000000\n" in shown
    assert "夜雨飘零（1段录音）\n" in shown and "声纹库中共有3个用户\n" in shown
    assert "已删除：夜雨飘零\n" in shown
    assert not Path("audio_db/夜雨飘零.wav").exists()
    assert infer_recognition.main(["--list"]) == 0
    assert lines(capsys)[-1] == "声纹库中共有2个用户"
    # A folder that is named goes before the environment, an address before both.
    Path("empty").mkdir()
    assert infer_recognition.main(["--list", "--audio_db", "empty"]) == 0
    assert lines(capsys) == ["声纹库中共有0个用户"]
    options = ["--audio_db", "empty", "--database", database_url]
    assert infer_recognition.main(["--recognize", "known.wav", *options]) == 0
    assert lines(capsys)[-1].startswith("识别说话的为：沙瑞金，")
    assert infer_recognition.main(["--delete", "李达康", *options]) == 0
    with pytest.raises(DatabaseError, match="nobody named 李达康"):
        infer_recognition.main(["--delete", "李达康", *options])


def test_a_mistyped_sqlite_file_is_not_made() -> None:
    with pytest.raises(DatabaseError, match="no such file"):
        infer_recognition.main(["--list", "--database", "sqlite:///typo.sqlite3"])
    assert not Path("typo.sqlite3").exists()


def test_sound_is_kept_in_sql_if_asked() -> None:
    options = ["--database", "sqlite:///v.sqlite3"]
    infer_recognition.main(["--register", "甲", "known.wav", *options])
    infer_recognition.main(["--register", "乙", "known.wav", *options, "--keep_audio"])
    database = SqlVoiceStore("sqlite:///v.sqlite3")
    assert [database.recordings(name)[0].has_audio for name in "甲乙"] == [False, True]
    database.close()


def test_an_encrypted_database_needs_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--database", "sqlite:///v.sqlite3"]
    monkeypatch.setenv("VOICEPRINT_KEY", "A" * 43 + "=")
    infer_recognition.main(["--register", "甲", "known.wav", *options])
    assert infer_recognition.main(["--recognize", "known.wav", *options]) == 0
    monkeypatch.setenv("VOICEPRINT_KEY", "too short")
    with pytest.raises(DatabaseError, match="VOICEPRINT_KEY does not hold a key"):
        infer_recognition.main(["--list", *options])
    monkeypatch.delenv("VOICEPRINT_KEY")
    with pytest.raises(DatabaseError, match="is encrypted; give its key"):
        infer_recognition.main(["--list", *options])


@pytest.mark.parametrize("package", ["sqlalchemy", "cryptography", "pgvector"])
def test_missing_packages_are_told(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in list(sys.modules):
        if name.startswith(("voices.sql.", "voices.move")):
            monkeypatch.delitem(sys.modules, name)
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    message = f"needs the package {package}.*; pip install -r requirements-service.txt"
    with pytest.raises(DatabaseError, match=message):
        infer_recognition.main(["--list", "--database", "sqlite:///v.sqlite3"])
    with pytest.raises(DatabaseError, match=message):
        move_voices.main(["sqlite:///v.sqlite3", "audio_db"])
    assert infer_recognition.main(["--list"]) == 0

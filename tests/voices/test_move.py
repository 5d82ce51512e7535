"""Moving voices between a folder and an SQL database: nothing is lost, nothing is mixed up."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

import move_voices
from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.audio.decode import load_audio
from utils.errors import DatabaseError
from utils.model import encoder as encoder_module
from voices import move as voice_move
from voices.folder import FolderVoiceStore
from voices.sql.records import NewRecording
from voices.sql.store import SqlVoiceStore

RESULT = re.compile(
    r".* -> .*: (\d+) speakers complete, (\d+) recordings moved and verified, (\d+) were there "
    r"already, (\d+) not moved, (\d+) speakers removed from the source"
)


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(encoder_module, "SpeakerEncoder", lambda *_: FakeEncoder())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def audio_db() -> Path:
    """Speakers as they may be: a file, file and folder, a folder alone; several kinds of files."""
    folder = Path("audio_db")
    write_wav(folder / "李达康.wav", synthetic_speech(0, 0))
    write_wav(folder / "沙瑞金.wav", synthetic_speech(1, 0))
    write_wav(folder / "沙瑞金" / "2.wav", synthetic_speech(1, 1))
    write_wav(folder / "沙瑞金" / "20260101-120000-000000-1.wav", synthetic_speech(1, 2))
    (folder / "Ana [x]").mkdir()
    speech = np.repeat(synthetic_speech(2, 0), 3)  # 48 kHz
    stereo = np.stack([speech, speech], axis=1)
    soundfile.write(folder / "Ana [x]" / "a.flac", stereo, 48000, subtype="PCM_24")
    soundfile.write(folder / "Ana [x]" / "b.MP3", speech, 48000, format="MP3")
    soundfile.write(folder / "Ana [x]" / "c.ogg", synthetic_speech(2, 1), 16000)
    (folder / "README.md").write_text("not a recording")
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (1.6e9 + number, 1.6e9 + number + 0.123456))
    return folder


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[int], str]:
    """Returns the exit status, the numbers of the result line, and what stderr says."""
    status = move_voices.main(list(argv))
    out, err = capsys.readouterr()
    found = RESULT.fullmatch(out.splitlines()[-1])
    assert found, out
    return status, [int(number) for number in found.groups()], err


def recordings_of(folder: Path) -> dict[str, tuple[bytes, float]]:
    """Returns content and date of every recording under a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), round(path.stat().st_mtime, 3))
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "." and path.suffix != ".md"
    }


@pytest.mark.slow
def test_in_and_out_is_the_same(
    capsys: pytest.CaptureFixture[str], audio_db: Path, database_url: str
) -> None:
    before = recordings_of(audio_db)
    assert run(capsys, "audio_db", database_url) == (0, [3, 7, 0, 0, 0], "")
    assert recordings_of(audio_db) == before
    database = SqlVoiceStore(database_url, FakeEncoder())
    assert database.names() == ["Ana [x]", "李达康", "沙瑞金"]
    assert [len(database.recordings(name)) for name in database.names()] == [3, 1, 3]
    folder = FolderVoiceStore("audio_db", FakeEncoder())
    folder.load()
    query = FakeEncoder().embed_waveform(synthetic_speech(1, 7))
    for (name, score), (other, expected) in zip(
        database.rank(query), folder.rank(query), strict=True
    ):
        assert name == other and score == pytest.approx(expected, abs=1e-5)
    # What came in another rate can be played all the same.
    for recording in database.recordings("Ana [x]"):
        assert len(database.recording_audio("Ana [x]", recording.id) or b"") > 10_000
    assert run(capsys, database_url, "back") == (0, [3, 7, 0, 0, 0], "")
    assert recordings_of(Path("back")) == before
    assert FolderVoiceStore("back").names() == folder.names()


@pytest.mark.slow
def test_again_does_nothing_and_goes_on_where_it_stopped(
    capsys: pytest.CaptureFixture[str], audio_db: Path, database_url: str
) -> None:
    hidden = audio_db / "沙瑞金.wav"
    hidden.rename("hidden.wav")
    assert run(capsys, "audio_db", database_url)[1] == [3, 6, 0, 0, 0]
    Path("hidden.wav").rename(hidden)
    assert run(capsys, "audio_db", database_url)[1] == [3, 1, 6, 0, 0]
    assert run(capsys, "audio_db", database_url)[1] == [3, 0, 7, 0, 0]
    assert run(capsys, database_url, "back")[1] == [3, 7, 0, 0, 0]
    (Path("back") / "沙瑞金" / "2.wav").unlink()
    assert run(capsys, database_url, "back")[1] == [3, 1, 6, 0, 0]
    assert recordings_of(Path("back")) == recordings_of(audio_db)


@pytest.mark.slow
def test_source_is_removed_only_if_asked_and_whole(
    capsys: pytest.CaptureFixture[str], audio_db: Path, database_url: str
) -> None:
    before = recordings_of(audio_db)
    (audio_db / "李达康").mkdir()
    (audio_db / "李达康" / "broken.wav").write_bytes(b"RIFF....")
    (audio_db / "沙瑞金" / "notes.txt").write_text("keep me")
    status, numbers, told = run(capsys, "audio_db", database_url, "--delete_source")
    assert (status, numbers) == (2, [2, 7, 0, 1, 2])
    assert "not moved: audio_db/李达康/broken.wav: " in told
    left = {path.name for path in audio_db.rglob("*") if path.is_file()}
    assert left == {"README.md", "李达康.wav", "broken.wav", "notes.txt"}
    assert not (audio_db / "Ana [x]").exists()
    (audio_db / "李达康" / "broken.wav").unlink()
    assert run(capsys, "audio_db", database_url, "--delete_source")[1] == [1, 0, 1, 0, 1]
    assert run(capsys, database_url, "back", "--delete_source")[1] == [3, 7, 0, 0, 3]
    assert recordings_of(Path("back")) == before
    database = SqlVoiceStore(database_url)
    assert database.count() == 0
    database.close()


@pytest.mark.slow
def test_recordings_without_sound_cannot_go_to_a_folder(
    capsys: pytest.CaptureFixture[str], database_url: str
) -> None:
    database = SqlVoiceStore(database_url, FakeEncoder(), keep_audio=True)
    vector = FakeEncoder().embed_waveform(synthetic_speech(0))
    database.enrol("lost", [NewRecording(vector, 1, None, 1)])
    database.enrol("both", [NewRecording(vector, 1, None, 1)])
    database.add("both", synthetic_speech(1))
    database.add("kept", synthetic_speech(2), synthetic_speech(2, 1))
    status, numbers, told = run(capsys, database_url, "back", "--delete_source")
    assert (status, numbers) == (2, [1, 3, 0, 2, 1])
    assert told.count("its sound was not kept") == 2 and "lost/" in told and "both/" in told
    assert database.names() == ["both", "lost"]
    assert len(database.recordings("both")) == 2
    names = sorted(path.relative_to("back").parts for path in Path("back").rglob("*.flac"))
    assert names[0] == ("both.flac",)
    assert names[2] == ("kept.flac",) and names[1][0] == "kept"
    samples = np.round(synthetic_speech(2) * 32768).clip(-32768, 32767)
    np.testing.assert_array_equal(load_audio("back/kept.flac") * 32768, samples)


def test_speakers_are_not_mixed_with_others_of_their_name(
    capsys: pytest.CaptureFixture[str], audio_db: Path, database_url: str
) -> None:
    database = SqlVoiceStore(database_url, FakeEncoder(), keep_audio=True)
    database.add("李达康", synthetic_speech(5))
    database.enrol("Ana [x]", [NewRecording(np.ones(64) / 8, 1, None, 1)])
    status, numbers, told = run(capsys, "audio_db", database_url, "--delete_source")
    assert (status, numbers) == (2, [1, 3, 0, 2, 1])
    assert told.count("enrolled in the destination with other recordings") == 2
    assert len(database.recordings("李达康")) == len(database.recordings("Ana [x]")) == 1
    assert len(recordings_of(audio_db)) == 4
    status, numbers, told = run(capsys, database_url, "audio_db", "--delete_source")
    assert status == 2 and "not moved: 李达康: enrolled in the destination" in told
    assert "李达康" in database.names()


def test_names_that_differ_in_case_only_stay_apart(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_wav(tmp_path / "audio_db" / "Tom.wav", synthetic_speech(0))
    write_wav(tmp_path / "audio_db" / "tom.wav", synthetic_speech(1))
    if len(list((tmp_path / "audio_db").iterdir())) == 1:
        pytest.skip("the file system ignores case")
    status, numbers, told = run(capsys, "audio_db", "sqlite:///v.sqlite3", "--delete_source")
    assert (status, numbers) == (2, [1, 1, 0, 1, 1])
    assert "tom: Tom is the same name in other letters" in told
    assert [path.name for path in (tmp_path / "audio_db").glob("*.wav")] == ["tom.wav"]


@pytest.mark.slow
def test_an_interrupted_move_has_lost_nothing(
    capsys: pytest.CaptureFixture[str],
    audio_db: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = recordings_of(audio_db)
    calls = []

    def discard(self: FolderVoiceStore, paths: list[Path]) -> None:
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(self, paths)

    original = FolderVoiceStore.discard
    monkeypatch.setattr(FolderVoiceStore, "discard", discard)
    with pytest.raises(KeyboardInterrupt):
        move_voices.main(["audio_db", database_url, "--delete_source"])
    monkeypatch.setattr(FolderVoiceStore, "discard", original)
    assert run(capsys, "audio_db", database_url, "--delete_source")[1] == [2, 3, 1, 0, 2]
    assert run(capsys, database_url, "back")[1] == [3, 7, 0, 0, 0]
    assert recordings_of(Path("back")) == before


def test_what_does_not_arrive_is_an_error_and_nothing_is_removed(
    audio_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqlVoiceStore, "original_audio", lambda *_: (b"changed", ".wav"))
    before = recordings_of(audio_db)
    with pytest.raises(DatabaseError, match="what arrived is not what was sent"):
        move_voices.main(["audio_db", "sqlite:///v.sqlite3", "--delete_source"])
    assert recordings_of(audio_db) == before


def test_speaker_who_changed_meanwhile_is_not_removed(audio_db: Path) -> None:
    database = SqlVoiceStore("sqlite:///v.sqlite3", FakeEncoder(), keep_audio=True)
    voice_move.move_in(FolderVoiceStore("audio_db"), database, FakeEncoder())
    with pytest.raises(DatabaseError, match="李达康 has changed meanwhile and was left as it is"):
        database.remove("李达康", only=["another"])
    assert database.count() == 3


def test_file_names_in_a_database_cannot_leave_the_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = SqlVoiceStore("sqlite:///v.sqlite3", FakeEncoder(), keep_audio=True)
    write_wav(Path("x.wav"), synthetic_speech(0))
    names = [
        "../../evil.wav",
        f"{Path.cwd()}/evil.wav",
        "..\\evil.wav",
        ".hidden.wav",
        "evil.sh",
        "a\nb.wav",
    ]
    for number, file_name in enumerate(names):
        content = Path("x.wav").read_bytes() + bytes(number)
        new = NewRecording(np.ones(64) / 8, 1, content, 1, file_name=file_name)
        database.enrol("a", [new], if_exists="add")
    assert run(capsys, "sqlite:///v.sqlite3", "deep/er/back")[1] == [1, 6, 0, 0, 0]
    written = {path for path in Path().rglob("*") if path.is_file()}
    inside = {path for path in Path("deep/er/back").rglob("*") if path.is_file()}
    assert written - inside <= {Path("x.wav"), *Path().glob("v.sqlite3*")}
    assert len(inside) == 6 and all(re.fullmatch(r"a|[\w-]+", path.stem) for path in inside)


def test_address_from_the_environment(
    capsys: pytest.CaptureFixture[str], audio_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEPRINT_DATABASE", "sqlite:///v.sqlite3")
    monkeypatch.setenv("VOICEPRINT_KEY", "A" * 43 + "=")
    assert run(capsys, "audio_db", "env")[1] == [3, 7, 0, 0, 0]
    assert run(capsys, "env", "back")[1] == [3, 7, 0, 0, 0]
    assert recordings_of(Path("back")) == recordings_of(audio_db)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a b", "expected the address of a database, as source or destination"),
        ("env b", "expected the address of a database, as source or destination"),
        ("a sqlite:///b --decrypt", "are for moves from database to database"),
        ("sqlite:///b sqlite:///b", "source and destination are the same"),
    ],
)
def test_places_that_make_no_move(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        move_voices.main(words.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_source_is_an_error() -> None:
    with pytest.raises(DatabaseError, match="missing: no such folder"):
        move_voices.main(["missing", "sqlite:///v.sqlite3"])
    with pytest.raises(DatabaseError, match=r"w.sqlite3: no such file"):
        move_voices.main(["sqlite:///w.sqlite3", "back"])
    database = SqlVoiceStore("sqlite:///v.sqlite3", FakeEncoder())
    with pytest.raises(ValueError, match="keeps audio"):
        voice_move.move_in(FolderVoiceStore("missing"), database, FakeEncoder())


def test_folder_that_cannot_be_written_is_an_error(audio_db: Path) -> None:
    move_voices.main(["audio_db", "sqlite:///v.sqlite3"])
    Path("back").write_text("a file where the folder should be")
    with pytest.raises(DatabaseError, match="cannot be"):
        move_voices.main(["sqlite:///v.sqlite3", "back"])


def test_files_of_the_destination_that_cannot_be_read_are_an_error(
    audio_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_voices.main(["audio_db", "sqlite:///v.sqlite3"])
    back = Path("back") / "李达康.wav"
    write_wav(back, synthetic_speech(0, 0))
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == back:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DatabaseError, match=r"李达康.wav: cannot be read \(Permission denied\)"):
        move_voices.main(["sqlite:///v.sqlite3", "back"])


def test_no_database_is_made_for_a_folder_that_is_missing() -> None:
    for source in ("missing", "a_file"):
        Path("a_file").touch()
        with pytest.raises(DatabaseError, match=f"{source}: no such folder; check the path"):
            move_voices.main([source, "sqlite:///new/x.sqlite3"])
    assert not Path("new").exists()


def test_files_that_are_too_long_are_refused(
    capsys: pytest.CaptureFixture[str], audio_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_move, "MAX_FILE_BYTES", 100)
    status, numbers, told = run(capsys, "audio_db", "sqlite:///v.sqlite3")
    assert (status, numbers) == (2, [0, 0, 0, 7, 0])
    assert told.count("cut it") == 7

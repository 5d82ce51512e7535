"""A database that is opened under another address goes on with its folder where it was."""

import shutil
from pathlib import Path

import pytest

from service.folder_record import RECORD_NAME
from service.voice_folder import VoiceFolder
from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech, write_wav
from voices.sql.records import NewRecording
from voices.sql.store import SqlVoiceprintDatabase


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the voices of two, and the working directory."""
    root = tmp_path / "project"
    write_wav(root / "audio_db" / "Ann.wav", synthetic_speech(1, 0))
    write_wav(root / "audio_db" / "Ann" / "2.wav", synthetic_speech(1, 1))
    write_wav(root / "audio_db" / "Ben.wav", synthetic_speech(2, 0))
    monkeypatch.chdir(root)
    return root


def start(
    path: str | Path, encoder: FakeEncoder, folder: str | Path = "audio_db"
) -> tuple[list[str], dict[str, set[str]]]:
    """Opens a database as a start of the service does: who changed, and all recordings."""
    database = SqlVoiceprintDatabase(f"sqlite:///{path}", encoder)
    try:
        changed = VoiceFolder(folder, database, encoder).take_over()
        return changed, {n: {r.id for r in database.recordings(n)} for n in database.names()}
    finally:
        database.close()


def visible(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*.wav")}


def test_relative_and_absolute_are_one_database_to_and_fro(root: Path) -> None:
    encoder = FakeEncoder()
    changed, recordings = start("v.sqlite3", encoder)
    assert changed == ["Ann", "Ben"] and len(recordings["Ann"]) == 2
    assert start(root / "v.sqlite3", encoder) == ([], recordings)
    # What happens under one address is known under the other.
    database = SqlVoiceprintDatabase(f"sqlite:///{root}/v.sqlite3", encoder)
    voices = VoiceFolder(root / "audio_db", database, encoder)
    voices.rename("Ann", "Anna")
    database.close()
    write_wav(root / "audio_db" / "Anna.wav", synthetic_speech(4, 0, 2.5))
    write_wav(root / "audio_db" / "Eve.wav", synthetic_speech(3, 0))
    changed, recordings = start(root / "v.sqlite3", encoder)
    assert changed == ["Anna", "Eve"] and len(recordings["Anna"]) == 2
    count = encoder.num_embedded
    assert start("v.sqlite3", encoder) == ([], recordings)
    assert encoder.num_embedded == count
    (root / "audio_db" / "Eve.wav").unlink()
    _, recordings = start(root / "v.sqlite3", encoder)
    assert set(recordings) == {"Anna", "Ben"}
    assert start("v.sqlite3", encoder) == ([], recordings)


def test_database_and_folder_are_moved_together(root: Path, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    _, recordings = start(root / "v.sqlite3", encoder)
    moved = tmp_path / "elsewhere"
    root.rename(moved)
    assert start(moved / "v.sqlite3", encoder, moved / "audio_db") == ([], recordings)
    assert encoder.num_embedded == 3
    (moved / "audio_db" / "Ann.wav").unlink()
    changed, recordings = start(moved / "v.sqlite3", encoder, moved / "audio_db")
    assert changed == ["Ann"] and len(recordings["Ann"]) == 1


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("action", ["rename", "remove", "replace"])
@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("situation", ["new", "was there before", "nobody else"])
def test_what_was_interrupted_is_settled_under_the_new_address(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    is_stored: bool,
    situation: str,
) -> None:
    encoder = FakeEncoder()
    if situation == "nobody else":
        (root / "audio_db" / "Ben.wav").unlink()
    if situation == "was there before":
        start(root / "v.sqlite3", encoder)
    start("v.sqlite3", encoder)
    database = SqlVoiceprintDatabase("sqlite:///v.sqlite3", encoder)
    voices = VoiceFolder("audio_db", database, encoder)
    voices.take_over()
    new = NewRecording(encoder.embed_waveform(synthetic_speech(3)), 2.0, None, 2.0)
    database.enrol("Ann", [new], if_exists="add")  # no file tells of it
    before = {recording.id for recording in database.recordings("Ann")}
    with monkeypatch.context() as patch:
        for name in ("rename", "remove", "enrol"):
            function = getattr(database, name)

            def step(*arguments: object, _function: object = function, **options: object) -> None:
                if is_stored:
                    _function(*arguments, **options)  # type: ignore[operator]
                raise Killed

            patch.setattr(database, name, step)
        with pytest.raises(Killed):
            if action == "rename":
                voices.rename("Ann", "Anna")
            elif action == "remove":
                voices.remove("Ann")
            else:
                voices.enrol("Ann", [new], if_exists="replace")
    database.close()
    count = encoder.num_embedded
    changed, recordings = start(root / "v.sqlite3", encoder)
    assert changed == [] and encoder.num_embedded == count
    files = visible(root / "audio_db") - {"Ben.wav"}
    recordings.pop("Ben", None)
    if action == "rename":
        name = "Anna" if is_stored else "Ann"
        assert recordings == {name: before}
        assert files == {f"{name}.wav", f"{name}/2.wav"}
    elif action == "remove":
        assert not recordings and not files
    elif is_stored:
        assert len(recordings["Ann"]) == 1 and recordings["Ann"].isdisjoint(before) and not files
    else:
        assert recordings == {"Ann": before} and files == {"Ann.wav", "Ann/2.wav"}
    record = (root / "audio_db" / RECORD_NAME).read_text(encoding="utf-8")
    assert f"//intent in sqlite:///{root}" not in record
    # What nothing shows to be the same database keeps what it has noted.
    is_proven = not (situation == "nobody else" and action == "remove" and is_stored)
    assert ("//intent" in record) is not is_proven
    num_files = len(visible(root / "audio_db"))
    start("v.sqlite3", encoder)
    assert encoder.num_embedded == count, "the first address knows it too"
    assert len(visible(root / "audio_db")) == num_files


def test_an_unrelated_database_beside_the_folder_is_another_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder()
    _, recordings = start("v.sqlite3", encoder)
    database = SqlVoiceprintDatabase("sqlite:///v.sqlite3", encoder)
    voices = VoiceFolder("audio_db", database, encoder)
    voices.take_over()

    def step(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(database, "remove", step)
        with pytest.raises(Killed):
            voices.remove("Ben")
    database.close()
    changed, others = start("other.sqlite3", encoder)
    assert changed == ["Ann", "Ben"] and encoder.num_embedded == 6
    assert others["Ann"].isdisjoint(recordings["Ann"]) and len(others["Ann"]) == 2
    assert "Ben.wav" in visible(root / "audio_db"), "what is open is the first one's"
    # Among the two entries each finds its own under another address.
    assert start(root / "v.sqlite3", encoder) == ([], {"Ann": recordings["Ann"]})
    assert start(root / "other.sqlite3", encoder) == (["Ben"], {"Ann": others["Ann"]})
    assert encoder.num_embedded == 6


def test_a_copy_and_its_original_both_follow_the_folder(root: Path) -> None:
    encoder = FakeEncoder()
    _, recordings = start("v.sqlite3", encoder)
    shutil.copy("v.sqlite3", "copy.sqlite3")
    # The original goes on; the copy does not take its newer recordings for its own.
    write_wav(root / "audio_db" / "Ann" / "3.wav", synthetic_speech(1, 3))
    assert start("v.sqlite3", encoder)[0] == ["Ann"]
    changed, copied = start("copy.sqlite3", encoder)
    assert changed == ["Ann"] and len(copied["Ann"]) == 3 and copied["Ann"] > recordings["Ann"]
    assert encoder.num_embedded == 5
    (root / "audio_db" / "Ben.wav").unlink()
    write_wav(root / "audio_db" / "Ann" / "4.wav", synthetic_speech(1, 4))
    for path in ("copy.sqlite3", "v.sqlite3"):
        changed, found = start(path, encoder)
        assert changed == ["Ann", "Ben"] and {n: len(ids) for n, ids in found.items()} == {"Ann": 4}
        assert start(path, encoder) == ([], found)

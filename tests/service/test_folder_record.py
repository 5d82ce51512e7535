"""The folder's hidden record: what was changed from outside chooses no files and stops nothing."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from service.folder_record import INTENT, RECORD_NAME, FolderRecord
from service.voice_folder import VoiceFolder
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_client import check_problem, enrol, files, running, speech
from tests.support.synthetic_voices import synthetic_speech
from utils.errors import DatabaseError
from voices.sql.store import SqlVoiceprintDatabase

ADDRESS = "sqlite:///v.sqlite3"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose folder has one speaker, and files that are none of its business."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audio_db").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    soundfile.write(tmp_path / "private.wav", synthetic_speech(5), 16000)
    soundfile.write(tmp_path / "audio_db" / "Ann.wav", synthetic_speech(1), 16000)
    return tmp_path


def start(encoder: Any = None) -> tuple[VoiceFolder, SqlVoiceprintDatabase]:
    encoder = encoder or FakeEncoder()
    database = SqlVoiceprintDatabase(ADDRESS, encoder)
    folder = VoiceFolder("audio_db", database, encoder)
    folder.take_over()
    return folder, database


def stamp(path: Path) -> list[int]:
    return [path.lstat().st_size, path.lstat().st_mtime_ns]


def write(root: Path, record: Any) -> None:
    text = record if isinstance(record, str) else json.dumps(record)
    (root / "audio_db" / RECORD_NAME).write_text(text)


def everything(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix() for path in root.rglob("*") if "sqlite" not in path.name
    }


LABELS = [
    "../secret.txt",
    "../nothing",
    ".",
    "..",
    "../empty",
    "a/../../secret.txt",
    "//secret.txt",
]


@pytest.mark.parametrize("label", [*LABELS, "ABSOLUTE"])
@pytest.mark.parametrize("action", ["delete", "replace"])
def test_no_file_outside_the_folder_is_removed(root: Path, label: str, action: str) -> None:
    label = str(root / "secret.txt") if label == "ABSOLUTE" else label
    before = everything(root)
    path = root / "audio_db" / label
    noted = stamp(path) if path.exists() else []
    intent = {"action": action, "name": "Ann", "new_name": "Ann", "recordings": []}
    write(root, {INTENT.format(ADDRESS): [{**intent, "files": {label: noted}}]})
    folder, database = start()
    assert everything(root) >= before
    assert database.names() == ["Ann"] and folder.rejected
    database.close()


@pytest.mark.parametrize(
    ("old", "new"), [("Zed.txt", "../secret.txt"), ("../secret.txt", "Zed.txt")]
)
def test_no_file_outside_the_folder_is_renamed(root: Path, old: str, new: str) -> None:
    before = everything(root)
    intent = {"action": "rename", "name": "Ann", "new_name": "Zed", "recordings": []}
    write(root, {INTENT.format(ADDRESS): [{**intent, "files": {old: new}}]})
    _, database = start()
    assert everything(root) >= before
    database.close()


def test_no_file_outside_the_folder_is_heard(root: Path) -> None:
    folder, database = start()
    (recording,) = database.recordings("Ann")
    entry = [*stamp(root / "private.wav"), recording.id]
    write(root, {ADDRESS: {"Ann": {"../private.wav": entry}}})
    assert folder.read_recording(recording.id) is None
    database.close()


ENTRY = [1, 2, "0" * 32]
SHAPES: list[Any] = [
    "{",
    "[" * 200_000,
    [],
    {ADDRESS: []},
    {ADDRESS: {"Ann": []}},
    {ADDRESS: {"Ann": {"Ann.wav": []}}},
    {ADDRESS: {"Ann": {"Ann.wav": ["x", None, 3]}}},
    {ADDRESS: {"Ann": {"a\0b": ENTRY}}},
    {ADDRESS: {"": {"x.wav": ENTRY}, "a/b": {"y.wav": ENTRY}, "\ud800": {"z.wav": ENTRY}}},
    {"sqlite:////other": "x", INTENT.format("sqlite:////other"): [{}]},
    {INTENT.format(ADDRESS): {}},
    {INTENT.format(ADDRESS): [{}, "x", None, {"action": "delete"}]},
    {
        INTENT.format(ADDRESS): [
            dict.fromkeys(["action", "name", "new_name", "recordings", "files"])
        ]
    },
]


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_a_damaged_record_stops_nothing(root: Path, shape: Any) -> None:
    write(root, shape)
    folder, database = start()
    assert [path for path, _ in folder.rejected] == [str(Path("audio_db") / RECORD_NAME)]
    assert database.names() == ["Ann"]
    folder.rename("Ann", "Anna")
    folder.remove("Anna")
    assert database.names() == [] and not list((root / "audio_db").glob("*.wav"))
    database.close()
    folder, database = start()
    assert folder.rejected == []
    database.close()


def test_a_record_that_cannot_be_read_now_is_not_written_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(root / "audio_db" / "Ben.wav", synthetic_speech(2), 16000)
    folder, database = start()
    before = (root / "audio_db" / RECORD_NAME).read_bytes()
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == RECORD_NAME:
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(DatabaseError, match="Too many open files"):
            folder.remove("Ben")
        with pytest.raises(DatabaseError, match="Too many open files"):
            FolderRecord(Path("audio_db"), ADDRESS).read()
    assert (root / "audio_db" / RECORD_NAME).read_bytes() == before
    assert database.names() == ["Ann", "Ben"]
    folder.remove("Ben")
    database.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_of_files_that_are_not_utf_8(root: Path) -> None:
    (root / "audio_db" / "Bob").mkdir()
    for suffix in (".wav", ".txt"):
        name = os.fsdecode("声音".encode("gbk")) + suffix
        soundfile.write(root / "audio_db" / "x.wav", synthetic_speech(2), 16000)
        (root / "audio_db" / "x.wav").rename(root / "audio_db" / "Bob" / name)
    with running(f"sqlite:///{root}/v.sqlite3", audio_db=root / "audio_db") as client:
        assert client.get("/v1/speakers").json()["total"] == 2
        answer = client.delete("/v1/speakers/Bob")
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["removed"]["files"]) >= 2
        assert not (root / "audio_db" / "Bob").exists()


def test_registering_a_name_keeps_files_that_only_the_scripts_know(root: Path) -> None:
    with running(f"sqlite:///{root}/v.sqlite3", audio_db=root / "audio_db") as client:
        soundfile.write(root / "audio_db" / "Zoe.wav", synthetic_speech(4), 16000)
        sent = {"data": {"speaker_id": "Zoe"}, "files": files(speech(3))}
        assert client.post("/voiceprint/register", **sent).status_code == 200
        assert (root / "audio_db" / "Zoe.wav").exists()
        assert client.post("/voiceprint/register", **sent).status_code == 200


def test_a_voice_goes_also_while_files_of_an_earlier_deletion_wait(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def stuck(path: Path, missing_ok: bool = False) -> None:
        if path.name == "Ann.wav":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    with running(f"sqlite:///{root}/v.sqlite3", audio_db=root / "audio_db") as client:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", stuck)
            check_problem(client.delete("/v1/speakers/Ann"), 503, "files")
            log = client.app.state.service.database.audit()  # type: ignore[attr-defined]
            assert (log[0].action, log[0].speaker) == ("delete", "Ann")
            enrol(client, "Ann", 3)
            check_problem(client.delete("/v1/speakers/Ann"), 503, "files")
            found = client.post("/v1/identify", files=files(speech(3, 7))).json()
            assert found["name"] is None
        assert client.delete("/v1/speakers/Ann").status_code == 200
        assert not (root / "audio_db" / "Ann.wav").exists()

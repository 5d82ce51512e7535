"""audio_db/ as the service's inbox: enrolled at each start, and really deleted."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.inbox import Inbox
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_client import TestClient, check_problem, enrol, files, running, speech
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.errors import OnlyRecordingError
from voices.folder import CACHE_NAME, FolderVoiceStore
from voices.sql.store import SqlVoiceStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "audio_db"
    write_wav(folder / "Ann.wav", synthetic_speech(1, 0))
    write_wav(folder / "Ann" / "2.wav", synthetic_speech(1, 1))
    write_wav(folder / "李雷.wav", synthetic_speech(2, 0))
    return folder


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/v.sqlite3"


def names(client: TestClient) -> dict[str, int]:
    found = client.get("/v1/speakers").json()["speakers"]
    return {speaker["name"]: len(speaker["recordings"]) for speaker in found}


def visible(folder: Path) -> list[str]:
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return sorted(path for path in paths if not path.startswith("."))


def cached(folder: Path) -> set[str]:
    """The files of a folder whose embeddings the scripts' cache has."""
    with np.load(folder / CACHE_NAME) as file:
        return set(file["path"].tolist())


def test_files_are_enrolled_once(folder: Path, url: str) -> None:
    encoder = FakeEncoder()
    with running(url, encoder=encoder, audio_db=folder) as client:
        assert names(client) == {"Ann": 2, "李雷": 1}
        assert client.post("/v1/identify", files=files(speech(2, 5))).json()["name"] == "李雷"
    count = encoder.num_embedded
    with running(url, encoder=encoder, audio_db=folder) as client:
        assert names(client) == {"Ann": 2, "李雷": 1}
    assert encoder.num_embedded == count


def test_new_and_changed_files_are_enrolled_and_nothing_is_removed(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        client.post("/v1/speakers/Ann/recordings", files=files(speech(1, 7)))
        before = client.get("/v1/speakers/Ann").json()["recordings"]
        in_file = before[0]["id"]
    write_wav(folder / "Ben.wav", synthetic_speech(3))
    write_wav(folder / "Ann.wav", synthetic_speech(1, 8))
    (folder / "李雷.wav").unlink()
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 3, "Ben": 1, "李雷": 1}
        after = client.get("/v1/speakers/Ann").json()["recordings"]
        gone = {each["id"] for each in before} - {each["id"] for each in after}
        assert gone == {in_file}, "a changed file takes the place of its recording"


def test_the_same_content_under_other_names_is_not_enrolled_anew(folder: Path, url: str) -> None:
    with running(url, audio_db=folder):
        pass
    (folder / "李雷.wav").rename(folder / "Lei.wav")
    (folder / "Ann" / "copy.wav").write_bytes((folder / "Ann.wav").read_bytes())
    write_wav(folder / "李雷.wav", synthetic_speech(4))  # a new file at an old place
    encoder = FakeEncoder()
    with running(url, encoder=encoder, audio_db=folder) as client:
        assert names(client) == {"Ann": 2, "李雷": 2}
        assert encoder.num_embedded == 1
        assert client.delete("/v1/speakers/李雷").status_code == 200
        assert visible(folder) == ["Ann", "Ann.wav", "Ann/2.wav", "Ann/copy.wav"]
        assert client.delete("/v1/speakers/Ann").status_code == 200
        assert visible(folder) == []
    with running(url, audio_db=folder) as client:
        assert names(client) == {}


def test_deleting_deletes_the_files(folder: Path, url: str) -> None:
    FolderVoiceStore(folder, FakeEncoder()).load()
    (folder / "Ann" / ".3.part.wav").write_bytes(b"what a killed writer left")
    write_wav(folder / "ann" / "4.wav", synthetic_speech(1, 4))
    with running(url, audio_db=folder) as client:
        # A file that came after the start goes too: it bears the name.
        write_wav(folder / "Ann" / "5.wav", synthetic_speech(1, 5))
        removed = client.delete("/v1/speakers/ann").json()["removed"]
        assert removed["recordings"] == 3
        inside = {"Ann.wav", "Ann/2.wav", "Ann/5.wav", "ann/4.wav"}
        assert {f"{folder.name}/{name}" for name in inside} <= set(removed["files"])
        assert visible(folder) == ["李雷.wav"] and cached(folder) == {"李雷.wav"}
        check_problem(client.delete("/v1/speakers/Ann"), 404, "unknown-speaker")
        # Nobody is deleted of whom the service does not know.
        write_wav(folder / "Zoe.wav", synthetic_speech(3))
        check_problem(client.delete("/v1/speakers/Zoe"), 404, "unknown-speaker")
        assert (folder / "Zoe.wav").exists()
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Zoe": 1, "李雷": 1}


def test_a_renamed_speaker_keeps_the_files_until_the_deletion(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        assert client.patch("/v1/speakers/Ann", json={"name": "Eve"}).status_code == 200
        enrol(client, "Ann", 3)
    write_wav(folder / "Ann.wav", synthetic_speech(1, 6))
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 2, "Eve": 2, "李雷": 1}, "a changed file stays whose it was"
        assert client.delete("/v1/speakers/Ann").status_code == 200
        assert visible(folder) == ["Ann", "Ann.wav", "Ann/2.wav", "李雷.wav"]
        # By now it is another recording, and nobody's.
        write_wav(folder / "Ann.wav", synthetic_speech(4))
        assert client.delete("/v1/speakers/Eve").status_code == 200
        assert visible(folder) == ["Ann.wav", "李雷.wav"]


def test_recordings_with_files_are_heard_replaced_and_removed(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        recordings = client.get("/v1/speakers/Ann").json()["recordings"]
        assert all(recording["has_audio"] for recording in recordings)
        path = f"/v1/speakers/Ann/recordings/{recordings[0]['id']}"
        assert client.get(f"{path}/audio").content[:4] == b"RIFF"
        assert client.delete(path).status_code == 200
        assert visible(folder) == ["Ann", "Ann/2.wav", "李雷.wav"]
        check_problem(client.get(f"{path}/audio"), 404, "unknown-recording")
        client.put("/v1/speakers/Ann/recordings", files=files(speech(3)))
        register = {"speaker_id": "李雷"}
        client.post("/voiceprint/register", data=register, files=files(speech(3)))
        assert visible(folder) == []
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 1, "李雷": 1}


def test_of_two_last_recordings_one_stays_with_its_file(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        recordings = client.get("/v1/speakers/Ann").json()["recordings"]
        remove = client.app.state.service.inbox.remove_recording
        with ThreadPoolExecutor(2) as executor:
            futures = [executor.submit(remove, "Ann", each["id"]) for each in recordings]
        errors = [future.exception() for future in futures]
        assert [type(error) for error in errors if error is not None] == [OnlyRecordingError]
        (left,) = client.get("/v1/speakers/Ann").json()["recordings"]
        assert client.get(f"/v1/speakers/Ann/recordings/{left['id']}/audio").status_code == 200


def test_files_that_cannot_be_used_are_named_and_stop_nothing(folder: Path, url: str) -> None:
    (folder / "Bad.wav").write_bytes(b"no sound")
    write_wav(folder / "Silent" / "1.wav", np.zeros(16_000, np.float32))
    (folder / "Loop.wav").symlink_to("Loop.wav")
    encoder = FakeEncoder()
    database = SqlVoiceStore(url, encoder)
    inbox = Inbox(folder, database, encoder)
    assert inbox.enrol_files() == ["Ann", "李雷"]
    reasons = {Path(path).relative_to(folder).as_posix(): why for path, why in inbox.rejected}
    assert reasons.keys() == {"Bad.wav", "Silent/1.wav"}
    assert "not audio" in reasons["Bad.wav"]
    # A file that was damaged later leaves the voice as it was.
    (folder / "Ann.wav").write_bytes(b"no sound")
    assert inbox.enrol_files() == []
    assert len(inbox.rejected) == 3 and len(database.recordings("Ann")) == 2
    database.close()


def test_names_cannot_leave_the_folder(folder: Path, url: str) -> None:
    outside = folder.parent / "outside.wav"
    write_wav(outside, synthetic_speech(5))
    (folder / "bad|name.wav").write_bytes(outside.read_bytes())
    (folder / os.fsdecode(b"\xff.wav")).write_bytes(outside.read_bytes())
    (folder / "Ann" / os.fsdecode(b"\xff.wav")).write_bytes(speech(1, 3))
    encoder = FakeEncoder()
    database = SqlVoiceStore(url, encoder)
    inbox = Inbox(folder, database, encoder)
    assert inbox.enrol_files() == ["Ann", "李雷"]
    assert len(inbox.rejected) == 2 and len(database.recordings("Ann")) == 3
    assert inbox.enrol_files() == []
    # Whatever somebody writes into the database: only files in the folder are chosen.
    with database._connections.write() as connection:
        connection.exec_driver_sql("UPDATE voiceprint_inbox SET path = '../outside.wav'"
                                   " WHERE path = 'Ann.wav'")  # fmt: skip
    assert len(inbox.remove("Ann").files) == 3 + 1 + 3
    assert outside.exists() and not (folder / "Ann").exists()
    database.close()


def test_a_file_that_cannot_be_removed_holds_up_its_speaker_only(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "2.wav":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with running(url, audio_db=folder) as client:
            answer = client.delete("/v1/speakers/Ann")
            check_problem(answer, 503, "files")
            assert "2.wav" not in answer.text and answer.headers["Retry-After"]
            assert client.delete("/v1/speakers/李雷").status_code == 200
            assert names(client) == {"Ann": 2}, "it can be deleted again"
        with running(url, audio_db=folder) as client:
            assert names(client) == {"Ann": 2}
            ((name, reason),) = client.app.state.service.inbox.rejected
            assert name == "Ann" and "2.wav: cannot be removed" in reason
    with running(url, audio_db=folder) as client:
        assert names(client) == {} and visible(folder) == []


KILLED = """
import os, signal, sys
from pathlib import Path

from service.inbox import Inbox
from tests.support.fake_encoder import FakeEncoder
from voices.sql.store import SqlVoiceStore

folder, url, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
database = SqlVoiceStore(url, FakeEncoder())
inbox = Inbox(folder, database, FakeEncoder())
steps = []


def watch(owner, name):
    function = getattr(owner, name)

    def step(*arguments, **options):
        steps.append(name)
        if len(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    setattr(owner, name, step)


for owner, name in [(database.inbox_files, "begin_deletion"), (database, "remove")]:
    watch(owner, name)
watch(Path, "unlink")
inbox.remove("Ann")
"""


@pytest.mark.parametrize("last_step", [1, 2, 3, 4])
def test_a_deletion_that_was_killed_is_finished_at_the_next_start(
    folder: Path, url: str, last_step: int
) -> None:
    with running(url, audio_db=folder) as client:
        client.post("/v1/speakers/Ann/recordings", files=files(speech(1, 7)))
    command = [sys.executable, "-c", KILLED, str(folder), url, str(last_step)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, cwd=folder, check=False)
    assert ended.returncode == -signal.SIGKILL
    with running(url, audio_db=folder) as client:
        if last_step == 1:  # before anything was noted
            assert names(client) == {"Ann": 3, "李雷": 1}
        else:
            assert names(client) == {"李雷": 1} and visible(folder) == ["李雷.wav"]


def test_who_is_enrolled_again_is_not_deleted_at_the_next_start(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        client.app.state.service.database.inbox_files.begin_deletion("Ann")
        answer = client.post("/v1/speakers/Ann/recordings", files=files(speech(1, 7)))
        assert answer.status_code == 201
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 3, "李雷": 1}


def test_what_killed_writers_left_goes_at_the_start(folder: Path, url: str) -> None:
    leftovers = [folder / "..embeddings.0a.tmp.npz", folder / "Ann" / ".3.0b.tmp.wav"]
    for path in leftovers:
        path.write_bytes(b"parts of voices")
        os.utime(path, (0, 0))
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 2, "李雷": 1}
    assert not any(path.exists() for path in leftovers)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_an_earlier_version_enrolled_is_not_enrolled_anew(
    folder: Path, url: str, is_damaged: bool
) -> None:
    encoder = FakeEncoder()
    database = SqlVoiceStore(url, encoder)
    Inbox(folder, database, encoder).enrol_files()
    taken: dict[str, dict[str, list[object]]] = {}
    for row in database.inbox_files.all():
        status = (folder / row.path).stat()
        entry = [status.st_size, status.st_mtime_ns, row.recording_id]
        taken.setdefault(row.speaker, {})[row.path] = entry
    database.inbox_files.write([])
    record = json.dumps({database.name: taken, "//intent in x": []})
    (folder / ".service.json").write_text(record[: -1 if is_damaged else None], encoding="utf-8")
    inbox = Inbox(folder, database, encoder)
    assert inbox.enrol_files() == (["Ann", "李雷"] if is_damaged else [])
    assert inbox.enrol_files() == [] and not (folder / ".service.json").exists()
    database.close()


def test_no_folder_is_no_trouble(tmp_path: Path, url: str) -> None:
    with running(url, audio_db=tmp_path / "none") as client:
        enrol(client, "Ann", 1)
        assert client.delete("/v1/speakers/Ann").status_code == 200
    assert not (tmp_path / "none").exists()

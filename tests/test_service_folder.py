"""The folder of infer_recognition.py: taken over, kept in step, and really deleted."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from service_client import TestClient, check_problem, enrol, files, running, speech
from voices import synthetic_speech, write_wav

from service import voice_folder
from service.voice_folder import RECORD_NAME, VoiceFolder
from utils.database import VoiceprintDatabase
from utils.embedding_cache import CACHE_NAME
from utils.errors import DatabaseError, OnlyRecordingError
from utils.sql_database import SqlVoiceprintDatabase


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


def test_speakers_are_taken_over_once(folder: Path, url: str) -> None:
    encoder = FakeEncoder()
    with running(url, encoder=encoder, audio_db=folder) as client:
        assert names(client) == {"Ann": 2, "李雷": 1}
        assert client.post("/v1/identify", files=files(speech(2, 5))).json()["name"] == "李雷"
    count = encoder.num_embedded
    with running(url, encoder=encoder, audio_db=folder) as client:
        assert names(client) == {"Ann": 2, "李雷": 1}
    assert encoder.num_embedded == count


def test_the_folder_is_followed_at_each_start(folder: Path, url: str) -> None:
    with running(url, audio_db=folder):
        pass
    write_wav(folder / "Ben.wav", synthetic_speech(3))
    (folder / "Ann" / "2.wav").unlink()
    VoiceprintDatabase(folder).delete("李雷")
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 1, "Ben": 1}
    write_wav(folder / "Ann.wav", synthetic_speech(2, 0, 2.5))
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 1, "Ben": 1}
        assert client.post("/v1/identify", files=files(speech(2, 5))).json()["name"] == "Ann"


def test_who_was_enrolled_in_the_service_stays(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        enrol(client, "Zoe", 3)
        client.post("/v1/speakers/Ann/recordings", files=files(speech(1, 7)))
    VoiceprintDatabase(folder).delete("Ann")
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 1, "Zoe": 2, "李雷": 1}


def test_deleting_deletes_the_files(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        removed = client.delete("/v1/speakers/ann").json()["removed"]
        assert f"{folder.name}/Ann.wav" in removed["files"]
        assert f"{folder.name}/Ann/2.wav" in removed["files"]
    assert not (folder / "Ann").exists()
    with running(url, audio_db=folder) as client:
        assert names(client) == {"李雷": 1}


def test_killed_between_files_and_database_a_deletion_is_finished(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        client.app.state.service.folder.delete("Ann")
        assert names(client) == {"Ann": 2, "李雷": 1}
    with running(url, audio_db=folder) as client:
        assert names(client) == {"李雷": 1}


def test_renaming_renames_the_files(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        assert client.patch("/v1/speakers/Ann", json={"name": "Anna"}).status_code == 200
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["Anna", "Anna.wav", "李雷.wav"]
    encoder = FakeEncoder()
    with running(url, encoder=encoder, audio_db=folder) as client:
        assert names(client) == {"Anna": 2, "李雷": 1}
    assert encoder.num_embedded == 0


def test_files_do_not_become_those_of_whoever_got_the_name_first(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        database = client.app.state.service.database
        rename = database.rename

        def rename_too_late(name: str, new_name: str) -> object:
            enrol(client, new_name, 3)
            return rename(name, new_name)

        database.rename = rename_too_late
        answer = client.patch("/v1/speakers/Ann", json={"name": "Anna"})
        check_problem(answer, 409, "speaker-exists")
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 2, "Anna": 2, "李雷": 1}


def test_a_name_of_files_that_wait_is_taken(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        VoiceprintDatabase(folder, FakeEncoder()).add("Zoe", synthetic_speech(4, 0, 2.0))
        answer = client.patch("/v1/speakers/Ann", json={"name": "zoe"})
        assert str(folder) not in answer.text
        check_problem(answer, 409, "speaker-exists")
        assert names(client) == {"Ann": 2, "李雷": 1}


def test_no_embedding_stays_in_the_cache_of_the_scripts(folder: Path, url: str) -> None:
    def cached() -> set[str]:
        with np.load(folder / CACHE_NAME) as file:
            return {entry[0] for entry in json.loads(str(file["index"]))["entries"]}

    VoiceprintDatabase(folder, FakeEncoder()).load()
    with running(url, audio_db=folder) as client:
        assert cached() == {"Ann.wav", "Ann/2.wav", "李雷.wav"}
        recordings = client.get("/v1/speakers/Ann").json()["recordings"]
        client.delete(f"/v1/speakers/Ann/recordings/{recordings[1]['id']}")
        assert cached() == {"Ann.wav", "李雷.wav"}
        client.patch("/v1/speakers/Ann", json={"name": "Anna"})
        client.delete("/v1/speakers/Anna")
        assert cached() == {"李雷.wav"}


def test_many_deletions_at_a_time_are_all_noted(folder: Path, url: str) -> None:
    for number in range(12):
        VoiceprintDatabase(folder, FakeEncoder()).add(f"S{number}", synthetic_speech(number % 5))
    with running(url, audio_db=folder) as client:
        with ThreadPoolExecutor(12) as executor:
            list(executor.map(client.delete, [f"/v1/speakers/S{number}" for number in range(12)]))
        (taken,) = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8")).values()
        assert set(taken) == {"Ann", "李雷"}


def test_recordings_with_files_are_heard_and_removed(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        recordings = client.get("/v1/speakers/Ann").json()["recordings"]
        assert all(recording["has_audio"] for recording in recordings)
        path = f"/v1/speakers/Ann/recordings/{recordings[0]['id']}"
        assert client.get(f"{path}/audio").content[:4] == b"RIFF"
        assert client.delete(path).status_code == 200
        assert len(list(folder.rglob("*.wav"))) == 2
        check_problem(client.get(f"{path}/audio"), 404, "unknown-recording")


def test_of_two_last_recordings_one_stays_with_its_file(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        recordings = client.get("/v1/speakers/Ann").json()["recordings"]
        voices = client.app.state.service.folder
        with ThreadPoolExecutor(2) as executor:
            futures = [
                executor.submit(voices.remove_recording, "Ann", recording["id"])
                for recording in recordings
            ]
        errors = [future.exception() for future in futures]
        assert [type(error) for error in errors if error is not None] == [OnlyRecordingError]
        assert sum(path.exists() for path in (folder / "Ann.wav", folder / "Ann" / "2.wav")) == 1
        (left,) = client.get("/v1/speakers/Ann").json()["recordings"]
        assert left["has_audio"]
        assert client.get(f"/v1/speakers/Ann/recordings/{left['id']}/audio").status_code == 200


def test_replacing_removes_the_old_files(folder: Path, url: str) -> None:
    with running(url, audio_db=folder) as client:
        client.put("/v1/speakers/Ann/recordings", files=files(speech(3)))
        assert not (folder / "Ann.wav").exists()
        register = {"speaker_id": "李雷"}
        client.post("/voiceprint/register", data=register, files=files(speech(3)))
        assert not list(folder.rglob("*.wav"))
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 1, "李雷": 1}


def test_files_that_cannot_be_used_are_told(folder: Path, url: str) -> None:
    (folder / "Bad.wav").write_bytes(b"no sound")
    encoder = FakeEncoder()
    database = SqlVoiceprintDatabase(url, encoder)
    voices = VoiceFolder(folder, database, encoder)
    assert voices.take_over() == ["Ann", "Bad", "李雷"]
    ((path, reason),) = voices.rejected
    assert path.endswith("Bad.wav")
    assert "not audio" in reason
    (folder / "New.wav").write_bytes((folder / "Ann.wav").read_bytes())
    with pytest.raises(DatabaseError, match="files of New; choose another name"):
        voices.rename("Ann", "New")
    database.close()


class Killed(BaseException):
    """The process ends here."""


class Killer:
    """Lets some steps happen, counts them, and kills before or after the last one."""

    def __init__(self, last_step: int, is_after: bool) -> None:
        self.last_step, self.is_after, self.num_steps = last_step, is_after, 0

    def watch(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        function = getattr(owner, name)

        def step(*arguments: object, **options: object) -> object:
            self.num_steps += 1
            if self.num_steps == self.last_step and not self.is_after:
                raise Killed
            result = function(*arguments, **options)
            if self.num_steps == self.last_step:
                raise Killed
            return result

        monkeypatch.setattr(owner, name, step)


@pytest.mark.parametrize("is_after", [False, True])
def test_killed_at_any_step_a_take_over_is_finished_at_the_next_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_after: bool
) -> None:
    encoder = FakeEncoder()
    changed = encoder.embed_waveform(synthetic_speech(4, 0, 2.5))
    for last_step in range(1, 100):
        copy = shutil.copytree(folder, tmp_path / f"{last_step}")
        database = SqlVoiceprintDatabase(f"sqlite:///{tmp_path}/{last_step}.sqlite3", encoder)
        VoiceFolder(copy, database, encoder).take_over()
        write_wav(copy / "Ann.wav", synthetic_speech(4, 0, 2.5))
        (copy / "Ann" / "2.wav").unlink()
        (copy / "李雷.wav").unlink()
        write_wav(copy / "Ben.wav", synthetic_speech(2, 0))
        write_wav(copy / "Ben" / "2.wav", synthetic_speech(2, 1))
        killer = Killer(last_step, is_after)
        has_ended = False
        with monkeypatch.context() as patch:
            for name in ("enrol", "remove", "remove_recording"):
                killer.watch(patch, database, name)
            killer.watch(patch, voice_folder, "write_text_atomically")
            try:
                VoiceFolder(copy, database, encoder).take_over()
                has_ended = True
            except Killed:
                VoiceFolder(copy, database, encoder).take_over()
        found = {name: len(database.recordings(name)) for name in database.names()}
        assert found == {"Ann": 1, "Ben": 2}, last_step
        assert database.score("Ann", changed) == pytest.approx(1, abs=1e-5), last_step
        ids = {recording.id for name in found for recording in database.recordings(name)}
        record = json.loads((copy / RECORD_NAME).read_text(encoding="utf-8"))
        entries = [entry for files in record[database.name].values() for entry in files.values()]
        assert {entry[2] for entry in entries} == ids and {len(entry) for entry in entries} == {3}
        # All of them belong to their files, and go with them.
        for path in copy.rglob("*.wav"):
            path.unlink()
        VoiceFolder(copy, database, encoder).take_over()
        assert database.names() == [], last_step
        database.close()
        if has_ended:
            break
    assert last_step > 5, "every step was the last one once"


def recordings_of_all(database: SqlVoiceprintDatabase) -> dict[str, set[str]]:
    return {name: {r.id for r in database.recordings(name)} for name in database.names()}


def visible(folder: Path) -> list[str]:
    """The files and folders in a folder, without hidden ones."""
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return sorted(path for path in paths if not path.startswith("."))


@pytest.mark.parametrize("new_name", ["Anna", "ANN"])
@pytest.mark.parametrize("is_after", [False, True])
def test_killed_at_any_step_of_a_renaming_the_speaker_stays_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_after: bool, new_name: str
) -> None:
    write_wav(folder / "Anne.wav", synthetic_speech(3))  # another one
    encoder = FakeEncoder()
    found_names: list[str] = []
    for last_step in range(1, 100):
        copy = shutil.copytree(folder, tmp_path / f"{last_step}")
        database = SqlVoiceprintDatabase(f"sqlite:///{tmp_path}/{last_step}.sqlite3", encoder)
        voices = VoiceFolder(copy, database, encoder)
        voices.take_over()
        # A recording that only the service has: without it the files would tell everything.
        database.add("Ann", synthetic_speech(1, 2))
        before = recordings_of_all(database)
        ids = before.pop("Ann")
        num_embedded = encoder.num_embedded
        killer = Killer(last_step, is_after)
        has_ended = False
        with monkeypatch.context() as patch:
            killer.watch(patch, database, "rename")
            killer.watch(patch, Path, "rename")
            killer.watch(patch, voice_folder, "write_text_atomically")
            try:
                voices.rename("Ann", new_name)
                has_ended = True
            except Killed:
                voices = VoiceFolder(copy, database, encoder)
                assert voices.take_over() == []
        after = recordings_of_all(database)
        (name,) = set(after) - set(before)
        found_names.append(name)
        assert len(ids) == 3 and after == before | {name: ids}, last_step
        assert encoder.num_embedded == num_embedded
        theirs = ["Anne.wav", "李雷.wav"]
        assert visible(copy) == sorted([name, f"{name}/2.wav", f"{name}.wav", *theirs])
        (record,) = json.loads((copy / RECORD_NAME).read_text(encoding="utf-8")).values()
        assert set(record) == {name, "Anne", "李雷"}
        # The files are still those of their recordings, and nothing is left to do.
        assert VoiceFolder(copy, database, encoder).take_over() == []
        voices.delete(name)
        VoiceFolder(copy, database, encoder).take_over()
        assert len(database.recordings(name)) == 1, last_step
        database.close()
        if has_ended:
            break
    assert last_step > 5 and {*found_names} <= {"Ann", new_name}
    assert found_names[0] == "Ann" and found_names[-1] == new_name, "both ways are gone"


def test_a_renaming_that_fails_in_the_middle_is_undone(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.is_dir() and target.name == "Anna":
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    before = visible(folder)
    with running(url, audio_db=folder) as client:
        client.post("/v1/speakers/Ann/recordings", files=files(speech(1, 7)))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refuse)
            answer = client.patch("/v1/speakers/Ann", json={"name": "Anna"})
            check_problem(answer, 503, "database")
        assert names(client) == {"Ann": 3, "李雷": 1} and visible(folder) == before
        assert client.patch("/v1/speakers/Ann", json={"name": "Anna"}).status_code == 200
        assert names(client) == {"Anna": 3, "李雷": 1}
    assert "Anna/2.wav" in visible(folder) and "Ann.wav" not in visible(folder)


def test_of_two_files_that_would_get_one_name_none_is_lost(folder: Path, url: str) -> None:
    # One name in two normal forms: two files where the file system keeps them apart.
    write_wav(folder / "Zoe\u0301.wav", synthetic_speech(3))
    write_wav(folder / "Zo\u00e9.wav", synthetic_speech(3, 1))
    before = visible(folder)
    with running(url, audio_db=folder) as client:
        answer = client.patch("/v1/speakers/Zo\u00e9", json={"name": "Zoe"})
        assert answer.status_code == (503 if len(before) == 6 else 200)
        assert len(visible(folder)) == len(before)


def test_a_damaged_record_is_as_none(folder: Path, url: str) -> None:
    with running(url, audio_db=folder):
        pass
    (folder / ".service.json").write_text("{", encoding="utf-8")
    (folder / "李雷.wav").unlink()
    with running(url, audio_db=folder) as client:
        assert names(client)["李雷"] == 1
    assert list(json.loads((folder / ".service.json").read_text(encoding="utf-8")).values())


def test_no_folder_is_no_trouble(tmp_path: Path, url: str) -> None:
    with running(url, audio_db=tmp_path / "none") as client:
        enrol(client, "Ann", 1)
        assert client.delete("/v1/speakers/Ann").status_code == 200
    assert not (tmp_path / "none").exists()

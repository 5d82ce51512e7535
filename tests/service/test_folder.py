"""The folder of infer_recognition.py: taken over, kept in step, and really deleted."""

import contextlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import folder_record
from service.folder_record import INTENT, RECORD_NAME
from service.voice_folder import VoiceFolder
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_client import (
    TestClient,
    check_problem,
    enrol,
    files,
    running,
    speech,
)
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.arrays import FloatArray
from utils.errors import DatabaseError, OnlyRecordingError, UnknownSpeakerError
from voices.cache import CACHE_NAME, EmbeddingCache
from voices.folder import VoiceprintDatabase
from voices.sql.records import NewRecording
from voices.sql.store import SqlVoiceprintDatabase


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


def cached(folder: Path) -> set[str]:
    """The files of a folder whose embeddings the scripts' cache has."""
    with np.load(folder / CACHE_NAME) as file:
        return {entry[0] for entry in json.loads(str(file["index"]))["entries"]}


def test_no_embedding_stays_in_the_cache_of_the_scripts(folder: Path, url: str) -> None:
    VoiceprintDatabase(folder, FakeEncoder()).load()
    with running(url, audio_db=folder) as client:
        assert cached(folder) == {"Ann.wav", "Ann/2.wav", "李雷.wav"}
        recordings = client.get("/v1/speakers/Ann").json()["recordings"]
        client.delete(f"/v1/speakers/Ann/recordings/{recordings[1]['id']}")
        assert cached(folder) == {"Ann.wav", "李雷.wav"}
        client.patch("/v1/speakers/Ann", json={"name": "Anna"})
        client.delete("/v1/speakers/Anna")
        assert cached(folder) == {"李雷.wav"}


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
            is_last = self.num_steps == self.last_step
            if is_last and not self.is_after:
                raise Killed
            result = function(*arguments, **options)
            if is_last:
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
            killer.watch(patch, folder_record, "write_text_atomically")
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
            killer.watch(patch, folder_record, "write_text_atomically")
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
        VoiceprintDatabase(copy).delete(name)
        VoiceFolder(copy, database, encoder).take_over()
        assert len(database.recordings(name)) == 1, last_step
        database.close()
        if has_ended:
            break
    assert last_step > 5 and {*found_names} <= {"Ann", new_name}
    assert found_names[0] == "Ann" and found_names[-1] == new_name, "both ways are gone"


def act(voices: VoiceFolder, action: str, recording_id: str, new_voice: FloatArray) -> None:
    """Does something to Ann."""
    if action == "replace":
        new = [NewRecording(new_voice, 2.0, None, 2.0)]
        voices.enrol("Ann", new, if_exists="replace", must_exist=True)
    elif action == "remove":
        voices.remove("Ann")
    else:
        voices.remove_recording("Ann", recording_id)


@pytest.mark.parametrize("action", ["replace", "remove", "remove_recording"])
@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("is_start", [False, True])
def test_killed_at_any_step_a_voice_is_whole_or_really_gone(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_start: bool,
    is_after: bool,
    action: str,
) -> None:
    """Killed during the operation, or during the start after a kill in its middle."""
    (folder / "Ann" / ".2.part.wav").write_bytes(b"a writer was killed")
    (folder / "Ann" / "sub").mkdir()
    (folder / "Ann" / "sub" / "notes.txt").write_text("a stranger's file", encoding="utf-8")
    encoder = FakeEncoder()
    VoiceprintDatabase(folder, encoder).load()
    old_voice, service_voice, new_voice = (
        encoder.embed_waveform(synthetic_speech(*numbers)) for numbers in [(1, 0), (1, 2), (3, 0)]
    )
    all_files, all_cached = visible(folder), cached(folder)
    outcomes: list[bool] = []
    for last_step in range(1, 100):
        copy = shutil.copytree(folder, tmp_path / f"{last_step}")
        database = SqlVoiceprintDatabase(f"sqlite:///{tmp_path}/{last_step}.sqlite3", encoder)
        voices = VoiceFolder(copy, database, encoder)
        voices.take_over()
        # A recording that only the service has: no file tells of it.
        database.enrol("Ann", [NewRecording(service_voice, 2.0, None, 2.0)], if_exists="add")
        before = recordings_of_all(database)
        score_before = database.score("Ann", old_voice)
        record_before = (copy / RECORD_NAME).read_text(encoding="utf-8")
        (chosen,) = (id_ for id_ in before["Ann"] if "Ann.wav" in voices._record.find(id_))
        num_embedded = encoder.num_embedded
        steps = [(database, name) for name in ("enrol", "remove", "remove_recording")]
        if is_start:
            with monkeypatch.context() as patch:
                first = Killer(1, is_after=action == "replace")
                for owner, name in steps:
                    first.watch(patch, owner, name)
                with pytest.raises(Killed):
                    act(voices, action, chosen, new_voice)
            voices = VoiceFolder(copy, database, encoder)
        steps += [(Path, "unlink"), (Path, "rmdir"), (EmbeddingCache, "save")]
        killer = Killer(last_step, is_after)
        has_ended = False
        with monkeypatch.context() as patch:
            for owner, name in [*steps, (folder_record, "write_text_atomically")]:
                killer.watch(patch, owner, name)
            with contextlib.suppress(Killed):
                if is_start:
                    voices.take_over()
                else:
                    act(voices, action, chosen, new_voice)
                has_ended = True
        if not has_ended:
            record = json.loads((copy / RECORD_NAME).read_text(encoding="utf-8"))
            is_noted = INTENT.format(database.name) in record
            is_stored = recordings_of_all(database) != before
            voices = VoiceFolder(copy, database, encoder)
            assert voices.take_over() == []
        is_done = has_ended or is_stored or (is_noted and action != "replace")
        outcomes.append(is_done)
        after = recordings_of_all(database)
        left = visible(copy)
        others = {name: ids for name, ids in before.items() if name != "Ann"}
        record_after = json.loads((copy / RECORD_NAME).read_text(encoding="utf-8"))
        record = record_after.pop(database.name)
        if not is_done:
            assert after == before and left == all_files, last_step
            assert (copy / RECORD_NAME).read_text(encoding="utf-8") == record_before
            assert database.score("Ann", old_voice) == score_before
            assert cached(copy) == all_cached
        elif action == "remove_recording":
            assert after == others | {"Ann": before["Ann"] - {chosen}}, last_step
            assert left == sorted({*all_files} - {"Ann.wav"}), last_step
            assert set(record["Ann"]) == {"Ann/2.wav"}
            assert cached(copy) == all_cached - {"Ann.wav"}
        else:
            assert left == ["李雷.wav"], last_step
            assert set(record) == {"李雷"} and cached(copy) == {"李雷.wav"}
            if action == "remove":
                assert after == others, last_step
                assert "Ann" not in dict(database.identify(old_voice, top_k=9))
            else:
                assert set(after) == set(before) and len(after["Ann"]) == 1, last_step
                assert after["Ann"].isdisjoint(before["Ann"])
                assert database.score("Ann", new_voice) == pytest.approx(1, abs=1e-5)
                assert database.identify(new_voice)[0][0] == "Ann"
        assert encoder.num_embedded == num_embedded
        assert not record_after
        assert VoiceFolder(copy, database, encoder).take_over() == [], "nothing is left to do"
        database.close()
        if has_ended:
            break
    assert last_step > 8, "every step was the last one once"
    # Up to the note of a deletion, and up to the transaction of a replacement, all stays as it was.
    num_undone = 0 if is_start else (3 if action == "replace" else 1) - is_after
    assert outcomes == [False] * num_undone + [True] * (last_step - num_undone)


@pytest.mark.parametrize("action", ["replace", "remove"])
def test_a_file_that_was_made_after_the_kill_is_not_lost(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    encoder = FakeEncoder()
    database = SqlVoiceprintDatabase(url, encoder)
    voices = VoiceFolder(folder, database, encoder)
    voices.take_over()
    new_voice = encoder.embed_waveform(synthetic_speech(3))
    with monkeypatch.context() as patch:
        killer = Killer(1, is_after=True)
        for name in ("enrol", "remove"):
            killer.watch(patch, database, name)
        with pytest.raises(Killed):
            act(voices, action, "", new_voice)
    write_wav(folder / "Ann.wav", synthetic_speech(4, 0, 2.5))
    assert VoiceFolder(folder, database, encoder).take_over() == ["Ann"]
    assert visible(folder) == ["Ann.wav", "李雷.wav"]
    assert len(database.recordings("Ann")) == (2 if action == "replace" else 1)
    database.close()


@pytest.mark.parametrize("action", ["replace", "remove", "remove_recording"])
@pytest.mark.parametrize("is_stored", [False, True])
def test_what_the_database_refuses_is_not_done_to_the_files_either(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, action: str, is_stored: bool
) -> None:
    encoder = FakeEncoder()
    database = SqlVoiceprintDatabase(url, encoder)
    voices = VoiceFolder(folder, database, encoder)
    voices.take_over()
    before = visible(folder)
    (chosen,) = (r.id for r in database.recordings("Ann") if "Ann.wav" in voices._record.find(r.id))
    new_voice = encoder.embed_waveform(synthetic_speech(3))
    with monkeypatch.context() as patch:
        for name in ("enrol", "remove", "remove_recording"):
            function = getattr(database, name)

            def fail(*args: object, _function: Any = function, **options: object) -> None:
                if is_stored:  # and only the answer was lost
                    _function(*args, **options)
                raise DatabaseError("the connection was lost")

            patch.setattr(database, name, fail)
        with pytest.raises(DatabaseError, match="connection was lost"):
            act(voices, action, chosen, new_voice)
    if not is_stored:
        assert visible(folder) == before and len(database.recordings("Ann")) == 2
        VoiceFolder(folder, database, encoder).take_over()
        assert visible(folder) == before and len(database.recordings("Ann")) == 2
        act(voices, action, chosen, new_voice)
    left = {"remove_recording": ["Ann", "Ann/2.wav"]}.get(action, [])
    assert visible(folder) == [*left, "李雷.wav"]
    with contextlib.suppress(UnknownSpeakerError):
        assert len(database.speaker("Ann").recordings) == 1
    assert VoiceFolder(folder, database, encoder).take_over() == []
    assert len(database.names()) == (1 if action == "remove" else 2)
    database.close()


def test_all_spellings_of_a_name_are_deleted_and_renamed(folder: Path, url: str) -> None:
    write_wav(folder / "ann" / "3.wav", synthetic_speech(1, 3))
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 3, "李雷": 1}
        assert client.patch("/v1/speakers/Ann", json={"name": "Eve"}).status_code in (200, 503)
    with running(url, audio_db=folder) as client:
        (name,) = names(client).keys() - {"李雷"}
        assert names(client)[name] == 3
        assert client.delete(f"/v1/speakers/{name}").status_code == 200
        assert visible(folder) == ["李雷.wav"]
    with running(url, audio_db=folder) as client:
        assert names(client) == {"李雷": 1}


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
            check_problem(answer, 503, "files")
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


def test_what_killed_writers_left_goes_at_the_start(folder: Path, url: str) -> None:
    leftovers = [folder / "..embeddings.0a.tmp.npz", folder / "Ann" / ".3.0b.tmp.wav"]
    for path in leftovers:
        path.write_bytes(b"parts of voices")
        os.utime(path, (0, 0))
    with running(url, audio_db=folder) as client:
        assert names(client) == {"Ann": 2, "李雷": 1}
    assert not any(path.exists() for path in leftovers)


def test_no_folder_is_no_trouble(tmp_path: Path, url: str) -> None:
    with running(url, audio_db=tmp_path / "none") as client:
        enrol(client, "Ann", 1)
        assert client.delete("/v1/speakers/Ann").status_code == 200
    assert not (tmp_path / "none").exists()

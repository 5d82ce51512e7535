"""Speakers of whose voice something in the database was changed from outside."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from service.logs import FIELDS
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

KEY = bytes(range(32))

DAMAGE = {
    "embedding": "UPDATE voiceprint_embeddings SET embedding = {content} "
    "WHERE recording_id = '{id}'",
    "key": "UPDATE voiceprint_keys SET stored = {content} WHERE id = "
    "(SELECT key_id FROM voiceprint_recordings WHERE id = '{id}')",
    "audio": "UPDATE voiceprint_audio SET content = {content} WHERE recording_id = '{id}'",
    "speaker": "UPDATE voiceprint_means SET embedding = {content} WHERE speaker_id = "
    "(SELECT speaker_id FROM voiceprint_recordings WHERE id = '{id}')",
}

ANN = "/v1/speakers/Ann"
ADDED = f"{ANN}/recordings"


def damage(client: TestClient, what: str, recording_id: str, content: str = "'\\x0123'") -> None:
    """Changes what is stored of a recording, as another program could."""
    database = client.app.state.service.database._connections
    if database.is_sqlite and content.startswith("'\\x"):
        content = content.replace("'\\x", "x'")
    with database.write() as connection:
        connection.exec_driver_sql(DAMAGE[what].format(content=content, id=recording_id))


def ids(client: TestClient) -> list[str]:
    return [recording["id"] for recording in client.get(ANN).json()["recordings"]]


def is_ann(client: TestClient, speaker: int = 1) -> bool:
    answer = client.post(f"{ANN}/verify", files=files(speech(speaker, 7)))
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["is_same_speaker"])


@pytest.fixture(params=[None, KEY], ids=["readable", "encrypted"])
def client(request: pytest.FixtureRequest, database_url: str) -> Iterator[TestClient]:
    """A service where Ann has three recordings, the second of them damaged."""
    with running(database_url, key=request.param, keep_audio=True) as client:
        enrol(client, "Ann", 1, utterances=3)
        damage(client, "key" if request.param else "embedding", ids(client)[1])
        yield client


def test_nothing_is_added_to_a_damaged_voice(client: TestClient) -> None:
    before = ids(client)
    answer = client.post(ADDED, files=files(speech(1, 5)))
    detail = check_problem(answer, 409, "damaged")["detail"]
    assert "enrol the speaker again" in detail and before[1] not in detail
    assert ids(client) == before


@pytest.mark.slow
def test_a_damaged_voice_is_replaced(client: TestClient) -> None:
    assert client.put(ADDED, files=files(speech(6), speech(6, 1))).status_code == 200
    assert client.post(ADDED, files=files(speech(6, 5))).status_code == 201
    assert len(ids(client)) == 3 and is_ann(client, 6) and not is_ann(client, 1)


def test_a_damaged_recording_is_removed(client: TestClient) -> None:
    assert client.delete(f"{ADDED}/{ids(client)[1]}").status_code == 200
    assert client.post(ADDED, files=files(speech(1, 5))).status_code == 201
    assert len(ids(client)) == 3 and is_ann(client)


def test_damage_keeps_no_other_recording_from_being_removed(client: TestClient) -> None:
    first, second, third = ids(client)
    assert client.delete(f"{ADDED}/{first}").status_code == 200
    assert is_ann(client)  # by the third one
    assert client.delete(f"{ADDED}/{third}").status_code == 200
    assert ids(client) == [second]
    answer = client.post(f"{ANN}/verify", files=files(speech(1)))
    check_problem(answer, 409, "damaged")
    assert client.post("/v1/identify", files=files(speech(1))).json()["matches"] == []


@pytest.mark.slow
def test_a_damaged_speaker_is_deleted_renamed_and_registered_anew(client: TestClient) -> None:
    assert client.patch(ANN, json={"name": "Anna"}).json()["name"] == "Anna"
    assert client.patch("/v1/speakers/Anna", json={"name": "Ann"}).status_code == 200
    assert client.delete(ANN).json()["removed"]["recordings"] == 3
    enrol(client, "Ann", 1)
    damage(client, "embedding", ids(client)[0])
    register = {"speaker_id": "Ann"}
    answer = client.post("/voiceprint/register", data=register, files=files(speech(2, 7)))
    assert answer.status_code == 200, answer.text
    assert is_ann(client, 2)


def test_damaged_sound_is_told(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with running(database_url, keep_audio=True) as client:
        enrol(client, "Ann", 1)
        recording_id = ids(client)[0]
        damage(client, "audio", recording_id)
        check_problem(client.get(f"{ADDED}/{recording_id}/audio"), 409, "damaged")
        # The log says which recording it is.
        (line,) = [record for record in caplog.records if record.message == "error"]
        reason = getattr(line, FIELDS)["reason"]
        assert recording_id in reason and "Ann" not in reason
        # The voiceprint itself is whole.
        assert client.post(ADDED, files=files(speech(1, 5))).status_code == 201
    # Another model needs the sound: what else there is of the speaker is used.
    with running(database_url, encoder=FakeEncoder("new"), keep_audio=True) as client:
        database = client.app.state.service.database
        assert database.load() == ["Ann"] and is_ann(client)
        ((label, reason),) = database.rejected
        assert recording_id in label and "cannot be decrypted" in reason


@pytest.mark.parametrize("content", ["'text'", "''", "42"])
def test_what_sqlite_would_store_too_is_damage(tmp_path: Path, content: str) -> None:
    with running(f"sqlite:///{tmp_path}/v.sqlite3") as client:
        enrol(client, "Ann", 1)
        enrol(client, "Ben", 2)
        damage(client, "speaker", ids(client)[0], content)
        answer = client.post(f"{ANN}/verify", files=files(speech(1)))
        check_problem(answer, 409, "damaged")
        found = client.post("/v1/identify", files=files(speech(2, 7))).json()
        assert [match["name"] for match in found["matches"]] == ["Ben"]
        damage(client, "embedding", ids(client)[0], content)
        check_problem(client.post(ADDED, files=files(speech(1, 5))), 409, "damaged")


def test_files_of_a_damaged_speaker_wait(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path}/v.sqlite3", tmp_path / "audio_db"
    write_wav(folder / "Ann.wav", synthetic_speech(1, 0))
    with running(url, audio_db=folder) as client:
        damage(client, "embedding", ids(client)[0])
    write_wav(folder / "Ann" / "2.wav", synthetic_speech(1, 1))
    with running(url, audio_db=folder) as client:
        ((path, reason),) = client.app.state.service.inbox.rejected
        assert path.endswith("2.wav") and "enrol Ann again" in reason
        damaged = ids(client)
        assert len(damaged) == 1
        assert client.post(ADDED, files=files(speech(1, 5))).status_code == 409
    # Once the damaged one's file is made anew, or is gone, nothing is in their way.
    write_wav(folder / "Ann.wav", synthetic_speech(1, 3))
    with running(url, audio_db=folder) as client:
        assert len(ids(client)) == 2 and damaged[0] not in ids(client)
        assert client.post(ADDED, files=files(speech(1, 5))).status_code == 201


DAMAGED_ROWS = {
    "a time": "UPDATE voiceprint_speakers SET created_at = 'yesterday' WHERE name = 'Ann'",
    "another time": "UPDATE voiceprint_recordings SET created_at = 9000000000000000000",
    "a length": "UPDATE voiceprint_recordings SET speech_s = 'long', position = 'first'",
    "a name": "UPDATE voiceprint_speakers SET name = CAST(x'416eff' AS TEXT), "
    "folded_name = CAST(x'616eff' AS TEXT) WHERE name = 'Ann'",
    "bytes": "UPDATE voiceprint_speakers SET name = x'416e6e', folded_name = x'616e6e' "
    "WHERE name = 'Ann'",
}


@pytest.mark.parametrize("what", DAMAGED_ROWS)
def test_a_damaged_row_is_listed_and_deleted(tmp_path: Path, what: str) -> None:
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url) as client:
        enrol(client, "Ann", 1)
        with client.app.state.service.database._connections.write() as connection:
            connection.exec_driver_sql(DAMAGED_ROWS[what])
    with running(url) as client:
        enrol(client, "Ben", 3)
        ann, ben = sorted(
            client.get("/v1/speakers").json()["speakers"], key=lambda each: not each["is_damaged"]
        )
        assert ann["is_damaged"] and not ben["is_damaged"] and ben["name"] == "Ben"
        assert client.post("/v1/identify", files=files(speech(3, 7))).json()["name"] == "Ben"
        path = f"/v1/speakers/{quote(ann['name'])}"
        assert client.get(path).json() == ann
        assert client.post(f"{path}/recordings", files=files(speech(1, 5))).status_code == 201
        assert client.delete(path).json()["removed"]["recordings"] == 3
        check_problem(client.delete(path), 404, "unknown-speaker")
        assert [each["name"] for each in client.get("/v1/speakers").json()["speakers"]] == ["Ben"]


def test_a_time_beyond_the_calendar(database_url: str) -> None:
    with running(database_url) as client:
        enrol(client, "Ann", 1)
        with client.app.state.service.database._connections.write() as connection:
            connection.exec_driver_sql(DAMAGED_ROWS["another time"])
        assert client.get("/v1/speakers").json()["speakers"][0]["is_damaged"]
        assert client.delete(ANN).status_code == 200


def test_a_damaged_voice_is_listed(client: TestClient) -> None:
    assert not client.get(ANN).json()["is_damaged"]
    damage(client, "speaker", ids(client)[0])
    with client.app.state.service.database._connections.write() as connection:
        connection.exec_driver_sql(
            "UPDATE voiceprint_speakers SET change_number = 1 + "
            "(SELECT change_number FROM voiceprint_info)"
        )
        connection.exec_driver_sql("UPDATE voiceprint_info SET change_number = change_number + 1")
    client.post("/v1/identify", files=files(speech(1)))
    assert client.get(ANN).json()["is_damaged"]

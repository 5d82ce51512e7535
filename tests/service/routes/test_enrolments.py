"""/v1/enrolments: recording by recording, two people, too little, restarts and expiry."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from service.edge.token_file import create_token
from service.encoding.completeness import judge
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_client import (
    TestClient,
    check_problem,
    enrol,
    files,
    pack,
    running,
    speech,
)
from utils.errors import DatabaseError
from voices.sql.schema import enrolments, keys, parts

PATH = "/v1/enrolments"


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    with running(database_url, enrolment_speech_s=3.0, max_recordings=4) as client:
        yield client


def begin(client: TestClient, name: str = "Ann", **more: str) -> str:
    answer = client.post(PATH, json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    path = answer.headers["location"]
    assert path == f"{PATH}/{answer.json()['id']}"
    return str(path)


def add(client: TestClient, path: str, recording: bytes) -> Any:
    answer = client.post(f"{path}/recordings", files=files(recording))
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_recordings_are_added_until_it_is_enough(client: TestClient) -> None:
    path = begin(client)
    document = client.get(path).json()
    assert (document["name"], document["completeness"], document["next"]) == ("Ann", 0, "record")
    assert (document["needed_speech_s"], document["needed_recordings"]) == (3, 2)
    assert document["recordings"] == document["similarity"] == []

    first = add(client, path, speech(1, 0))
    assert first["next"] == "record"
    assert 0.3 < first["completeness"] <= 0.5
    assert first["speech_s"] == first["recordings"][0]["quality"]["speech_s"] > 1
    assert first["expires_at"] > document["expires_at"]
    problem = check_problem(client.post(f"{path}/finish"), 409, "not-complete")
    assert "in 1 recordings, expected 3 s in 2" in problem["detail"]
    assert problem["completeness"] == first["completeness"]

    second = add(client, path, speech(1, 1))
    assert (second["completeness"], second["next"]) == (1, "finish")
    assert np.array(second["similarity"]).shape == (2, 2)
    assert second["similarity"][0][1] > FakeEncoder.threshold
    assert all(part["agrees"] for part in second["recordings"])
    assert client.get("/v1/speakers").json()["total"] == 0

    answer = client.post(f"{path}/finish")
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/speakers/Ann"
    assert len(answer.json()["recordings"]) == 2
    assert client.post("/v1/identify", files=files(speech(1, 2))).json()["name"] == "Ann"
    service = client.app.state.service
    line = service.database.audit_log.last(2)[1]
    assert (line.action, line.speaker) == ("enrol", "Ann")
    nothing_is_left(client)


def nothing_is_left(client: TestClient) -> None:
    """Neither rows nor the keys of rows that were there."""
    database = client.app.state.service.database
    with database._connections.read() as connection:
        for table in (enrolments, parts):
            assert connection.execute(select(table)).all() == []
        stored = connection.execute(select(keys.c.stored).order_by(keys.c.id)).scalars().all()
    assert set(stored[0]) == {0}


def test_two_people_are_not_one(client: TestClient) -> None:
    path = begin(client)
    add(client, path, speech(1, 0))
    document = add(client, path, speech(2, 0))
    assert [part["agrees"] for part in document["recordings"]] == [False, False]
    assert (document["next"], document["completeness"]) == ("decide", 0)
    problem = check_problem(client.post(f"{path}/finish"), 409, "voices-differ")
    assert problem["detail"].endswith("confirm or remove the recordings 1, 2")
    # A third one shows which of them is wrong.
    document = add(client, path, speech(1, 1))
    assert [part["agrees"] for part in document["recordings"]] == [True, False, True]
    assert document["completeness"] == 1
    check_problem(client.post(f"{path}/finish"), 409, "voices-differ")
    document = client.delete(f"{path}/recordings/2").json()
    assert [part["number"] for part in document["recordings"]] == [1, 3]
    assert document["next"] == "finish"
    check_problem(client.delete(f"{path}/recordings/2"), 404, "unknown-recording")
    assert client.post(f"{path}/finish").status_code == 201


def test_a_recording_that_differs_counts_once_it_is_confirmed(client: TestClient) -> None:
    path = begin(client)
    for speaker, utterance in [(1, 0), (1, 1), (2, 0)]:
        document = add(client, path, speech(speaker, utterance))
    assert document["next"] == "decide"
    before = document["speech_s"]
    document = client.patch(f"{path}/recordings/3", json={"confirmed": True}).json()
    assert document["next"] == "finish"
    assert document["speech_s"] > before
    last = document["recordings"][2]
    assert (last["number"], last["agrees"], last["confirmed"]) == (3, False, True)
    document = client.patch(f"{path}/recordings/3", json={"confirmed": False}).json()
    assert (document["next"], document["speech_s"]) == ("decide", before)
    answer = client.patch(f"{path}/recordings/4", json={"confirmed": True})
    check_problem(answer, 404, "unknown-recording")
    check_problem(client.patch(f"{path}/recordings/3", json={}), 422, "bad-field")
    client.patch(f"{path}/recordings/3", json={"confirmed": True})
    enrol(client, "Αnn", 3)
    enrolled = client.post(f"{path}/finish").json()
    assert len(enrolled["recordings"]) == 3
    assert enrolled["looks_like"] == ["Αnn"]  # with a Greek letter
    (line,) = client.app.state.service.database.audit_log.last(1)
    assert line.outcome == "3 recordings, one by one, 1 of them confirmed"


def test_the_name_may_come_at_the_end(client: TestClient) -> None:
    enrol(client, "Bob", 3)
    answer = client.post(PATH, json={})
    path = answer.headers["location"]
    assert answer.json()["name"] is None
    for utterance in (5, 6):
        add(client, path, speech(3, utterance))
    problem = check_problem(client.post(f"{path}/finish"), 422, "bad-field")
    assert problem["detail"].startswith("name: missing")
    check_problem(client.post(f"{path}/finish", json={"name": "a/b"}), 422, "bad-name")
    answer = client.post(f"{path}/finish", json={"name": "bob"})
    check_problem(answer, 409, "speaker-exists")
    answer = client.post(f"{path}/finish", json={"name": "bob", "if_exists": "replace"})
    assert len(answer.json()["recordings"]) == 2
    assert answer.json()["name"] == "Bob"
    database = client.app.state.service.database
    assert [line.action for line in database.audit_log.last(1)] == ["replace"]


def test_a_finish_that_was_cut_short_is_repeated(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its end nothing is done, after it everything; sent again, it answers the same."""
    path = begin(client)
    for utterance in (0, 1):
        add(client, path, speech(1, utterance))
    database = client.app.state.service.database

    def fail(*_: Any) -> Any:
        raise DatabaseError("cut short")

    with monkeypatch.context() as patch:
        patch.setattr("voices.sql.enrolments.remove_sealed", fail)
        check_problem(client.post(f"{path}/finish"), 503, "database")
    assert database.count() == 0
    assert client.get(path).json()["next"] == "finish"
    with monkeypatch.context() as patch:
        patch.setattr(database.enrolments, "settle", fail)
        check_problem(client.post(f"{path}/finish"), 503, "database")
    check_problem(client.get(path), 404, "unknown-enrolment")
    for _ in range(2):
        answer = client.post(f"{path}/finish")
        assert (answer.status_code, answer.json()["name"]) == (201, "Ann")
        assert answer.headers["location"] == "/v1/speakers/Ann"
    assert len(answer.json()["recordings"]) == 2
    assert [line.action for line in database.audit_log.last()] == ["enrol"]
    nothing_is_left(client)
    client.delete("/v1/speakers/Ann")
    check_problem(client.post(f"{path}/finish"), 404, "unknown-speaker")


def test_who_gave_up_meanwhile_is_not_enrolled(client: TestClient) -> None:
    path = begin(client)
    for utterance in (0, 1):
        add(client, path, speech(1, utterance))
    database = client.app.state.service.database
    table = database.enrolments
    removal = table.removal

    def too_late(enrolment_id: str) -> Any:
        table.remove(enrolment_id)
        return removal(enrolment_id)

    table.removal = too_late
    check_problem(client.post(f"{path}/finish"), 404, "unknown-enrolment")
    assert database.count() == 0


def test_what_cannot_be_used_changes_nothing(client: TestClient) -> None:
    path = begin(client)
    for recording, status, code in [
        (b"text", 415, "wrong-type"),
        (pack(np.zeros(16000)), 422, "bad-recording"),
    ]:
        answer = client.post(f"{path}/recordings", files=files(recording))
        check_problem(answer, status, code)
    assert client.get(path).json()["recordings"] == []
    for number in range(4):
        add(client, path, speech(1, number, duration_s=0.8))
    answer = client.post(f"{path}/recordings", files=files(speech(1)))
    check_problem(answer, 409, "too-many-recordings")


def test_names(client: TestClient) -> None:
    enrol(client, "Bob", 3)
    check_problem(client.post(PATH, json={"name": "bob"}), 409, "speaker-exists")
    check_problem(client.post(PATH, json={"name": "a/b"}), 422, "bad-name")
    check_problem(client.post(PATH, json={"name": 1}), 422, "bad-field")
    path = begin(client, "Bob", if_exists="add")
    for utterance in (5, 6):
        add(client, path, speech(3, utterance))
    assert len(client.post(f"{path}/finish").json()["recordings"]) == 4
    # Whoever is enrolled meanwhile keeps the name; the recordings are not lost.
    path = begin(client, "Eve")
    for utterance in (0, 1):
        add(client, path, speech(4, utterance))
    enrol(client, "Eve", 5)
    check_problem(client.post(f"{path}/finish"), 409, "speaker-exists")
    assert client.get(path).json()["next"] == "finish"


def test_giving_up(client: TestClient) -> None:
    path = begin(client)
    add(client, path, speech(1))
    assert client.delete(path).status_code == 204
    check_problem(client.get(path), 404, "unknown-enrolment")
    check_problem(client.delete(path), 404, "unknown-enrolment")
    answer = client.post(f"{path}/recordings", files=files(speech(1)))
    check_problem(answer, 404, "unknown-enrolment")
    nothing_is_left(client)


def test_an_enrolment_outlives_a_restart_and_a_model_does_not(database_url: str) -> None:
    options = {"enrolment_speech_s": 1.0, "keep_audio": True}
    with running(database_url, **options) as client:
        path = begin(client)
        add(client, path, speech(1, 0))
    with running(database_url, **options) as client:
        add(client, path, speech(1, 1))
        recordings = client.post(f"{path}/finish").json()["recordings"]
        assert [recording["has_audio"] for recording in recordings] == [True, True]
        other = begin(client, "Bob")
        add(client, other, speech(2, 0))
    with running(database_url, encoder=FakeEncoder("another"), **options) as client:
        check_problem(client.get(other), 409, "other-model")


def test_what_expires_is_destroyed(database_url: str) -> None:
    with running(database_url, enrolment_keep_s=0.5) as client:
        path = begin(client)
        add(client, path, speech(1))
        table = client.app.state.service.database.enrolments
        deadline = time.monotonic() + 20
        while client.get(path).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        check_problem(client.get(path), 404, "unknown-enrolment")
        assert table.remove_expired() == 1
        assert table.remove_expired() == 0
        nothing_is_left(client)


def test_a_token_sees_its_own_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.routes.enrolments.MAX_OPEN", 2)
    path = tmp_path / "tokens.txt"
    made = {
        name: create_token(name, path, scopes=scopes, group=group)[0]
        for name, scopes, group in [
            ("one", ["enrol"], "default"),
            ("two", ["enrol"], "shop"),
            ("reads", ["read"], "default"),
        ]
    }
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, token_file=path, authorized=False) as client:
        headers = {name: {"Authorization": f"Bearer {token}"} for name, token in made.items()}
        body = {"name": "Ann"}
        check_problem(client.post(PATH, json=body, headers=headers["reads"]), 403, "missing-scope")
        mine = client.post(PATH, json=body, headers=headers["one"]).headers["location"]
        assert client.get(mine, headers=headers["one"]).status_code == 200
        check_problem(client.get(mine, headers=headers["two"]), 404, "unknown-enrolment")
        client.post(PATH, json=body, headers=headers["one"])
        answer = client.post(PATH, json=body, headers=headers["one"])
        check_problem(answer, 429, "too-many-requests")
        theirs = client.post(PATH, json=body, headers=headers["two"])
        assert theirs.status_code == 201
        client.app.state.service.database.in_group("shop").remove_group()
        answer = client.get(theirs.headers["location"], headers=headers["two"])
        check_problem(answer, 404, "unknown-enrolment")


def test_the_judgement_by_hand() -> None:
    x, y = np.eye(2, dtype=np.float32)
    between = np.array([0.6, 0.8], np.float32)
    encoder = FakeEncoder()  # its threshold is 0.5
    nothing = judge(encoder, [], 4.0, 2)
    assert (nothing.share, nothing.next_step, nothing.agrees) == (0, "record", ())
    one = judge(encoder, [(x, 8.0)], 4.0, 2)
    assert (one.share, one.next_step) == (0.5, "record")
    two = judge(encoder, [(x, 1.0), (between, 2.0)], 4.0, 2)
    assert (two.share, two.next_step, two.speech_s) == (0.75, "record", 3.0)
    np.testing.assert_allclose(two.similarity, [[1, 0.6], [0.6, 1]], atol=1e-6)
    three = judge(encoder, [(x, 4.0), (x, 4.0), (y, 4.0)], 4.0, 2)
    assert (three.agrees, three.next_step) == ((True, True, False), "decide")
    assert (three.speech_s, three.share) == (8.0, 1.0)
    said = judge(encoder, [(x, 4.0), (x, 4.0), (y, 4.0)], 12.0, 3, [False, False, True])
    assert (said.agrees, said.next_step, said.speech_s) == (three.agrees, "finish", 12.0)

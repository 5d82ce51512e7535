"""Events, and requests that are sent again: on both databases."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from service.chores import do_chores
from service.edge.token_file import create_token
from tests.support.service_client import (
    TestClient,
    check_problem,
    enrol,
    files,
    running,
    speech,
)
from utils.errors import DatabaseError


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    with running(database_url, lockout_failures=2, lockout_s=60) as client:
        yield client


def events(client: TestClient, after: int = 0, **more: Any) -> list[tuple[str, str, str]]:
    found = client.get("/v1/events", params={"after": after, **more}).json()
    return [(event["action"], event["speaker"], event["outcome"]) for event in found["events"]]


def test_events_tell_what_happened_in_its_order(client: TestClient) -> None:
    enrol(client, "Ann", 1)
    enrol(client, "Ben", 2)
    first = client.get("/v1/events", params={"limit": 1}).json()
    assert [event["speaker"] for event in first["events"]] == ["Ann"]
    event = first["events"][0]
    assert event.keys() == {"id", "at", "actor", "action", "speaker", "outcome"}
    assert event["at"].endswith("+00:00")
    ids = [each["id"] for each in client.get("/v1/speakers/Ann").json()["recordings"]]
    client.post("/v1/speakers/Ann/recordings", files=files(speech(1, 5)))
    client.put("/v1/speakers/Ann/recordings", files=files(speech(1, 6), speech(1, 7)))
    id_ = client.get("/v1/speakers/Ann").json()["recordings"][0]["id"]
    assert id_ not in ids
    client.delete(f"/v1/speakers/Ann/recordings/{id_}")
    client.patch("/v1/speakers/Ann", json={"name": "Anna"})
    client.post("/v1/identify", files=files(speech(2)))
    for _ in range(3):
        client.post("/v1/speakers/Ben/verify", files=files(speech(5)))
    client.delete("/v1/speakers/Ben")
    assert events(client, first["next"]) == [
        ("enrol", "Ben", "2 recordings"),
        ("add", "Ann", "1 recordings"),
        ("replace", "Ann", "2 recordings"),
        ("delete recording", "Ann", id_),
        ("rename", "Ann", "to Anna"),
        ("lock", "Ben", "2 failures"),
        ("delete", "Ben", "2 recordings"),
    ]
    last = client.get("/v1/events").json()["next"]
    assert client.get("/v1/events", params={"after": last}).json() == {"events": [], "next": last}


def test_events_stay_within_the_group(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "t"
    shop, bank = (
        {"Authorization": f"Bearer {create_token(group, path, group=group)[0]}"}
        for group in ("shop", "bank")
    )
    reader, _ = create_token("reader", path, group="shop", scopes=["read"])
    with running(database_url, token_file=path, authorized=False) as client:
        sent = files(speech(1))
        client.post("/v1/speakers", data={"name": "Ann"}, files=sent, headers=shop)
        headers = {"Authorization": f"Bearer {reader}"}
        for _ in range(3):
            client.post("/v1/identify", files=sent, headers=headers)
        assert client.portal is not None
        client.portal.call(do_chores, client.app.state.service)
        found = client.get("/v1/events", headers=headers).json()["events"]
        told = [(event["actor"], event["action"], event["outcome"]) for event in found]
        assert told == [
            ("shop", "enrol", "1 recordings"),
            ("reader", "refuse", "lacks identify, 3 times"),
        ]
        assert client.get("/v1/events", headers=bank).json() == {"events": [], "next": 0}


def test_a_change_without_its_line_is_not_made(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(client, "Ann", 1)
    log = client.app.state.service.database.audit_log
    lines = len(log.last())

    def fail(*args: object) -> None:
        raise DatabaseError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("voices.sql.changes.write_lines", fail)
        sent = files(speech(2))
        check_problem(
            client.post("/v1/speakers", data={"name": "Ben"}, files=sent), 503, "database"
        )
        answer = client.patch("/v1/speakers/Ann", json={"name": "Anna"})
        check_problem(answer, 503, "database")
        check_problem(client.delete("/v1/speakers/Ann"), 503, "database")
        answer = client.post("/v1/speakers/Ann/recordings", files=sent)
        check_problem(answer, 503, "database")
    names = [each["name"] for each in client.get("/v1/speakers").json()["speakers"]]
    assert names == ["Ann"]
    assert len(client.get("/v1/speakers/Ann").json()["recordings"]) == 2
    assert len(log.last()) == lines
    # The client's retry succeeds.
    assert client.post("/v1/speakers", data={"name": "Ben"}, files=sent).status_code == 201


def test_an_enrolment_that_is_sent_again_succeeds(client: TestClient) -> None:
    sent, data = files(speech(1), speech(1, 1)), {"name": "Ann"}
    first = client.post("/v1/speakers", data=data, files=sent)
    again = client.post("/v1/speakers", data=data, files=sent)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    more = files(speech(1, 2))
    for _ in range(2):
        answer = client.post("/v1/speakers/Ann/recordings", files=more)
        assert len(answer.json()["recordings"]) == 3
    assert events(client) == [("enrol", "Ann", "2 recordings"), ("add", "Ann", "1 recordings")]
    # Other content, part of it, or the same in another number, is another enrolment.
    for other in (files(speech(1)), files(speech(1, 1), speech(1)), files(speech(3))):
        answer = client.post("/v1/speakers", data=data, files=other)
        check_problem(answer, 409, "speaker-exists")


def test_a_key_makes_each_change_once(client: TestClient) -> None:
    def send(method: str, path: str, key: str, **more: Any) -> Any:
        return client.request(method, path, headers={"Idempotency-Key": key}, **more)

    def enrol_ann(key: str, speaker: int = 1) -> Any:
        sent = files(speech(speaker))
        return send("POST", "/v1/speakers", key, data={"name": "Ann"}, files=sent)

    assert enrol_ann("a").status_code == enrol_ann("a").status_code == 201
    check_problem(enrol_ann("b", 2), 409, "speaker-exists")
    for _ in range(2):
        answer = send("POST", "/v1/speakers/Ann/recordings", "c", files=files(speech(1, 4)))
        assert len(answer.json()["recordings"]) == 2
    for _ in range(2):
        answer = send("PATCH", "/v1/speakers/Ann", "d", json={"name": "Anna"})
        assert (answer.status_code, answer.json()["name"]) == (200, "Anna")
    document = check_problem(
        send("PATCH", "/v1/speakers/Anna", "d", json={"name": "X"}), 422, "key-reused"
    )
    assert "Idempotency-Key" in document["detail"]
    first = send("DELETE", "/v1/speakers/Anna", "e").json()
    assert first["removed"]["recordings"] == 2
    enrol(client, "Anna", 3)
    again = send("DELETE", "/v1/speakers/Anna", "e").json()
    assert again["removed"] == {"embeddings": 3, "recordings": 2, "files": []}
    # Who was enrolled under the name since then stays.
    assert client.get("/v1/speakers/Anna").status_code == 200
    # What the first request enrolled is gone: the retry does not bring it back.
    check_problem(enrol_ann("a"), 404, "unknown-speaker")
    for key in ["", "x" * 256, "a b", "ä"]:
        answer = client.delete(
            "/v1/speakers/Anna", headers={b"Idempotency-Key": key.encode("latin-1")}
        )
        check_problem(answer, 422, "bad-field")
    assert [action for action, *_ in events(client)].count("delete") == 1


def test_keys_are_forgotten_after_a_day(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Idempotency-Key": "a"}
    enrol(client, "Ann", 1)
    assert client.delete("/v1/speakers/Ann", headers=headers).status_code == 200
    assert client.delete("/v1/speakers/Ann", headers=headers).status_code == 200
    monkeypatch.setattr("voices.sql.requests.KEPT", timedelta(0))
    check_problem(client.delete("/v1/speakers/Ann", headers=headers), 404, "unknown-speaker")
    enrol(client, "Ben", 1)
    client.delete("/v1/speakers/Ben", headers={"Idempotency-Key": "b"})
    with client.app.state.service.database._connections.read() as connection:
        rows = connection.execute(text("SELECT key, action FROM voiceprint_requests")).all()
    assert len(rows) == 1
    assert all(len(value) == 64 for row in rows for value in row)

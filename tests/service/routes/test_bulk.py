"""POST /v1/bulk_enrolments: a zip of many speakers, and zips that are meant to harm."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.answers.problems import retry_later
from service.edge.token_file import create_token
from service.routes import bulk
from tests.support.service_client import TestClient, check_problem, running, speech

PATH = "/v1/bulk_enrolments"


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    with running(database_url, max_upload_mb=1.0) as client:
        yield client


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def send(client: TestClient, content: bytes) -> Any:
    return client.post(PATH, files={"file": ("people.zip", content, "application/zip")})


def test_each_recording_has_its_row(client: TestClient, tmp_path: Path) -> None:
    people = {
        "Ann/1.wav": speech(1, 0),
        "Ann/2.wav": speech(1, 1),
        "staff/李雷/a.wav": speech(3),
        "Bob.wav": speech(2),
        "Bob/text.wav": b"text",
        "/etc/passwd.wav": speech(4),
        "../../up/a.wav": speech(6),
        "a:b/1.wav": speech(5),
        "Вob.wav": speech(7),
        "notes.txt": b"",
        "__MACOSX/Ann/1.wav": b"",
    }
    answer = send(client, zipped(people)).json()
    counts = {key: answer[key] for key in ("enrolled", "present", "skipped", "left")}
    assert counts == {"enrolled": 6, "present": 0, "skipped": 2, "left": 0}
    rows = {row["recording"]: row for row in answer["recordings"]}
    assert set(rows) == set(people) - {"notes.txt", "__MACOSX/Ann/1.wav", "../../up/a.wav"}
    assert rows["staff/李雷/a.wav"]["speaker"] == "李雷"
    assert rows["/etc/passwd.wav"]["speaker"] == "etc"  # a name, and no place
    assert (rows["a:b/1.wav"]["outcome"], rows["Bob/text.wav"]["outcome"]) == ("skipped",) * 2
    assert "not audio" in rows["Bob/text.wav"]["reason"]
    assert "which is not allowed in names" in rows["a:b/1.wav"]["reason"]
    assert rows["Вob.wav"]["reason"] == "the name looks like Bob"  # of Cyrillic and Latin letters
    speakers = client.get("/v1/speakers").json()["speakers"]
    assert {s["name"]: len(s["recordings"]) for s in speakers} == {
        "Ann": 2, "Bob": 1, "etc": 1, "Вob": 1, "李雷": 1,
    }  # fmt: skip
    again = send(client, zipped({**people, "Ann/3.wav": speech(1, 2)})).json()
    assert (again["enrolled"], again["present"], again["skipped"]) == (1, 6, 2)
    lines = client.app.state.service.database.audit_log.last(6)[::-1]
    assert [line.action for line in lines] == ["add", "enrol", "enrol", "enrol", "enrol", "add"]


def test_a_group_has_recordings_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    tokens = [create_token(group, path, group=group)[0] for group in ("shop", "bank")]
    reader = create_token("reader", path, scopes=["read"])[0]
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, token_file=path, authorized=False) as client:
        for token in tokens:
            client.headers["Authorization"] = f"Bearer {token}"
            assert send(client, zipped({"Ann.wav": speech(1)})).json()["enrolled"] == 1
        client.headers["Authorization"] = f"Bearer {reader}"
        check_problem(send(client, zipped({})), 403, "missing-scope")


def test_zips_that_are_meant_to_harm(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    check_problem(send(client, b"no zip"), 415, "wrong-type")
    bomb = zipped({f"{number}/a.wav": bytes(3_000_000) for number in range(4)})
    assert len(bomb) < 20_000
    rows = send(client, bomb).json()["recordings"]
    assert {row["reason"] for row in rows} == {"longer than 1 MiB; cut it"}
    # Many that are each small enough: together they may unpack to no more than ten requests.
    monkeypatch.setattr(bulk, "MAX_UNPACKED", 1)
    rows = send(client, zipped({f"{n}/a.wav": bytes(400_000) for n in range(4)})).json()
    reasons = [row["reason"] for row in rows["recordings"]]
    assert [reason.startswith("longer than") for reason in reasons] == [False, False, True, True]
    whole = bytearray(zipped({"Ann.wav": speech(1)}, zipfile.ZIP_STORED))
    whole[200] ^= 1
    rows = send(client, bytes(whole)).json()["recordings"]
    assert rows[0]["outcome"] == "skipped" and "cannot be read" in rows[0]["reason"]
    monkeypatch.setattr(bulk, "MAX_MEMBERS", 2)
    many = zipped({f"{number}.wav": b"" for number in range(3)})
    check_problem(send(client, many), 413, "too-large")


def test_what_there_is_no_time_for_is_left(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zipped({"Ann.wav": speech(1), "Bob.wav": speech(2)})
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "TIME_S", 0.0)
        answer = send(client, content).json()
        assert (answer["left"], answer["enrolled"]) == (2, 0)
    with monkeypatch.context() as patch:

        def full(*_: Any, **__: Any) -> Any:
            raise retry_later("busy", "the queue is full", 1)

        patch.setattr(client.app.state.service.pool, "submit", full)
        assert [row["outcome"] for row in send(client, content).json()["recordings"]] == [
            "left", "left",
        ]  # fmt: skip
    assert send(client, content).json()["enrolled"] == 2

"""The classic contract: requests and answers as the clients of voice assistants know them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service_client import TOKEN, TestClient, files, running, speech


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with running(f"sqlite:///{tmp_path}/v.sqlite3", token=TOKEN) as client:
        yield client


def register(client: TestClient, speaker_id: str, speaker: int, utterance: int = 0) -> dict:
    answer = client.post(
        "/voiceprint/register",
        data={"speaker_id": speaker_id},
        files=files(speech(speaker, utterance, 4.0)),
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def identify(client: TestClient, speaker_ids: str, speaker: int) -> dict:
    answer = client.post(
        "/voiceprint/identify",
        data={"speaker_ids": speaker_ids},
        files=files(speech(speaker, 9, 4.0)),
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_health(client: TestClient) -> None:
    del client.headers["Authorization"]
    assert client.get(f"/voiceprint/health?key={TOKEN}").json() == {
        "total_voiceprints": 0,
        "status": "healthy",
    }
    for query in ["", "?key=", "?key=wrong-wrong-wrong-wrong"]:
        answer = client.get(f"/voiceprint/health{query}")
        assert answer.status_code == 401
        assert isinstance(answer.json()["detail"], str)


def test_the_key_opens_nothing_else(client: TestClient) -> None:
    del client.headers["Authorization"]
    assert client.get(f"/v1/speakers?key={TOKEN}").status_code == 401
    assert client.delete(f"/voiceprint/a?key={TOKEN}").status_code == 401


def test_register_identify_delete(client: TestClient) -> None:
    assert register(client, "user_1", 1) == {"success": True, "msg": "已登记: user_1"}
    assert register(client, "用户二", 2) == {"success": True, "msg": "已登记: 用户二"}
    found = identify(client, "user_1,用户二", 1)
    assert found["speaker_id"] == "user_1"
    assert 0.8 < found["score"] <= 1
    assert identify(client, "用户二, user_1", 2)["speaker_id"] == "用户二"
    answer = client.delete("/voiceprint/user_1")
    assert answer.json() == {"success": True, "msg": "已删除: user_1"}
    assert client.delete("/voiceprint/user_1").status_code == 404
    assert identify(client, "user_1", 1) == {"speaker_id": "", "score": 0.0}


def test_nobody_reaches_the_threshold(client: TestClient) -> None:
    register(client, "user_1", 1)
    found = identify(client, "user_1", 3)
    assert found["speaker_id"] == ""
    assert found["score"] < 0.8


def test_only_candidates_are_compared_and_strange_ones_passed_over(client: TestClient) -> None:
    register(client, "user_1", 1)
    register(client, "user_2", 2)
    assert identify(client, "user_2", 1)["speaker_id"] == ""
    candidates = f"nobody,,a/b,{'x' * 10_000},user_1,user_1, "
    assert identify(client, candidates, 1)["speaker_id"] == "user_1"
    assert identify(client, "a/b", 1) == {"speaker_id": "", "score": 0.0}


def test_the_id_comes_back_as_it_was_sent(client: TestClient) -> None:
    register(client, "User_1", 1)
    assert identify(client, "user_1", 1)["speaker_id"] == "user_1"


def test_registering_a_known_id_replaces_it(client: TestClient) -> None:
    register(client, "user_1", 1)
    register(client, "user_1", 2)
    assert identify(client, "user_1", 1)["speaker_id"] == ""
    assert identify(client, "user_1", 2)["speaker_id"] == "user_1"
    assert client.get("/v1/speakers").json()["total"] == 1


def test_errors_are_a_detail(client: TestClient) -> None:
    sound = files(speech(1))
    post = client.post
    answers = [
        (422, post("/voiceprint/register", files=sound)),
        (422, post("/voiceprint/register", data={"speaker_id": "a"})),
        (422, post("/voiceprint/register", data={"speaker_id": "a,b"}, files=sound)),
        (422, post("/voiceprint/register", data={"speaker_id": "a" * 10_000}, files=sound)),
        (415, post("/voiceprint/register", data={"speaker_id": "a"}, files=files(b"text"))),
        (422, post("/voiceprint/register", data={"speaker_id": "a"}, files=files(b""))),
        (422, post("/voiceprint/identify", data={"speaker_ids": " , "}, files=sound)),
        (422, post("/voiceprint/identify", data={"speaker_ids": "a," * 5}, files=files(b""))),
        (422, post("/voiceprint/identify", files=sound)),
        (404, client.delete("/voiceprint/nobody")),
        (405, client.put("/voiceprint/register")),
    ]
    many = ",".join(str(number) for number in range(1001))
    answers.append((422, post("/voiceprint/identify", data={"speaker_ids": many}, files=sound)))
    for status, answer in answers:
        assert answer.status_code == status, answer.text
        assert list(answer.json()) == ["detail"]
        assert isinstance(answer.json()["detail"], str)


def test_a_wrong_token_is_refused(client: TestClient) -> None:
    client.headers["Authorization"] = "Bearer wrong-wrong-wrong"
    answer = client.post("/voiceprint/identify", data={"speaker_ids": "a"}, files=files(speech(1)))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")

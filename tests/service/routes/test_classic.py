"""The classic contract: requests and answers as the clients of voice assistants know them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import numpy as np
import pytest

from tests.support.service_client import (
    TOKEN,
    TestClient,
    check_problem,
    files,
    pack,
    running,
    speech,
)
from tests.support.synthetic_voices import synthetic_speech


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "sound", [b"", b"text", speech(1)[:2000], pack(np.zeros(16000)), pack(np.full(64, 0.1))]
)
def test_a_recording_that_cannot_be_used_is_nobodys(client: TestClient, sound: bytes) -> None:
    register(client, "user_1", 1)
    answer = client.post("/voiceprint/identify", data={"speaker_ids": "user_1"}, files=files(sound))
    assert answer.status_code == 200
    assert answer.json() == {"speaker_id": "", "score": 0.0}


def test_of_a_long_recording_the_part_with_most_speech_is_used(tmp_path: Path) -> None:
    """Its clients know no limit, and take a refusal for a failure of the service."""
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, token=TOKEN, max_duration_s=3.0) as client:
        long = pack(np.concatenate([np.zeros(80_000), synthetic_speech(1, 0, 3.0)]))
        form = {"speaker_id": "user_1"}
        answer = client.post("/voiceprint/register", data=form, files=files(long))
        assert answer.json()["success"]
        (speaker,) = client.get("/v1/speakers").json()["speakers"]
        assert speaker["recordings"][0]["duration_s"] == 3
        assert speaker["recordings"][0]["speech_s"] > 2
        form = {"speaker_ids": "user_1"}
        answer = client.post("/voiceprint/identify", data=form, files=files(long))
        assert answer.json()["speaker_id"] == "user_1"
        endless = pack(np.tile(synthetic_speech(1, 0, 3.0), 11))
        answer = client.post("/voiceprint/identify", data=form, files=files(endless))
        assert answer.json() == {"speaker_id": "", "score": 0.0}
        check_problem(client.post("/v1/identify", files=files(long)), 413, "too-long")


@pytest.mark.slow
def test_the_documentation_is_where_its_clients_look(client: TestClient) -> None:
    del client.headers["Authorization"]
    for path in ["/voiceprint/docs", "/voiceprint/redoc"]:
        page = client.get(path)
        assert page.status_code == 200
        assert "script-src" not in page.headers["content-security-policy"]
        for link in re.findall(r'(?:href|src)="(.+?)"', page.text):
            assert client.get(urljoin(path, link)).status_code == 200
    schema = client.get("/voiceprint/openapi.json").json()
    assert "/voiceprint/identify" in schema["paths"]


def test_the_threshold_is_the_models_or_the_one_that_is_given(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, token=TOKEN) as client:
        register(client, "user_1", 1)
        score = identify(client, "user_1", 3)["score"]
        assert score < client.app.state.service.encoder.threshold
    with running(url, token=TOKEN, classic_threshold=score - 0.01) as client:
        assert identify(client, "user_1", 3)["speaker_id"] == "user_1"
    with running(url, token=TOKEN, classic_threshold=score + 0.01) as client:
        assert identify(client, "user_1", 3) == {"speaker_id": "", "score": score}


def test_many_devices_share_a_token(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, token=TOKEN, rate_limit=1, classic_rate_limit=5) as client:
        for _ in range(5):
            assert client.get(f"/voiceprint/health?key={TOKEN}").status_code == 200
        assert client.get(f"/voiceprint/health?key={TOKEN}").status_code == 429
        assert client.get("/v1/speakers").status_code == 200
        assert client.get("/v1/speakers").status_code == 429


class AssistantClient:
    """A client written to the contract: what a voice assistant's server and its manager do."""

    threshold = 0.4
    """The client's own, applied to the score that it receives."""

    registered = 0.5
    """From this score on, the manager takes a voice for registered already."""

    def __init__(self, http: TestClient, address: str) -> None:
        parts = urlsplit(address)
        self.base = f"{parts.scheme}://{parts.netloc}"
        self.headers = {"Authorization": f"Bearer {parse_qs(parts.query)['key'][0]}"}
        self.http = http

    def is_healthy(self) -> bool:
        key = self.headers["Authorization"].removeprefix("Bearer ")
        answer = self.http.get(f"{self.base}/voiceprint/health?key={key}")
        return answer.status_code == 200 and answer.json()["status"] == "healthy"

    def _send(self, path: str, data: dict, sound: bytes, name: str) -> Any:
        form = {"file": (name, sound, "audio/wav")}
        return self.http.post(
            f"{self.base}/voiceprint/{path}",
            data=data,
            files=form,
            headers=self.headers,
        )

    def identify(self, ids: list[str], sound: bytes) -> str | None:
        answer = self._send("identify", {"speaker_ids": ",".join(ids)}, sound, "audio.wav")
        if answer.status_code != 200:
            return None
        found = answer.json()
        return found["speaker_id"] if found["score"] >= self.threshold else None

    def register(self, ids: list[str], speaker_id: str, sound: bytes) -> bool:
        if ids:
            form = {"speaker_ids": ",".join(ids)}
            found = self._send("identify", form, sound, "VoicePrint.WAV").json()
            if found["score"] > self.registered and found["speaker_id"]:
                return False
        answer = self._send("register", {"speaker_id": speaker_id}, sound, "VoicePrint.WAV")
        return answer.status_code == 200 and answer.json()["success"]

    def update(self, speaker_id: str, sound: bytes) -> bool:
        answer = self.http.delete(f"{self.base}/voiceprint/{speaker_id}", headers=self.headers)
        return answer.status_code == 200 and self.register([], speaker_id, sound)


@pytest.mark.slow
def test_a_client_written_to_the_contract(client: TestClient) -> None:
    del client.headers["Authorization"]
    address = f"http://127.0.0.1/voiceprint/health?key={TOKEN}"
    assistant = AssistantClient(client, address)
    assert assistant.is_healthy()
    mum, dad = "1f0c2d8e9b7a4c35a1b2c3d4e5f60718", "2a0c2d8e9b7a4c35a1b2c3d4e5f60719"
    assert assistant.register([], mum, speech(5, 0, 4.0))
    assert assistant.register([mum], dad, speech(2, 0, 4.0))
    assert not assistant.register([mum, dad], "3b", speech(5, 1, 4.0))
    assert assistant.identify([mum, dad], speech(5, 9, 4.0)) == mum
    assert assistant.identify([mum, dad], speech(2, 9, 4.0)) == dad
    assert not assistant.identify([mum, dad], speech(4, 9, 4.0))
    assert not assistant.identify([mum, dad], b"")
    assert assistant.update(mum, speech(3, 0, 4.0))
    assert assistant.identify([mum, dad], speech(3, 9, 4.0)) == mum
    assert not assistant.identify([mum, dad], speech(5, 9, 4.0))
    stranger = AssistantClient(client, address.replace(TOKEN, "a-key-that-nobody-made"))
    assert not stranger.is_healthy()
    assert stranger.identify([mum, dad], speech(3, 9, 4.0)) is None


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


def test_ids_may_be_addresses_of_devices(client: TestClient) -> None:
    for id_, speaker in [("a4:cf:12:9b:00:01", 1), ("hall/2", 2)]:
        assert register(client, id_, speaker)["msg"].endswith(id_)
        register(client, id_, speaker)
    ids = "a4:cf:12:9b:00:01,hall/2"
    assert identify(client, ids, 1)["speaker_id"] == "a4:cf:12:9b:00:01"
    assert identify(client, ids, 2)["speaker_id"] == "hall/2"
    for path in ["a4:cf:12:9b:00:01", "hall%2F2"]:
        assert client.delete(f"/voiceprint/{path}").json()["success"] is True
        assert client.delete(f"/voiceprint/{path}").status_code == 404

"""Identifiers that are not UTF-8: refused everywhere, never stored or looked for as other texts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service_client import TestClient, check_problem, enrol, running, speech

NAMES = {
    "GBK": "李达康".encode("gbk"),
    "Latin-1": "José".encode("latin-1"),
    "a lone surrogate": b"Tom\xed\xa0\x80",
    "cut off": "李".encode()[:2],
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with running(f"sqlite:///{tmp_path_factory.mktemp('names')}/v.sqlite3") as client:
        enrol(client, "José", 1)
        yield client


def form(*parts: tuple[bytes, bytes]) -> bytes:
    """A form of (headers after the kind, content)."""
    pieces = [
        b"--x\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    ]
    return b"".join(pieces) + b"--x--\r\n"


def post(client: TestClient, path: str, body: bytes, kind: str = "multipart/form-data; boundary=x"):  # type: ignore[no-untyped-def]
    return client.post(path, content=body, headers={"content-type": kind})


WAVE = (b'name="file"; filename="a.wav"', speech(2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["speaker_id", "filename"])
def test_names_in_forms(client: TestClient, name: str, field: str) -> None:
    before = client.get("/v1/speakers").json()["total"]
    sent = (f'name="{field}"'.encode(), NAMES[name])
    answer = post(client, "/voiceprint/register", form(sent, WAVE))
    assert answer.status_code == 422
    assert "not UTF-8" in answer.json()["detail"]
    answer = post(client, "/v1/speakers", form((b'name="name"', NAMES[name]), WAVE))
    check_problem(answer, 422, "bad-field")
    assert client.get("/v1/speakers").json()["total"] == before


@pytest.mark.parametrize("name", NAMES)
def test_candidates(client: TestClient, name: str) -> None:
    sent = (b'name="speaker_ids"', b"Ann," + NAMES[name])
    assert post(client, "/voiceprint/identify", form(sent, WAVE)).status_code == 422
    sent = (b'name="candidates"', NAMES[name])
    check_problem(post(client, "/v1/identify", form(sent, WAVE)), 422, "bad-field")


def test_names_of_files_and_fields(client: TestClient) -> None:
    name = (b'name="name"', b"Ann")
    wave = (b'name="file"; filename="' + NAMES["GBK"] + b'.wav"', speech(2))
    check_problem(post(client, "/v1/speakers", form(name, wave)), 422, "bad-field")


@pytest.mark.parametrize("name", ["%FF", "Jos%E9", "%C0%EE", "Tom%ED%A0%80"])
def test_paths_and_queries(client: TestClient, name: str) -> None:
    check_problem(client.get(f"/v1/speakers/{name}"), 422, "bad-field")
    check_problem(client.delete(f"/v1/speakers/{name}"), 422, "bad-field")
    check_problem(client.get(f"/v1/speakers?query={name}"), 422, "bad-field")
    answer = client.delete(f"/voiceprint/{name}")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "the path is not UTF-8; send it as UTF-8"


@pytest.mark.parametrize("body", [b'{"name": "Jos\xe9"}', b'{"name": "Tom\\ud800"}'])
def test_json(client: TestClient, body: bytes) -> None:
    answer = client.patch(
        "/v1/speakers/José", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422, answer.text


def test_urlencoded_forms(client: TestClient) -> None:
    kind = "application/x-www-form-urlencoded"
    for body in (b"name=Jos%E9", b"name=Jos\xe9"):
        check_problem(post(client, "/v1/speakers", body, kind), 422, "bad-field")


def test_the_mark_of_lost_bytes_is_no_name(client: TestClient) -> None:
    answer = post(client, "/v1/speakers", form((b'name="name"', "Jos\ufffd".encode()), WAVE))
    check_problem(answer, 422, "bad-name")


def test_charsets(client: TestClient, tmp_path: Path) -> None:
    kind = "multipart/form-data; boundary=x; charset="
    sent = form((b'name="name"', NAMES["GBK"]), WAVE)
    check_problem(post(client, "/v1/speakers", sent, kind + "martian"), 422, "bad-field")
    answer = post(client, "/v1/speakers", sent, kind + "gbk")
    assert answer.status_code == 201
    assert answer.json()["name"] == "李达康"


def test_both_encodings_of_a_name_are_one(client: TestClient) -> None:
    for name in ("Jose\u0301", " José ", "Jos%C3%A9%20"):
        assert client.get(f"/v1/speakers/{name}").json()["name"] == "José"


def test_names_in_utf_8_and_files_of_any_bytes_pass(client: TestClient) -> None:
    name = (b'name="name"', "夜雨飘零".encode())
    wave = (b'name="file"; filename="' + "录音.wav".encode() + b'"', speech(3))
    answer = post(client, "/v1/speakers", form(name, wave))
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == "夜雨飘零"

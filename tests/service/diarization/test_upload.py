"""The form of a long recording, as clients send it whole, broken, too large and too slowly."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from service.answers.problems import Problem
from service.diarization import upload
from service.diarization.upload import UploadForm, read_form

KIND = "multipart/form-data; boundary=b"


def part(head: str, content: bytes) -> bytes:
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def file_part(content: bytes, name: str = "a.wav") -> bytes:
    return part(f'Content-Disposition: form-data; name="file"; filename="{name}"', content)


def field(name: str, text: bytes) -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', text)


END = b"--b--\r\n"


def read(
    *chunks: bytes,
    kind: str = KIND,
    max_bytes: int = 10_000_000,
    delay_s: float = 0,
    patience_s: float = 0.2,
    **headers: str,
) -> UploadForm:
    """Reads a form whose body arrives in pieces."""

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for chunk in chunks:
            await asyncio.sleep(delay_s)
            yield {"type": "http.request", "body": chunk, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    async def run() -> UploadForm:
        source = messages()
        sent = {"content-type": kind, **headers}
        scope = {"type": "http", "method": "POST", "path": "/"}
        scope["headers"] = [(key.encode(), value.encode()) for key, value in sent.items()]  # type: ignore
        return await read_form(Request(scope, lambda: anext(source)), max_bytes, patience_s)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """No file is left, and no refused recording stays open."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made: list[Any] = []

    class Noted(upload.Spool):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(upload, "Spool", Noted)
    yield made
    assert list(tmp_path.iterdir()) == []


def test_fields_and_recording() -> None:
    sound = bytes(range(256)) * 10_000  # more than is written at once
    body = field("num_speakers", b"3") + file_part(sound, "Gespräch.wav")
    body += field("candidates", b"Ann") + field("candidates", "小明".encode()) + END
    pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
    for chunks in ([body], pieces, [*(body[i : i + 1] for i in range(400)), body[400:]]):
        form = read(*chunks)
        assert form.spool is not None
        assert form.spool.read(0, len(sound) + 1) == sound
        assert form.file_name == "Gespräch.wav"
        assert form.fields == {"num_speakers": ["3"], "candidates": ["Ann", "小明"]}
        form.close()


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        (END, "bad-field", "file: no complete part of this name"),
        (field("x", b"1") + END, "bad-field", "file: no complete part"),
        (file_part(b"sound")[:-4], "bad-field", "file: no complete part"),
        (field("file", b"text") + END, "bad-field", "file: received a text, expected a recording"),
        (file_part(b"1") + file_part(b"2") + END, "bad-field", "received two recordings"),
        (
            field("x", b"\xff") + file_part(b"1") + END,
            "bad-field",
            "a field of the form is not UTF",
        ),
        (
            part('Content-Disposition: form-data; name="file"; filename="a"', b"").replace(
                b'"a"', b'"\xff"'
            ),
            "bad-field",
            "a field's header is not UTF-8",
        ),
        (field("x", bytes(70_000)), "bad-field", "x: longer than 65536 bytes"),
        (field("x", b"1") * 1001, "bad-request", "more than 1000 fields"),
        (b"no form at all", "bad-request", "the form cannot be read"),
    ],
)
def test_bad_forms(_nothing_is_left: list[Any], body: bytes, code: str, detail: str) -> None:
    with pytest.raises(Problem) as caught:
        read(body)
    assert caught.value.code == code
    assert detail in caught.value.detail
    assert all(spool._file.closed for spool in _nothing_is_left)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("application/json", "wrong-type"),
        ("", "wrong-type"),
        ("multipart/form-data", "bad-request"),
    ],
)
def test_what_is_no_form(kind: str, code: str) -> None:
    with pytest.raises(Problem) as caught:
        read(END, kind=kind)
    assert caught.value.code == code


def test_the_limit_counts_what_arrives_and_what_is_declared(_nothing_is_left: list[Any]) -> None:
    body = file_part(bytes(3_000_000)) + END
    pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
    with pytest.raises(Problem, match="413") as caught:
        read(*pieces, max_bytes=2_000_000)
    assert caught.value.code == "too-large"
    assert all(spool._file.closed for spool in _nothing_is_left)
    with pytest.raises(Problem, match="413"):
        read(b"", max_bytes=2_000_000, **{"content-length": "2000001"})


def test_a_slow_client_is_given_up() -> None:
    with pytest.raises(Problem) as caught:
        read(file_part(bytes(100)), delay_s=5)
    assert caught.value.code == "slow-client"
    # Whoever sends as fast as sound is spoken may take as long as that.
    pieces = [bytes(16_000)] * 6
    body = [file_part(b"")[:-2], *pieces, b"\r\n" + END]
    form = read(*body, delay_s=0.15, patience_s=0.5)
    assert form.spool is not None
    assert form.spool.size == 96_000
    form.close()


def test_a_service_that_stops_waits_for_no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LOOK_S", 0.01)

    async def run() -> None:
        async def receive() -> Any:
            await asyncio.sleep(60)

        headers = [(b"content-type", KIND.encode())]
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        answers = iter([False, False, True])
        await read_form(request, 1000, 60, lambda: next(answers))

    with pytest.raises(Problem, match="503") as caught:
        asyncio.run(run())
    assert caught.value.code == "stopping"


def test_a_client_that_goes_away() -> None:
    async def run() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        headers = [(b"content-type", KIND.encode())]
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        await read_form(request, 1000, 1)

    with pytest.raises(Problem, match="400") as caught:
        asyncio.run(run())
    assert caught.value.detail == "the client went away"

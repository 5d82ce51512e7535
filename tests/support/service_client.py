"""A service with a fake encoder and its client, for the tests."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from service.application import make_app
from service.inbox import Inbox
from service.settings import Settings
from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech
from voices.sql.store import SqlVoiceStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Newer Starlette recommends another package than httpx.
    from fastapi.testclient import TestClient
    from starlette.testclient import WebSocketDenialResponse as WebSocketDenialResponse

TOKEN = "a-token-for-tests-only"


def speech(speaker: int, utterance: int = 0, duration_s: float = 2.0) -> bytes:
    """A wav file of a synthetic speaker."""
    return pack(synthetic_speech(speaker, utterance, duration_s))


def pack(
    samples: Any, rate: int = 16000, container: str = "WAV", subtype: str | None = "PCM_16"
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(samples), rate, format=container, subtype=subtype)
    return buffer.getvalue()


def files(*contents: bytes, field: str = "file") -> list[tuple[str, tuple[str, bytes, str]]]:
    """The files of a form, as the client takes them."""
    return [(field, (f"{i}.wav", data, "audio/wav")) for i, data in enumerate(contents)]


@contextlib.contextmanager
def running(
    url: str,
    *,
    encoder: Any = None,
    audio_db: Path | None = None,
    authorized: bool = True,
    key: bytes | None = None,
    **options: Any,
) -> Iterator[TestClient]:
    """A client of an application on a database; the rate is not limited unless asked."""
    encoder = encoder or FakeEncoder()
    settings = Settings(**{"rate_limit": 0, **options})
    database = SqlVoiceStore(url, encoder, key=key, keep_audio=settings.keep_audio)
    inbox = None
    if audio_db is not None:
        inbox = Inbox(audio_db, database, encoder)
        inbox.enrol_files()
    app = make_app(settings, encoder, database, inbox)
    headers = {"Authorization": f"Bearer {TOKEN}"} if authorized and "token" in options else {}
    try:
        with TestClient(app, "http://127.0.0.1", headers=headers) as client:
            yield client
    finally:
        database.close()


def enrol(client: TestClient, name: str, speaker: int, utterances: int = 2) -> dict[str, Any]:
    """Enrols a synthetic speaker."""
    recordings = [speech(speaker, utterance) for utterance in range(utterances)]
    answer = client.post("/v1/speakers", data={"name": name}, files=files(*recordings))
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def check_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Checks that an answer is a whole problem document, and returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"/problems/{code}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert "Traceback" not in answer.text
    return document

"""Both clients follow live who is speaking, through the real service."""

import asyncio
import base64
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import soundfile

from clients.python.voiceprint_client import (
    AsyncVoiceprintClient,
    ServiceProblem,
    ServiceUnreachable,
    VoiceprintClient,
)
from tests.clients.test_javascript_client import NODE
from tests.support.service_client import TOKEN
from tests.support.service_process import ROOT, ServiceProcess

LENGTH_S = 8  # less than a stream may be ahead of real time
FRAME_BYTES = 3200  # 0.1 s
NODE_MAIN = """
const {{ runStream }} = await import({module});
await runStream({url}, {token}, Buffer.from({samples}, 'base64'));
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samples() -> bytes:
    """The beginning of the conversation of the samples, as a stream sends it."""
    audio, rate = soundfile.read(ROOT / "audio" / "conversation.wav", dtype="int16")
    assert rate == 16000
    return audio[: LENGTH_S * rate].astype("<i2").tobytes()


def frames(samples: bytes) -> Iterator[bytes]:
    for start in range(0, len(samples), FRAME_BYTES):
        yield samples[start : start + FRAME_BYTES]


def test_a_stream_names_who_is_enrolled_in_it(service: ServiceProcess, samples: bytes) -> None:
    client = VoiceprintClient(service.url, TOKEN)
    with client.stream() as stream:
        assert stream.ready["sample_rate"] == 16000
        assert stream.ready["threshold"] == client.info()["strict_threshold"]

        def send() -> None:
            for frame in frames(samples):
                stream.send(frame)
            stream.enrol(1, "first")
            stream.enrol(99, "nobody")
            stream.end()

        thread = threading.Thread(target=send)
        thread.start()
        events = list(stream)
        thread.join()
    kinds = [event["event"] for event in events]
    assert kinds[0] == "speech-start"
    assert "speaker" in kinds
    assert [e["name"] for e in events if e["event"] == "enrolled"] == ["first"]
    assert [e["type"] for e in events if e["event"] == "error"] == ["/problems/unknown-label"]
    assert kinds[-1] == "end"
    assert events[-1]["heard_s"] == LENGTH_S
    assert client.speaker("first")["recordings"]
    client.delete("first")


def test_the_asynchronous_stream(service: ServiceProcess, samples: bytes) -> None:
    async def listen() -> list[dict[str, Any]]:
        client = AsyncVoiceprintClient(VoiceprintClient(service.url, TOKEN))
        async with await client.stream() as stream:
            assert stream.ready["event"] == "ready"
            for frame in frames(samples[:64000]):
                await stream.send(frame)
            await stream.enrol(7, "nobody", if_exists="add")
            await stream.end()
            return [event async for event in stream]

    kinds = [event["event"] for event in asyncio.run(listen())]
    assert "error" in kinds
    assert kinds[-1] == "end"


def test_a_stream_that_is_refused(service: ServiceProcess, samples: bytes) -> None:
    with pytest.raises(ServiceProblem) as refusal:
        VoiceprintClient(service.url, "a-wrong-token").stream()
    assert (refusal.value.status, refusal.value.code) == (401, "unauthorized")
    with pytest.raises(ServiceProblem) as refusal:
        VoiceprintClient(service.url).stream()
    assert (refusal.value.status, refusal.value.code) == (401, "unauthorized")
    with VoiceprintClient(service.url, TOKEN).stream() as stream:
        stream.send(samples[:101])
        with pytest.raises(ServiceProblem) as refusal:
            list(stream)
        assert (refusal.value.status, refusal.value.code) == (422, "bad-field")
        assert refusal.value.detail == "a frame of 101 bytes, expected whole 16-bit samples"
    with pytest.raises(ServiceUnreachable):
        stream.send(samples[:2])
    with VoiceprintClient(service.url, TOKEN).stream() as stream:
        stream.send(samples[:70_000])
        with pytest.raises(ServiceProblem, match="70000 bytes"):
            list(stream)


def test_something_else_than_a_stream() -> None:
    answers = [b"", b"rubbish\r\n\r\n", b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"]
    answers += [b"HTTP/1.1 101 Switching Protocols\r\n\r\n"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def answer() -> None:
            for content in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(content)

        thread = threading.Thread(target=answer)
        thread.start()
        for kind in (ServiceUnreachable, ServiceUnreachable, ServiceProblem, ServiceUnreachable):
            with pytest.raises(kind) as failure:
                VoiceprintClient(url, timeout_s=5).stream()
        thread.join()
    assert "no WebSocket" in str(failure.value)
    with pytest.raises(ServiceUnreachable, match="refused"):
        VoiceprintClient(url).stream()


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_a_stream_in_node(service: ServiceProcess, samples: bytes) -> None:
    values = {
        "module": f"{ROOT}/tests/clients/scenario.mjs",
        "url": service.url,
        "token": TOKEN,
        "samples": base64.b64encode(samples).decode(),
    }
    result = subprocess.run(
        [str(NODE), "--experimental-websocket", "--input-type=module", "-"],
        input=NODE_MAIN.format(**{name: json.dumps(value) for name, value in values.items()}),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert result.returncode == 0, result.stderr

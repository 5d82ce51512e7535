"""No enrolment that was answered with success is lost when the service is killed."""

import asyncio
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.support.service_client import speech
from tests.support.service_process import ServiceProcess, service_process

pytestmark = pytest.mark.slow

NUM_ENROLMENTS = 1000
KILL_AFTER = 100
OPTIONS = ["--queue_size", "4000", "--rate_limit", "0", "--num_threads", "2"]


async def enrol_until_killed(service: ServiceProcess) -> list[str]:
    """Sends all enrolments at once and kills the service meanwhile; returns who got 201."""
    recordings = [speech(number, duration_s=0.6) for number in range(10)]
    answered: list[str] = []

    async def enrol(number: int) -> None:
        name = f"n{number}"
        form = httpx.Request(
            "POST",
            f"{service.url}/v1/speakers",
            headers={"Connection": "close"},
            data={"name": name},
            files={"file": ("a.wav", recordings[number % 10], "audio/wav")},
        )
        head = "".join(f"{key}: {value}\r\n" for key, value in form.headers.items())
        request = f"POST /v1/speakers HTTP/1.1\r\n{head}\r\n".encode() + form.read()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(request)
            answer = await reader.read()
            writer.close()
        except OSError:
            return
        # Whole answers only: the end of the document has arrived too.
        if answer.startswith(b"HTTP/1.1 201") and answer.endswith(b"}"):
            answered.append(name)
        else:
            assert not answer.startswith(b"HTTP/1.1 5"), answer

    killer = threading.Thread(target=kill_in_the_middle, args=(service,))
    killer.start()
    await asyncio.gather(*(enrol(number) for number in range(NUM_ENROLMENTS)))
    await asyncio.to_thread(killer.join)
    return answered


def kill_in_the_middle(service: ServiceProcess) -> None:
    """Kills the service as soon as it has answered some of the enrolments."""
    deadline = time.monotonic() + 120
    while service.log.count("status=201") < KILL_AFTER and time.monotonic() < deadline:
        time.sleep(0.01)
    service.process.kill()


def test_enrolments_outlive_kill_9(database_url: str, tmp_path: Path) -> None:
    options = ["--database", database_url, *OPTIONS]
    with service_process(tmp_path, *options) as service:
        answered = asyncio.run(enrol_until_killed(service))
        assert service.wait() == -9
    assert 0 < len(answered) < NUM_ENROLMENTS
    with service_process(tmp_path, *options) as service:
        found: set[str] = set()
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while True:
                page = client.get("/v1/speakers", params={"offset": len(found), "limit": 500})
                names = {speaker["name"] for speaker in page.json()["speakers"]}
                found |= names
                if not names:
                    break
            assert set(answered) <= found
            # A speaker is whole or absent.
            voice = {"file": ("a.wav", speech(3, duration_s=0.6), "audio/wav")}
            for name in answered[:5]:
                answer = client.post(f"/v1/speakers/{name}/verify", files=voice)
                assert answer.status_code == 200, answer.text
            assert client.get("/health/ready").status_code == 200

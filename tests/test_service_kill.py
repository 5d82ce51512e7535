"""No enrolment that was answered with success is lost when the service is killed."""

import asyncio
import threading
import time
from pathlib import Path

import httpx
from service_client import speech
from service_process import ServiceProcess, service_process

NUM_ENROLMENTS = 1000
KILL_AFTER = 200
OPTIONS = ["--queue_size", "4000", "--rate_limit", "0", "--num_threads", "2"]


async def enrol_until_killed(service: ServiceProcess) -> list[str]:
    """Sends all enrolments at once and kills the service meanwhile; returns who got 201."""
    recordings = [speech(number, duration_s=0.6) for number in range(10)]
    answered: list[str] = []
    limits = httpx.Limits(max_connections=NUM_ENROLMENTS)
    async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits) as client:

        async def enrol(number: int) -> None:
            file = {"file": ("a.wav", recordings[number % 10], "audio/wav")}
            try:
                answer = await client.post("/v1/speakers", data={"name": f"n{number}"}, files=file)
            except httpx.TransportError:
                return
            assert answer.status_code == 201, answer.text
            answered.append(answer.json()["name"])

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

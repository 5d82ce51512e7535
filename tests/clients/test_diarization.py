"""Both clients ask the real service who spoke when, and enrol one of the speakers."""

import base64
import json
import subprocess

import numpy as np
import pytest
import soundfile

from clients.python.voiceprint_client import ServiceProblem, VoiceprintClient
from tests.clients import routes
from tests.clients.test_javascript_client import NODE
from tests.support.service_client import TOKEN, pack
from tests.support.service_process import ROOT, ServiceProcess

LENGTH_S = 16
NODE_MAIN = """
const {{ runDiarization }} = await import({module});
await runDiarization({url}, {token}, Buffer.from({conversation}, 'base64'));
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def conversation() -> bytes:
    """The beginning of the conversation of the samples: two people."""
    samples, rate = soundfile.read(ROOT / "audio" / "conversation.wav", dtype="int16")
    return pack(samples[: LENGTH_S * rate], rate)


def test_who_spoke_when_in_python(service: ServiceProcess, conversation: bytes) -> None:
    client = VoiceprintClient(service.url, TOKEN)
    client.enrol("candidate", [ROOT / "audio" / "b_1.wav"])
    started = client.start_diarization(conversation, max_speakers=3, candidates=["candidate"])
    assert [job["id"] for job in client.diarizations()] == [started["id"]]
    told: list[float] = []
    job = client.wait_for_diarization(started["id"], poll_s=0.05, on_progress=told.append)
    assert told
    assert all(0 <= progress <= 1 for progress in told)
    turns = job["result"]
    assert turns is not None
    assert turns["duration_s"] == LENGTH_S
    assert {turn["speaker"] for turn in turns["turns"]} == {s["label"] for s in turns["speakers"]}
    assert client.diarization_rttm(job["id"]).count("SPEAKER ") == len(turns["turns"])
    found = next(s for s in turns["speakers"] if s["can_be_enrolled"])
    speaker = client.enrol_found_speaker(job["id"], found["label"], "found")
    assert speaker["name"] == "found"
    with pytest.raises(ServiceProblem) as refusal:
        client.enrol_found_speaker(job["id"], found["label"], "found")
    assert refusal.value.code == "speaker-exists"
    more = client.enrol_found_speaker(job["id"], found["label"], "found", if_exists="add")
    assert len(more["recordings"]) == 2
    assert client.remove_diarization(job["id"])["state"] == "done"
    with pytest.raises(ServiceProblem) as refusal:
        client.wait_for_diarization(job["id"])
    assert refusal.value.code == "unknown-job"
    wanted = {route for route in documented(service) if "/diarizations" in route[1]}
    assert len(wanted) == 6
    assert routes.called_routes(service.url) >= wanted


def documented(service: ServiceProcess) -> set[tuple[str, str]]:
    return routes.documented_routes(service.url, left_out=())


def test_a_job_that_failed_is_the_problem_that_it_met(service: ServiceProcess) -> None:
    client = VoiceprintClient(service.url, TOKEN)
    noise = np.random.default_rng(0).normal(0, 3000, 8 * 16000).astype(np.int16)
    job = client.start_diarization(pack(noise))
    with pytest.raises(ServiceProblem) as failure:
        client.wait_for_diarization(job["id"], poll_s=0.05)
    assert (failure.value.status, failure.value.code) == (422, "bad-recording")
    assert "speech" in failure.value.detail


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_who_spoke_when_in_node(service: ServiceProcess, conversation: bytes) -> None:
    values = {
        "module": f"{ROOT}/tests/clients/scenario.mjs",
        "url": service.url,
        "token": TOKEN,
        "conversation": base64.b64encode(conversation).decode(),
    }
    result = subprocess.run(
        [str(NODE), "--input-type=module", "-"],
        input=NODE_MAIN.format(**{name: json.dumps(value) for name, value in values.items()}),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert result.returncode == 0, result.stderr

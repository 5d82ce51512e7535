"""clients/python/voiceprint_client.py against the running service."""

import asyncio
import http.server
import re
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.python import voiceprint_client
from clients.python.voiceprint_client import (
    AsyncVoiceprintClient,
    ServiceProblem,
    ServiceUnreachable,
    VoiceprintClient,
    VoiceprintError,
)
from service.answers import calibration, schemas
from tests.clients.routes import called_routes, documented_routes
from tests.support.service_client import TOKEN, speech
from tests.support.service_process import ServiceProcess, service_process

NAME = "小 明%2F"  # spaces, other scripts, and what a careless client would decode


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("service")
    options = ["--database", "sqlite:///v.sqlite3", "--keep_audio", "--max_upload_mb", "1"]
    options += ["--rate_limit", "0"]
    with service_process(folder, *options, VOICEPRINT_TOKEN=TOKEN) as process:
        yield process


@pytest.fixture
def client(service: ServiceProcess) -> VoiceprintClient:
    return VoiceprintClient(service.url, TOKEN)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    path.write_bytes(speech(1, 3))
    return path


def test_every_route_of_the_interface_has_its_method(
    client: VoiceprintClient, wav: Path, tmp_path: Path
) -> None:
    assert client.info()["auth_required"]
    assert client.info()["threshold"] == 0.5
    assert client.quality(wav)["duration_s"] == 2.0
    assert client.compare(wav, speech(1, 4))["is_same_speaker"]
    assert not client.compare(str(wav), speech(2))["is_same_speaker"]
    assert len(client.embed(wav)["embedding"]) == 64
    people = {str(n): [speech(n), speech(n, 1)] for n in (1, 2)}
    proposal = client.calibrate(people)
    assert (proposal["num_people"], proposal["num_recordings"]) == (2, 4)
    assert proposal["default"]["in_use"] == 0.5

    enrolled = client.enrol(NAME, [wav, speech(1, 1)])
    assert enrolled["name"] == NAME
    assert len(enrolled["recordings"]) == len(enrolled["quality"]) == 2
    assert enrolled["similarity"][0][0] == pytest.approx(1)
    client.enrol("other", [speech(2)])

    found = client.identify(speech(1, 5))
    assert found["name"] == NAME
    assert [match["name"] for match in found["matches"]] == [NAME, "other"]
    found = client.identify(speech(1, 5), candidates=["other", NAME], top_k=1, threshold=-1)
    assert found["threshold"] == -1
    assert [match["name"] for match in found["matches"]] == [NAME]
    assert client.identify(speech(1, 5), candidates=["other"])["name"] is None
    assert client.verify(NAME, wav)["is_same_speaker"]
    assert client.verify("other", speech(2, 1), threshold=0.25)["threshold"] == 0.25
    asked = client.challenge("other", language="zh")
    assert len(asked["digits"]) == len(asked["text"].split()) == 6
    assert client.verify("other", speech(2, 1), challenge=asked["id"])["challenge_passed"]
    with pytest.raises(ServiceProblem) as refusal:
        client.enrol("third", [speech(2, 1)], challenge=asked["id"])
    assert refusal.value.code == "bad-challenge"

    begun = client.begin_enrolment("by and by")
    assert begun["next"] == "record"
    assert client.add_to_enrolment(begun["id"], speech(4))["recordings"][0]["number"] == 1
    assert client.confirm_in_enrolment(begun["id"], 1)["recordings"][0]["confirmed"]
    assert client.remove_from_enrolment(begun["id"], 1)["recordings"] == []
    for utterance in range(6):
        client.add_to_enrolment(begun["id"], speech(4, utterance, 4.0))
    assert client.enrolment(begun["id"])["next"] == "finish"
    assert len(client.finish_enrolment(begun["id"])["recordings"]) == 6
    client.delete("by and by")
    begun = client.begin_enrolment(if_exists="add")
    with pytest.raises(ServiceProblem) as refusal:
        client.finish_enrolment(begun["id"], "other")
    assert refusal.value.code == "not-complete"
    client.give_up_enrolment(begun["id"])

    zipped = tmp_path / "people.zip"
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("zipped/1.wav", speech(7))
        file.writestr("zipped/2.wav", b"text")
    report = client.enrol_zip(zipped)
    assert (report["enrolled"], report["skipped"], report["left"]) == (1, 1, 0)
    client.delete("zipped")

    assert client.speaker(NAME)["recordings"] == enrolled["recordings"]
    assert client.speakers(limit=1)["total"] == 2
    first = client.events(limit=1)
    assert first["events"][0]["speaker"] == NAME
    assert client.events(first["next"])["events"][0]["speaker"] == "other"
    assert [s["name"] for s in client.speakers(offset=1, query="oth")["speakers"]] == []
    assert len(client.add_recordings(NAME, [speech(1, 6)])["recordings"]) == 3
    recording = client.speaker(NAME)["recordings"][0]
    assert client.recording_audio(NAME, recording["id"])[:4] == b"RIFF"
    assert len(client.delete_recording(NAME, recording["id"])["recordings"]) == 2
    assert len(client.replace_recordings(NAME, [wav])["recordings"]) == 1
    assert client.rename(NAME, "renamed")["name"] == "renamed"
    assert client.delete("renamed")["removed"]["recordings"] == 1
    assert client.delete("other")["name"] == "other"
    assert called_routes(client.url) >= documented_routes(client.url)


def test_an_enrolment_with_the_same_key_is_made_once(client: VoiceprintClient, wav: Path) -> None:
    for _ in range(2):
        enrolled = client.enrol("twice", [wav], idempotency_key="an-enrolment")
        assert enrolled["name"] == "twice"
        more = client.add_recordings("twice", [speech(1, 9)], idempotency_key="a-recording")
        assert len(more["recordings"]) == 2
    assert len(client.speaker("twice")["recordings"]) == 2
    client.delete("twice")


def test_all_speakers_come_page_by_page(
    client: VoiceprintClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voiceprint_client, "PAGE_SIZE", 2)
    names = [f"page {number}" for number in range(5)]
    for number, name in enumerate(names):
        client.enrol(name, [speech(number)])
    assert [speaker["name"] for speaker in client.all_speakers("page")] == names
    assert client.all_speakers("nobody") == []
    for name in names:
        client.delete(name)


def test_the_asynchronous_twin_has_the_same_methods(client: VoiceprintClient, wav: Path) -> None:
    twin = AsyncVoiceprintClient(client)
    public = {name for name in vars(VoiceprintClient) if not name.startswith("_")}
    assert public <= set(dir(twin))
    for name in public - {"stream"}:
        assert getattr(twin, name).__doc__ == getattr(client, name).__doc__

    async def several() -> list[Any]:
        return await asyncio.gather(
            twin.quality(wav), twin.compare(wav, second=wav), twin.speakers(limit=3), twin.info()
        )

    quality, comparison, page, info = asyncio.run(several())
    assert quality["heard"] == comparison["quality"][0]["heard"]
    assert page["limit"] == 3
    assert info["threshold"] == comparison["threshold"]
    with pytest.raises(ServiceProblem):
        asyncio.run(twin.speaker("nobody"))


def test_a_refusal_carries_the_problem(service: ServiceProcess, client: VoiceprintClient) -> None:
    with pytest.raises(ServiceProblem) as refusal:
        client.identify(speech(1), candidates=["nobody"])
    problem = refusal.value
    assert (problem.status, problem.code) == (404, "unknown-speaker")
    assert problem.document["unknown"] == ["nobody"]
    assert str(problem) == problem.detail == "1 of 1 candidates are not enrolled"
    assert problem.title
    assert problem.retry_after_s is None
    assert problem.request_id
    deadline = time.monotonic() + 10
    while problem.request_id not in service.log:  # the line comes after the answer
        assert time.monotonic() < deadline, service.log
        time.sleep(0.05)

    with pytest.raises(ServiceProblem) as refusal:
        VoiceprintClient(service.url, "a-wrong-token").speakers()
    assert (refusal.value.status, refusal.value.code) == (401, "unauthorized")
    assert VoiceprintClient(service.url).info() == {**VoiceprintClient(service.url).info()}
    assert "threshold" not in VoiceprintClient(service.url).info()

    elsewhere = VoiceprintClient(service.url, TOKEN, group="elsewhere")
    for ask in (elsewhere.speakers, elsewhere.stream):
        with pytest.raises(ServiceProblem) as refusal:
            ask()
        assert (refusal.value.status, refusal.value.code) == (404, "unknown-group")


def test_an_upload_that_is_refused_half_way_is_a_problem_not_a_broken_pipe(
    client: VoiceprintClient, tmp_path: Path
) -> None:
    long = tmp_path / "long.wav"
    long.write_bytes(bytes(30_000_000))
    with pytest.raises(ServiceProblem) as refusal:
        client.quality(long)
    assert refusal.value.code == "too-large"


def test_a_busy_service_is_asked_again(tmp_path: Path) -> None:
    options = ["--database", "sqlite:///v.sqlite3", "--queue_size", "1", "--num_threads", "1"]
    with service_process(tmp_path, *options, VOICEPRINT_TOKEN=TOKEN) as service:
        client = VoiceprintClient(service.url, TOKEN)
        hasty = VoiceprintClient(service.url, TOKEN, max_wait_s=0.1)
        twice = VoiceprintClient(service.url, TOKEN, max_tries=2)
        closed = tmp_path / "closed"
        closed.touch()
        answers: list[Any] = []

        def embed() -> None:
            answers.append(client.embed(speech(1)))

        # Whoever is not let in tries again, until the service is open.
        threads = [threading.Thread(target=embed) for _ in range(6)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while "503" not in service.log and time.monotonic() < deadline:
            time.sleep(0.05)
        for impatient in (hasty, twice):
            with pytest.raises(ServiceProblem) as refusal:
                impatient.embed(speech(1))
            assert (refusal.value.status, refusal.value.code) == (503, "busy")
            assert refusal.value.retry_after_s == 1
        closed.unlink()
        for thread in threads:
            thread.join()
        assert len(answers) == 6


def test_no_answer_is_told_apart_from_a_refusal(wav: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ServiceUnreachable, match="timed out"):
            VoiceprintClient(f"http://127.0.0.1:{port}", timeout_s=0.2).quality(wav)
    with pytest.raises(ServiceUnreachable, match="refused"):
        VoiceprintClient(f"http://127.0.0.1:{port}").info()
    assert issubclass(ServiceUnreachable, VoiceprintError)
    assert issubclass(ServiceProblem, VoiceprintError)


class Strange(http.server.BaseHTTPRequestHandler):
    """Answers that the service doesn't give, but something between it and the client may."""

    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        answers = {
            "/moved/v1/info": (307, {"Location": "/elsewhere"}, b""),
            "/page/v1/info": (200, {}, b"<html>"),
            "/gate/v1/info": (502, {}, b"<html>bad gateway"),
            "/date/v1/info": (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"[1]"),
        }
        status, headers, content = answers[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def strange() -> Iterator[str]:
    Strange.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_answers_of_something_in_between(strange: str) -> None:
    with pytest.raises(ServiceProblem) as refusal:
        VoiceprintClient(f"{strange}/moved/", "secret").info()
    assert refusal.value.status == 307
    assert Strange.seen == [("/moved/v1/info", "Bearer secret")]  # and nothing went elsewhere
    with pytest.raises(ServiceUnreachable, match="not JSON"):
        VoiceprintClient(f"{strange}/page").info()
    with pytest.raises(ServiceProblem) as refusal:
        VoiceprintClient(f"{strange}/gate").info()
    assert (refusal.value.code, refusal.value.document) == ("", {})
    assert refusal.value.detail == "<html>bad gateway"
    with pytest.raises(ServiceProblem) as refusal:
        VoiceprintClient(f"{strange}/date", max_tries=1).info()
    assert refusal.value.retry_after_s is None
    with pytest.raises(ServiceUnreachable, match="does not answer"):
        VoiceprintClient(strange.replace("http", "https")).info()


def test_what_cannot_be_sent_is_refused_before(client: VoiceprintClient, tmp_path: Path) -> None:
    for url in ["127.0.0.1:8005", "ftp://host", "http://", "http://host/?key=1"]:
        with pytest.raises(ValueError, match=re.escape(repr(url))):
            VoiceprintClient(url)
    with pytest.raises(ValueError, match="max_tries: received 0"):
        VoiceprintClient(max_tries=0)
    with pytest.raises(FileNotFoundError):
        client.quality(tmp_path / "missing.wav")
    for single in ["a.wav", b"RIFF", tmp_path / "a.wav"]:
        with pytest.raises(TypeError, match="expected a list"):
            client.enrol("name", single)  # type: ignore
    assert repr(client) == f"VoiceprintClient('{client.url}')"


@pytest.mark.parametrize(
    ("typed", "document"),
    [
        ("Info", "InfoDocument"),
        ("Calibration", "CalibrationDocument"),
        ("Rates", "RatesDocument"),
        ("Quality", "QualityDocument"),
        ("StoredRecording", "RecordingDocument"),
        ("Speaker", "SpeakerDocument"),
        ("NewSpeaker", "NewSpeakerDocument"),
        ("EnrolledSpeaker", "EnrolledDocument"),
        ("SpeakerPage", "SpeakersDocument"),
        ("OtherModels", "OtherModelsDocument"),
        ("Verification", "VerifyDocument"),
        ("Challenge", "ChallengeDocument"),
        ("Match", "MatchDocument"),
        ("Identification", "IdentifyDocument"),
        ("Event", "EventDocument"),
        ("Events", "EventsDocument"),
        ("Job", "JobDocument"),
        ("Diarization", "DiarizationDocument"),
        ("FoundSpeaker", "FoundSpeakerDocument"),
        ("Turn", "TurnDocument"),
        ("BulkRow", "BulkRowDocument"),
        ("BulkReport", "BulkDocument"),
        ("Enrolment", "EnrolmentDocument"),
        ("EnrolmentPart", "EnrolmentPartDocument"),
        ("Proposal", "ProposalDocument"),
        ("ProposedThreshold", "ProposedThresholdDocument"),
        ("RateCurve", "CurveDocument"),
    ],
)
def test_types_are_those_of_the_service(typed: str, document: str) -> None:
    module = schemas if hasattr(schemas, document) else calibration
    fields = getattr(module, document).model_fields
    assert set(getattr(voiceprint_client, typed).__annotations__) == set(fields)

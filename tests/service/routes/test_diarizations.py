"""/v1/diarizations: the real model on the sample conversation, and recordings of no use."""

import io
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import soxr

from service.edge.token_file import create_token
from tests.support.service_client import TestClient, check_problem, pack, running
from tests.support.service_process import ROOT, service_process
from tests.support.synthetic_sounds import sounds
from utils.audio.decode import load_audio
from utils.diarization.error_rates import measure_errors
from utils.diarization.turns import read_rttm
from utils.model.encoder import SpeakerEncoder
from voices.sql.owned import Owner

SAMPLE = ROOT / "audio" / "conversation.wav"
PATH = "/v1/diarizations"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A token file's path, and tokens by name."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    made = {"path": str(path)}
    for name, scopes, group in [
        ("me", ["identify", "enrol", "read"], "default"),
        ("other", ["identify"], "default"),
        ("enroller", ["enrol"], "default"),
    ]:
        made[name] = create_token(name, path, scopes=scopes, group=group)[0]
    return made


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, tokens: dict[str, str]
) -> Iterator[TestClient]:
    """A service with the real model, which knows the first speaker of the conversation."""
    folder = tmp_path_factory.mktemp("diarizations")
    encoder = SpeakerEncoder(str(ROOT / "models" / "campplus.int8.onnx"), 1)
    options: dict[str, Any] = {"token_file": Path(tokens["path"]), "keep_audio": True}
    options |= {"diarization_max_duration_s": 60.0, "diarization_queue_size": 20}
    options |= {"diarization_jobs_per_token": 20}
    with running(
        f"sqlite:///{folder}/v.sqlite3", encoder=encoder, authorized=False, **options
    ) as client:
        client.headers["Authorization"] = f"Bearer {tokens['me']}"
        sent = {"file": ("a.wav", (ROOT / "audio" / "a_1.wav").read_bytes())}
        answer = client.post("/v1/speakers", data={"name": "Eric"}, files=sent)
        assert answer.status_code == 201
        yield client


def send(client: TestClient, content: bytes, name: str = "a.wav", **fields: Any) -> Any:
    return client.post(PATH, files={"file": (name, content)}, data=fields)


def finish(client: Any, path: str, seconds: float = 120) -> dict[str, Any]:
    """Waits for the end of a job; its progress never goes back."""
    deadline, progress = time.monotonic() + seconds, 0.0
    while True:
        document: dict[str, Any] = client.get(path).json()
        assert document["progress"] >= progress
        progress = document["progress"]
        if document["state"] not in ("queued", "running"):
            return document
        assert time.monotonic() < deadline, document
        time.sleep(0.05)


@pytest.mark.slow
def test_the_sample_conversation(client: TestClient, tokens: dict[str, str]) -> None:
    answer = send(client, SAMPLE.read_bytes(), "conversation.wav", max_speakers="5")
    assert answer.status_code == 202
    job = answer.json()
    path = f"{PATH}/{job['id']}"
    assert answer.headers["location"] == path
    assert (job["state"], job["progress"], job["error"]) == ("queued", 0, None)
    problem = check_problem(client.get(f"{path}/rttm"), 409, "not-done")
    assert problem["state"] in ("queued", "running")
    document = finish(client, path)
    assert (document["state"], document["progress"]) == ("done", 1)

    result = document["result"]
    assert (result["recording"], result["duration_s"]) == ("conversation", 40.226)
    names = [speaker["name"] for speaker in result["speakers"]]
    assert names == ["Eric", None, None]
    assert result["speakers"][0]["score"] > result["threshold"] > result["speakers"][1]["score"]
    assert [speaker["can_be_enrolled"] for speaker in result["speakers"]] == [True] * 3
    assert sum(turn["is_overlapped"] for turn in result["turns"]) in (2, 3, 4)
    (reference,) = read_rttm(SAMPLE.with_suffix(".rttm")).values()
    text = client.get(f"{path}/rttm")
    assert text.headers["content-type"].startswith("text/plain")
    found = read_text(text.text)
    assert {turn.speaker for turn in found} == {"Eric", "speaker_2", "speaker_3"}
    rates = measure_errors(reference, found)
    assert rates.count_errors == (0,)
    assert rates.missed_s + rates.false_alarm_s + rates.confusion_s < 0.06 * rates.speech_s

    # Another token sees nothing of it.
    headers = {"Authorization": f"Bearer {tokens['other']}"}
    for method, url in [("GET", path), ("GET", f"{path}/rttm"), ("DELETE", path)]:
        check_problem(client.request(method, url, headers=headers), 404, "unknown-job")
    assert client.get(PATH, headers=headers).json() == {"diarizations": []}
    (listed,) = client.get(PATH).json()["diarizations"]
    assert listed == {key: document[key] for key in listed}
    assert "result" not in listed

    enrol(client, path, tokens)
    assert client.delete(path).json()["state"] == "done"
    check_problem(client.get(path), 404, "unknown-job")
    check_problem(client.delete(path), 404, "unknown-job")


def read_text(text: str) -> Any:
    """Reads RTTM from a text."""
    with tempfile.NamedTemporaryFile("w", suffix=".rttm", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        (turns,) = read_rttm(file.name).values()
    return turns


def enrol(client: TestClient, path: str, tokens: dict[str, str]) -> None:
    """Enrols the second speaker from the turns, and finds the voice in another recording."""
    url = f"{path}/speakers/2/enrol"
    headers = {"Authorization": f"Bearer {tokens['other']}"}
    body = {"name": "小艺"}
    check_problem(client.post(url, json=body, headers=headers), 403, "missing-scope")
    check_problem(client.post(f"{path}/speakers/9/enrol", json=body), 404, "unknown-label")
    check_problem(client.post(url, json={"name": "a/b"}), 422, "bad-name")
    check_problem(client.post(url, json={"name": "Eric"}), 409, "speaker-exists")
    answer = client.post(url, json=body)
    assert answer.status_code == 201
    (recording,) = answer.json()["recordings"]
    assert 8 < recording["speech_s"] <= recording["duration_s"] <= 30
    assert recording["has_audio"]
    sent = {"file": ("b.wav", (ROOT / "audio" / "b_1.wav").read_bytes())}
    assert client.post("/v1/identify", files=sent).json()["name"] == "小艺"
    answer = client.post(f"{path}/speakers/1/enrol", json={"name": "Eric", "if_exists": "add"})
    assert len(answer.json()["recordings"]) == 2
    lines = client.app.state.service.database.audit_log.last(2)
    assert [(line.action, line.speaker) for line in reversed(lines)] == [
        ("identify", "小艺"),
        ("add", "Eric"),
    ]


def telephone(waveform: np.ndarray) -> bytes:
    return pack(soxr.resample(waveform, 16000, 8000), 8000, subtype="ULAW")


@pytest.mark.slow
def test_other_recordings(client: TestClient) -> None:
    """One speaker, a telephone, a compressed file without a length, and no speech."""
    voice = load_audio(ROOT / "audio" / "a_2.wav")
    flac = pack(voice, container="OGG", subtype="VORBIS")
    noise = sounds(8.0)["white noise"]
    sent = {
        "one": send(client, pack(voice)),
        "telephone": send(client, telephone(load_audio(SAMPLE)[: 16000 * 13])),
        "ogg": send(client, flac),
        "noise": send(client, pack(noise)),
        "silence": send(client, pack(np.zeros(16000 * 8))),
    }
    found = {name: finish(client, answer.headers["location"]) for name, answer in sent.items()}
    assert len(found["one"]["result"]["speakers"]) == 1
    assert len(found["telephone"]["result"]["speakers"]) == 2
    assert found["ogg"]["state"] == "done"
    for name, word in [("noise", "no speech"), ("silence", "silen")]:
        assert found[name]["state"] == "failed"
        assert found[name]["result"] is None
        assert found[name]["error"]["type"] == "/problems/bad-recording"
        assert word in found[name]["error"]["detail"]
        path = f"{PATH}/{found[name]['id']}"
        problem = check_problem(client.get(f"{path}/rttm"), 409, "not-done")
        assert problem["state"] == "failed"
        answer = client.post(f"{path}/speakers/1/enrol", json={"name": "x"})
        check_problem(answer, 409, "not-done")


def test_recordings_that_are_refused_at_once(client: TestClient) -> None:
    whole = pack(np.zeros(16000 * 61))
    for content, status, code in [
        (b"", 422, "bad-recording"),
        (b"just text", 415, "wrong-type"),
        (whole, 413, "too-long"),
        (pack(np.zeros(16000))[:-5000], 422, "bad-recording"),
    ]:
        check_problem(send(client, content), status, code)
    # An ogg tells its length at its end: what ends early is shorter, or damaged.
    assert client.get(PATH).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"num_speakers": "0"}, 422, "bad-field"),
        ({"num_speakers": "three"}, 422, "bad-field"),
        ({"max_speakers": "101"}, 422, "bad-field"),
        ({"min_speakers": "3", "max_speakers": "2"}, 422, "bad-field"),
        ({"candidates": ["Eric", "Nobody"]}, 404, "unknown-speaker"),
        ({"candidates": "a/b"}, 422, "bad-name"),
    ],
)
def test_bad_fields(client: TestClient, fields: Any, status: int, code: str) -> None:
    problem = check_problem(send(client, pack(np.zeros(16000)), **fields), status, code)
    if code == "bad-field":
        assert next(iter(fields)) in problem["detail"] or "min_speakers" in problem["detail"]


def test_what_is_no_form(client: TestClient, tokens: dict[str, str]) -> None:
    check_problem(client.post(PATH, json={}), 415, "wrong-type")
    check_problem(client.post(PATH, files={"x": ("a", b"b")}), 422, "bad-field")
    headers = {"Authorization": f"Bearer {tokens['enroller']}"}
    check_problem(
        client.post(PATH, files={"file": ("a", b"b")}, headers=headers), 403, "missing-scope"
    )
    check_problem(client.get(f"{PATH}/{'0' * 32}"), 404, "unknown-job")


def test_too_many_wait(client: TestClient) -> None:
    jobs = client.app.state.service.jobs
    for owner, status, code in [
        (Owner("other", "default"), 503, "busy"),
        (Owner("me", "default"), 429, "too-many-requests"),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "_places", Counter({owner: 21}))
            answer = send(client, pack(np.zeros(16000)))
            problem = check_problem(answer, status, code)
            assert answer.headers["retry-after"] == str(problem["retry_after_s"])


@pytest.mark.slow
def test_a_killed_service_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    """The file `closed` holds the job up; its process ends with the service."""
    spools = tmp_path / "temporary"
    spools.mkdir()
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    sound = io.BytesIO()
    samples, rate = soundfile.read(SAMPLE)
    soundfile.write(sound, samples[: rate * 12], rate, format="WAV")
    with service_process(tmp_path, "--database", url, TMPDIR=str(spools)) as service:
        (tmp_path / "closed").touch()  # no encoding ends from here on
        with httpx.Client(base_url=service.url, timeout=60) as http:
            sent = {"file": ("secret.wav", sound.getvalue())}
            path = http.post(PATH, files=sent).headers["location"]
            while http.get(path).json()["state"] != "running":
                time.sleep(0.05)
            assert list(spools.iterdir()) == []
        children = children_of(service.process.pid)
        assert children
        service.process.kill()
        service.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(spools.iterdir()) == []
    for file in tmp_path.glob("v.sqlite3*"):
        assert b"secret" not in file.read_bytes()
    (tmp_path / "closed").unlink()
    with service_process(tmp_path, "--database", url, TMPDIR=str(spools)) as service:
        with httpx.Client(base_url=service.url, timeout=60) as http:
            while (document := http.get(path).json())["state"] != "lost":
                assert document["state"] in ("queued", "running")
                time.sleep(0.2)
            assert document["error"]["type"] == "/problems/lost"
            # A job that is over outlives a restart; one that runs does not outlive a stop.
            done = http.post(PATH, files=sent).headers["location"]
            assert finish(http, done)["state"] == "done"
            (tmp_path / "closed").touch()
            running_job = http.post(PATH, files=sent).headers["location"]
            while http.get(running_job).json()["state"] != "running":
                time.sleep(0.05)
        service.process.terminate()
        assert service.wait() == 0
    (tmp_path / "closed").unlink()
    with (
        service_process(tmp_path, "--database", url, TMPDIR=str(spools)) as service,
        httpx.Client(base_url=service.url, timeout=60) as http,
    ):
        assert http.get(done).json()["result"]["recording"] == "secret"
        assert http.get(running_job).json()["state"] == "lost"
        assert http.delete(running_job).status_code == 200
        assert len(http.get(PATH).json()["diarizations"]) == 2


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    if shutil.which("pgrep") is None and not Path(f"/proc/{pid}/task").exists():
        pytest.skip("processes cannot be listed here")
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found

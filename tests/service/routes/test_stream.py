"""/v1/stream: what clients hear, and each way in which a stream ends."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from service.answers.problems import retry_later
from service.edge.token_file import create_token
from service.live import talk
from tests.support.service_client import TOKEN, TestClient, WebSocketDenialResponse, running
from tests.support.service_process import ROOT, service_process
from utils.diarization.turns import read_rttm
from utils.model.encoder import SpeakerEncoder

PATH = "/v1/stream"
URL = f"ws://127.0.0.1{PATH}"
PAUSE = bytes(32_000)


def samples(name: str) -> bytes:
    waveform, rate = soundfile.read(ROOT / "audio" / name, dtype="int16")
    assert rate == 16000
    return bytes(np.asarray(waveform, "<i2").tobytes())


def send(socket: Any, data: bytes, size: int = 3200) -> None:
    for start in range(0, len(data), size):
        socket.send_bytes(data[start : start + size])


def hear(socket: Any) -> list[dict[str, Any]]:
    """All events to the end of a stream."""
    events = []
    try:
        while True:
            events.append(socket.receive_json())
    except WebSocketDisconnect as end:
        events.append({"event": "closed", "code": end.code, "reason": end.reason})
    return events


def open_stream(client: TestClient, options: Any = None, **headers: str) -> Any:
    """A stream whose options are sent already; a context manager."""
    stack = ExitStack()
    socket = stack.enter_context(client.websocket_connect(URL, headers=headers))
    socket.send_text(json.dumps({} if options is None else options))
    assert socket.receive_json()["event"] == "ready"
    socket.close_all = stack.close
    return socket


# With the real model.


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that knows the first speaker of the conversation, and hears a minute at once."""
    folder = tmp_path_factory.mktemp("stream")
    encoder = SpeakerEncoder(str(ROOT / "models" / "campplus.int8.onnx"), 1)
    options: dict[str, Any] = {"stream_ahead_s": 100.0, "num_threads": 1, "token": TOKEN}
    with running(f"sqlite:///{folder}/v.sqlite3", encoder=encoder, **options) as client:
        sent = {"file": ("a.wav", (ROOT / "audio" / "a_1.wav").read_bytes())}
        assert client.post("/v1/speakers", data={"name": "Eric"}, files=sent).status_code == 201
        yield client


@pytest.mark.slow
def test_the_sample_conversation(client: TestClient) -> None:
    with client.websocket_connect(URL) as socket:
        socket.send_text(json.dumps({"sample_rate": 16000}))
        ready = socket.receive_json()
        assert (ready["event"], ready["sample_rate"]) == ("ready", 16000)
        assert ready["threshold"] == client.app.state.service.encoder.strict_threshold
        send(socket, samples("conversation.wav"))
        socket.send_text('{"end": true}')
        events = hear(socket)
    assert events[-2:] == [
        {"event": "end", "heard_s": 40.226},
        {"event": "closed", "code": 1000, "reason": ""},
    ]
    turns: dict[int, list[dict[str, Any]]] = {}
    for event in events[:-2]:
        turns.setdefault(event["turn"], []).append(event)
    assert list(turns) == list(range(1, len(turns) + 1))
    (reference,) = read_rttm(ROOT / "audio" / "conversation.rttm").values()
    right = 0
    for turn in turns.values():
        words = [event["event"] for event in turn]
        assert words[0] == "speech-start"
        assert words[-1] == "speech-end"
        assert set(words[1:-1]) <= {"speaker", "speaker-corrected"}
        assert words.count("speaker") <= 1
        last = turn[-1]
        assert last["start_s"] == turn[0]["start_s"] < last["end_s"]
        middle = (last["start_s"] + last["end_s"]) / 2
        (true, *_) = sorted(reference, key=lambda t: abs((t.start_s + t.end_s) / 2 - middle))
        right += (true.speaker == "am_eric") == (last["name"] == "Eric")
        assert (last["name"] is None) or last["number"] is None
    assert right == len(turns)
    # The first turn is named after a second of speech.
    first = next(event for event in turns[1] if event["event"] == "speaker")
    assert (first["name"], first["end_s"] - first["start_s"] < 1.2) == ("Eric", True)
    service = client.app.state.service
    decisions = [event for event in events if event["event"].startswith("speaker")]
    lines = service.database.audit_log.last(len(decisions))
    assert [(line.action, line.speaker, line.actor) for line in reversed(lines)] == [
        ("stream", event["name"] or "", "environment") for event in decisions
    ]
    assert service.num_streams == 0


@pytest.mark.slow
def test_an_unknown_speaker_is_enrolled_while_speaking(client: TestClient) -> None:
    with client.websocket_connect(URL) as socket:
        socket.send_text("{}")
        send(socket, PAUSE + samples("b_1.wav") + PAUSE)
        for command in [
            {"enrol": 7, "name": "x"},
            {"enrol": 1, "name": "a/b"},
            {"enrol": 1, "name": "Eric"},
            {"enrol": 1, "name": "小艺"},
        ]:
            socket.send_text(json.dumps(command))
        send(socket, samples("b_2.wav") + PAUSE)
        socket.send_text('{"end": true}')
        events = hear(socket)
    errors = [event["type"] for event in events if event["event"] == "error"]
    assert errors == ["/problems/unknown-label", "/problems/bad-name", "/problems/speaker-exists"]
    assert {"event": "enrolled", "number": 1, "name": "小艺"} in events
    ends = [event for event in events if event["event"] == "speech-end"]
    assert [(event["name"], event["number"]) for event in ends] == [(None, 1), ("小艺", None)]
    answer = client.get("/v1/speakers/小艺").json()
    assert 3 < answer["recordings"][0]["speech_s"] < 7
    service = client.app.state.service
    lines = service.database.audit_log.last(9)
    (line,) = [each for each in lines if (each.action, each.speaker) == ("enrol", "小艺")]
    assert line.outcome == "from a stream"


# With the fake encoder: the rules.


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    made = {"path": str(path)}
    for name, scopes in [("hears", ["identify"]), ("reads", ["read"])]:
        made[name] = create_token(name, path, scopes=scopes)[0]
    return made


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, tokens: dict[str, str]
) -> Iterator[TestClient]:
    """A service with tokens, one place, and little patience."""
    folder = tmp_path_factory.mktemp("strict")
    options: dict[str, Any] = {"token_file": Path(tokens["path"]), "max_streams": 1}
    options |= {"stream_idle_s": 0.3, "stream_max_s": 1.0, "stream_ahead_s": 0.5}
    options |= {"header_timeout_s": 0.3, "num_threads": 1}
    with running(f"sqlite:///{folder}/v.sqlite3", authorized=False, **options) as client:
        yield client


def ends(events: list[dict[str, Any]], code: int, reason: str) -> None:
    """The last event tells the problem, and the close tells it again."""
    assert events[-1]["code"] == code
    assert events[-1]["reason"].startswith(reason)
    assert events[-2]["event"] == "error"
    assert events[-2]["status"] == code - 4000
    assert reason.startswith(events[-2]["type"].removeprefix("/problems/"))


@pytest.mark.parametrize(
    ("first", "code", "reason"),
    [
        ("hello", 4400, "bad-json: the text is not JSON"),
        ('{"tokens": 1}', 4422, "bad-field: tokens: Extra inputs"),
        (
            '{"token": "TOKEN", "sample_rate": 8000}',
            4422,
            "bad-field: sample_rate: Input should be",
        ),
        ("[]", 4422, "bad-field: the text: Input should be"),
        ("x" * 5000, 4413, "too-large: a text of 5000"),
        (b"\0\0", 4422, "bad-field: the first frame has to be the options"),
        ("{}", 4401, "unauthorized: no valid token"),
        ('{"token": "wrong wrong wrong wrong"}', 4401, "unauthorized: no valid token"),
        ('{"token": "READS"}', 4403, "missing-scope: the token reads lacks the scope identify"),
        (None, 4408, "slow-client: the first frame"),
    ],
)
def test_bad_beginnings(
    strict: TestClient, tokens: dict[str, str], first: Any, code: int, reason: str
) -> None:
    with strict.websocket_connect(URL) as socket:
        if isinstance(first, bytes):
            socket.send_bytes(first)
        elif first is not None:
            known = first.replace("TOKEN", tokens["hears"]).replace("READS", tokens["reads"])
            socket.send_text(known)
        ends(hear(socket), code, reason)
    assert strict.app.state.service.num_streams == 0


@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [
        (b"\0" * 3, 4422, "bad-field: a frame of 3 bytes, expected whole 16-bit samples"),
        (b"\0" * 65_538, 4413, "too-large: a frame of 65538 bytes, expected at most 65536"),
        (b"\0" * 17_000, 4429, "too-fast: more than 0.5 s ahead of real time"),
        ("text", 4400, "bad-json: the text is not JSON; samples go into binary frames"),
        ('{"enrol": "one"}', 4422, "bad-field: enrol: "),
        ("{}", 4422, "bad-field: received neither enrol nor end"),
        (None, 4408, "slow-client: no samples arrived for 0.3 s"),
    ],
)
def test_bad_frames(
    strict: TestClient, tokens: dict[str, str], frame: Any, code: int, reason: str
) -> None:
    socket = open_stream(strict, {"token": tokens["hears"]})
    socket.send_bytes(b"")
    if isinstance(frame, bytes):
        socket.send_bytes(frame)
    elif frame is not None:
        socket.send_text(frame)
    ends(hear(socket), code, reason)
    socket.close_all()


def test_the_length_is_limited(strict: TestClient, tokens: dict[str, str]) -> None:
    socket = open_stream(strict, Authorization=f"Bearer {tokens['hears']}")
    start = time.monotonic()
    for _ in range(8):
        socket.send_bytes(bytes(4800))
        time.sleep(0.15)
    ends(hear(socket), 4413, "too-long: longer than 1 s")
    assert time.monotonic() - start < 10
    socket.close_all()


def test_places_are_limited(strict: TestClient, tokens: dict[str, str]) -> None:
    socket = open_stream(strict, {"token": tokens["hears"]})
    with strict.websocket_connect(URL) as second:
        ends(hear(second), 4503, "busy: 1 streams are open")
    assert (
        "voiceprint_streams 1.0"
        in strict.get("/metrics", headers={"Authorization": f"Bearer {tokens['reads']}"}).text
    )
    socket.close()
    socket.close_all()
    deadline = time.monotonic() + 10
    while strict.app.state.service.num_streams:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_enrolling_needs_its_scope(strict: TestClient, tokens: dict[str, str]) -> None:
    socket = open_stream(strict, {"token": tokens["hears"]})
    socket.send_text('{"enrol": 1, "name": "Ann"}')
    event = socket.receive_json()
    assert (event["event"], event["type"]) == ("error", "/problems/missing-scope")
    socket.send_text('{"end": true}')
    assert [event["event"] for event in hear(socket)] == ["end", "closed"]
    socket.close_all()


def test_a_service_that_cannot_keep_up(
    strict: TestClient, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = strict.app.state.service.pool

    def refuse(*_: object, **__: object) -> Any:
        raise retry_later("busy", "full", 1)

    monkeypatch.setattr(pool, "submit", refuse)
    monkeypatch.setattr(talk, "BUSY_WAIT_S", 0.01)
    socket = open_stream(strict, {"token": tokens["hears"]})
    for _ in range(4):
        socket.send_bytes(bytes(6400))
        time.sleep(0.2)
    ends(hear(socket), 4503, "busy: the service is more than 0.5 s behind")
    socket.close_all()


def test_a_token_that_is_revoked_meanwhile(
    strict: TestClient, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "RECHECK_S", 0.0)
    socket = open_stream(strict, {"token": tokens["hears"]})
    monkeypatch.setattr(strict.app.state.service.tokens, "find", lambda _: None)
    socket.send_bytes(bytes(320))
    ends(hear(socket), 4401, "unauthorized")
    socket.close_all()


def test_an_error_of_the_service(
    strict: TestClient, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr("service.live.session.LiveSession.hear", fail)
    socket = open_stream(strict, {"token": tokens["hears"]})
    socket.send_bytes(bytes(3200))
    events = hear(socket)
    ends(events, 4500, "internal: see the service's log")
    assert "a bug" not in str(events)
    socket.close_all()


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (PATH, {"Origin": "http://evil.example"}, 403, "cross-origin"),
        (PATH, {"Authorization": "Bearer wrong wrong wrong"}, 401, "unauthorized"),
        ("/v1/identify", {}, 404, "not-found"),
        ("/static/app.js", {}, 404, "not-found"),
    ],
)
def test_handshakes_that_are_refused(
    strict: TestClient, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        strict.websocket_connect(f"ws://127.0.0.1{path}", headers=headers),
    ):
        raise AssertionError
    assert caught.value.status_code == status
    assert caught.value.json()["type"] == f"/problems/{code}"
    assert caught.value.headers["x-content-type-options"] == "nosniff"


def test_pages_of_the_service_itself_may_connect(
    strict: TestClient, tokens: dict[str, str]
) -> None:
    socket = open_stream(strict, {"token": tokens["hears"]}, Origin="http://127.0.0.1")
    socket.send_text('{"end": true}')
    assert hear(socket)[-1]["code"] == 1000
    socket.close_all()


def test_without_tokens_only_localhost_is_answered(tmp_path: Path) -> None:
    with running(f"sqlite:///{tmp_path}/v.sqlite3") as client:
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            client.websocket_connect("ws://rebound.example/v1/stream"),
        ):
            raise AssertionError
        assert caught.value.json()["type"] == "/problems/bad-host"
        socket = open_stream(client)
        socket.send_text('{"end": true}')
        assert hear(socket)[-1]["code"] == 1000
        socket.close_all()


@pytest.mark.slow
def test_a_really_running_service(tmp_path: Path) -> None:
    """What only the server decides: upgrade, long messages, headers in time, stop."""
    options = ["--database", "sqlite:///v.sqlite3", "--header_timeout_s", "1"]
    with service_process(tmp_path, *options, VOICEPRINT_TOKEN=TOKEN) as service:
        url = service.url.replace("http", "ws") + PATH
        with pytest.raises(InvalidStatus) as refused:
            connect(url, origin="http://evil.example")  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
        assert b"/problems/cross-origin" in bytes(refused.value.response.body or b"")
        with connect(url) as long_message:
            long_message.send(bytes(1_100_000))
            with pytest.raises(ConnectionClosed) as closed:
                long_message.recv(timeout=20)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        with connect(url) as stream:
            stream.send(json.dumps({"token": TOKEN}))
            assert json.loads(stream.recv(timeout=20))["event"] == "ready"
            # The time for headers is over, and the stream goes on.
            for _ in range(15):
                stream.send(bytes(3200))
                time.sleep(0.1)
            service.process.terminate()
            with pytest.raises(ConnectionClosed) as closed:
                stream.recv(timeout=20)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        assert service.wait() == 0
        assert "status=1012" in service.log
        assert "actor=environment" in service.log
        assert "ERROR" not in service.log
        assert TOKEN not in service.log

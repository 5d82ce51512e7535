"""A really running service: slow clients, full queues, and how it ends."""

import concurrent.futures
import contextlib
import json
import logging
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from service.logs import LOGGER
from tests.support.fake_encoder import FakeEncoder
from tests.support.fake_service import FakeHeader
from tests.support.script_runs import run_here
from tests.support.service_client import check_problem, files, pack, speech
from tests.support.service_process import ROOT, ServiceProcess, service_process
from utils.model import encoder, header
from voices.sql.store import SqlVoiceStore

pytestmark = pytest.mark.slow

MOST_FILES = 260
"""Open files that a process gets in a test."""

Start = Callable[..., SimpleNamespace]

FORM = b"multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service that waits only a second for headers and bodies."""
    folder = tmp_path_factory.mktemp("server")
    options = ["--header_timeout_s", "1", "--body_timeout_s", "1", "--max_upload_mb", "1"]
    options += ["--rate_limit", "0", "--database", "sqlite:///v.sqlite3"]
    with service_process(folder, *options) as service:
        yield service


def connect(service: ServiceProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


@pytest.mark.parametrize("begin", [b"", b"GET /health/live HT", b"GET / HTTP/1.1\r\nHost: a\r\nX"])
def test_headers_that_do_not_come(service: ServiceProcess, begin: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(begin)
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


def test_headers_that_trickle_have_no_longer(service: ServiceProcess) -> None:
    with connect(service) as connection:
        start = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\n")
        answer = b""
        connection.settimeout(0.2)
        while not answer and time.monotonic() - start < 30:
            connection.sendall(b"X-A: b\r\n")
            try:
                answer = connection.recv(1000)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_second_request_has_its_own_time(service: ServiceProcess) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(service) as connection:
        connection.sendall(request)
        assert receive_answer(connection)[0] == 200
        connection.sendall(request[:10])
        assert b"HTTP/1.1 408 " in read_all(connection)


def test_a_body_that_does_not_come(service: ServiceProcess) -> None:
    head = b"POST /v1/quality HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\n" % FORM
    with connect(service) as connection:
        connection.sendall(head + b"Content-Length: 5000\r\n\r\n--b\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/slow-client" in answer


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_large_body_is_refused_and_the_client_can_read_it(
    service: ServiceProcess, is_chunked: bool
) -> None:
    body = bytes(3_000_000)
    headers = {"Content-Type": FORM.decode()}
    content = (body[start : start + 65536] for start in range(0, len(body), 65536))
    answer = httpx.post(
        f"{service.url}/v1/quality", content=content if is_chunked else body, headers=headers
    )
    check_problem(answer, 413, "too-large")


def test_what_is_no_http(service: ServiceProcess) -> None:
    with connect(service) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")
    with connect(service) as connection:
        connection.sendall(b"GET /" + b"x" * 70_000)
        time.sleep(0.2)
        connection.sendall(b"x" * 70_000)
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"GET /"])
def test_headers_without_an_end(service: ServiceProcess, begin: bytes) -> None:
    """They are refused when they are too many, however fast they come."""
    with connect(service) as connection:
        connection.sendall(begin)
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b"x" * 100_000)
        with contextlib.suppress(ConnectionResetError):
            assert read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_empty_lines_do_not_keep_a_connection_open(service: ServiceProcess) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(service) as connection:
        connection.sendall(request)
        assert receive_answer(connection)[0] == 200
        start = time.monotonic()
        connection.settimeout(0.2)
        answer = b""
        while not answer and time.monotonic() - start < 30:
            connection.sendall(b"\r\n")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 4")


def test_an_answered_request_without_its_end_is_closed(service: ServiceProcess) -> None:
    """More of a body that was refused must not keep the connection open for ever."""
    head = b"POST /v1/quality HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\n"
    with connect(service) as connection:
        connection.sendall(head)
        assert receive_answer(connection)[0] == 400
        connection.sendall(b"x")
        with contextlib.suppress(ConnectionResetError):
            assert b" 200 OK" not in read_all(connection)


def test_what_follows_the_end_of_a_body_takes_no_memory(service: ServiceProcess) -> None:
    """Header lines behind a chunked body are limited as those before it."""
    head = (
        b"POST /v1/quality HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    )
    with connect(service) as connection:
        connection.sendall(head)
        with pytest.raises(OSError, match=r"reset|pipe|aborted"):
            for _ in range(400):
                connection.sendall(b"a:b\r\n" * 20_000)


def form(content: bytes) -> bytes:
    part = b"--b\r\nContent-Disposition: form-data; name=file; filename=a.wav\r\n\r\n"
    return part + content + b"\r\n--b--\r\n"


def receive_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Returns status and body of the next answer on a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or pytest.fail(f"closed after {data!r}")
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.findall(rb"content-length: (\d+)", head)[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head[9:12]), body


@pytest.mark.parametrize("upgrade", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_requests_one_after_the_other(
    service: ServiceProcess, upgrade: bytes, is_chunked: bool
) -> None:
    """Many on one connection, their bodies larger than a read and than the limit of headers."""
    body = form(speech(1, 0, 5.0))
    head = b"POST /v1/quality HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\n" % FORM
    sent = [b"%x\r\n%b\r\n" % (len(body), body), b"0\r\n\r\n"] if is_chunked else [body]
    length = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
    with connect(service) as connection:
        for _ in range(3):
            connection.sendall(head + upgrade + length + b"\r\n\r\n" + b"".join(sent))
            status, answer = receive_answer(connection)
            assert status == 200 and json.loads(answer)["duration_s"] == 5


def test_a_tunnel_is_refused(service: ServiceProcess) -> None:
    with connect(service) as connection:
        connection.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_requests_that_do_not_wait_for_answers(service: ServiceProcess) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(service) as connection:
        connection.sendall(20 * request)
        data = b""
        while data.count(b'{"status":"alive"}') < 20:
            data += connection.recv(65536) or pytest.fail("closed")
        assert data.count(b"HTTP/1.1 200 ") == 20


def test_it_answers_others_while_one_is_slow(service: ServiceProcess) -> None:
    with connect(service), connect(service):
        assert httpx.get(f"{service.url}/health/ready").json() == {"status": "ready"}


def test_the_log_holds_no_names_keys_or_queries(service: ServiceProcess) -> None:
    httpx.get(f"{service.url}/voiceprint/health", params={"key": "very-secret-key"})
    httpx.get(f"{service.url}/v1/speakers/Jane Doe")
    httpx.get(f"{service.url}/v1/speakers", params={"query": "Jane"})
    log = service.log
    assert "route=/v1/speakers/{name} status=404" in log
    for secret in ["very-secret-key", "Jane", "?"]:
        assert secret not in log


def test_simultaneous_questions_get_their_own_answers(tmp_path: Path) -> None:
    options = ["--num_threads", "2", "--rate_limit", "0", "--database", "sqlite:///v.sqlite3"]
    voices = {f"s{number}": speech(number) for number in range(6)}
    with service_process(tmp_path, *options, FAKE_DELAY_S="0.02") as service:
        for name, voice in voices.items():
            sent = {"data": {"name": name}, "files": files(voice)}
            assert httpx.post(f"{service.url}/v1/speakers", **sent).status_code == 201
        names = [*voices, "silence"] * 6

        def ask(name: str) -> str | int:
            sent = files(voices.get(name, pack(np.zeros(32000))))
            answer = httpx.post(f"{service.url}/v1/identify", files=sent, timeout=60)
            return answer.status_code if answer.status_code != 200 else answer.json()["name"]

        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            answers = list(pool.map(ask, names))
        assert answers == [422 if name == "silence" else name for name in names]
    database = SqlVoiceStore(f"sqlite:///{tmp_path}/v.sqlite3")
    entries = [entry for entry in database.audit_log.last(200) if entry.action == "identify"]
    database.close()
    assert sorted(entry.speaker for entry in entries) == sorted(6 * list(voices))
    # Lines of one transaction have one time.
    assert len({entry.at for entry in entries}) < len(entries)


def enrol(url: str, name: str) -> int:
    """Returns the status, at the next try if there was no room for the connection."""
    for _ in range(50):
        answer = httpx.post(f"{url}/v1/speakers", data={"name": name}, files=files(speech(1)))
        if answer.text != "too many connections\n":
            break
        time.sleep(0.1)
    return answer.status_code


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files")
def test_idle_connections_do_not_take_the_files_of_the_database(tmp_path: Path) -> None:
    script = tmp_path / "limited.py"
    script.write_text(
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({MOST_FILES // 2}, {MOST_FILES}))\n"
        f"sys.argv[0] = {str(ROOT / 'tests' / 'support' / 'fake_service.py')!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    options = ["--database", "sqlite:///v.sqlite3", "--header_timeout_s", "60"]
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(service_process(tmp_path, *options, script=str(script)))
        idle = [stack.enter_context(connect(service)) for _ in range(MOST_FILES)]
        assert idle[-1].recv(1000).startswith(b"HTTP/1.1 503 ")
        for connection in idle[:10]:
            connection.close()
        # New connections of the database open files while all that may be are connections.
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(
                pool.map(lambda number: enrol(service.url, f"s{number}"), range(8))
            ) == 8 * [201]
        for connection in idle:
            connection.close()
        # All at the same moment: they are taken before any of them can be refused.
        burst = [stack.enter_context(socket.socket()) for _ in range(2 * MOST_FILES)]
        for connection in burst:
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", service.port))
        for connection in burst:
            connection.close()
        assert enrol(service.url, "Ann") == 201
        assert service.log.count("connections refused") == 1
        assert "Too many open files" not in service.log
        assert httpx.get(f"{service.url}/health/ready").status_code == 200


# How it ends.


def identify(url: str) -> int:
    return httpx.post(f"{url}/v1/embed", files=files(speech(1)), timeout=60).status_code


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_stopping_finishes_what_was_accepted(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    options = ["--queue_size", "20", "--num_threads", "2", "--database", "sqlite:///v.sqlite3"]
    with service_process(tmp_path, *options) as service:
        with closed(tmp_path), concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(identify, service.url) for _ in range(8)]
            # One is in each thread of the encoder; the rest waits.
            wait_for_queue(service, 8)
            service.process.send_signal(number)
            wait_for_stopping(service)
            (tmp_path / "closed").unlink()
            assert [answer.result() for answer in answers] == [200] * 8
        assert service.wait() == status
        log = service.log
    assert len(re.findall(r"^Stopping: finishing \d+ requests\.$", log, re.M)) == 1
    assert "Traceback" not in log


@contextlib.contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Lets the encoder of a service that runs in a folder end nothing."""
    gate = folder / "closed"
    gate.touch()
    try:
        yield
    finally:
        gate.unlink(missing_ok=True)


def wait_for_queue(service: ServiceProcess, depth: int) -> None:
    deadline = time.monotonic() + 60
    with httpx.Client(base_url=service.url) as client:
        while f"voiceprint_queue_depth {depth}.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline, "the queue did not fill"
            time.sleep(0.02)


def wait_for_stopping(service: ServiceProcess) -> None:
    deadline = time.monotonic() + 60
    while "Stopping" not in service.log:
        assert time.monotonic() < deadline, service.log
        time.sleep(0.02)


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    head = b"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\n" % FORM
    body = form(speech(1))
    options = ["--database", "sqlite:///v.sqlite3"]
    with (
        service_process(tmp_path, *options, FAKE_DELAY_S="2") as service,
        connect(service) as connection,
    ):
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_for_queue(service, 1)
        service.process.send_signal(signal.SIGINT)
        wait_for_stopping(service)
        service.process.send_signal(signal.SIGINT)
        assert b" 200 OK" not in read_all(connection)
        assert service.wait() == 130


def test_half_an_upload_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    head = b"POST /v1/quality HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\n" % FORM
    options = ["--database", "sqlite:///v.sqlite3", "--body_timeout_s", "60"]
    with service_process(tmp_path, *options) as service, connect(service) as connection:
        connection.sendall(head + b"Content-Length: 5000\r\n\r\n--b\r\n")
        time.sleep(0.3)
        began = time.monotonic()
        service.process.terminate()
        answer = read_all(connection)
        assert service.wait() == 0
        assert time.monotonic() - began < 20  # of the 30 s that accepted requests have
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"the service is stopping" in answer


def test_two_lengths_are_refused_and_the_connection_ends(service: ServiceProcess) -> None:
    head = b"POST /v1/quality HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\n" % FORM
    lengths = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(service) as connection:
        connection.sendall(head + lengths + b"0\r\n\r\nGET /health/live HTTP/1.1\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"expected one of them" in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_two_services_do_not_share_a_folder(tmp_path: Path, start: Start) -> None:
    (tmp_path / "voices").mkdir()
    options = ["--audio_db", "voices", "--database"]
    with service_process(tmp_path, *options, "sqlite:///a.sqlite3"):
        result = start("--port", "0", *options, "sqlite:///b.sqlite3")
        assert result.returncode == 2
        assert result.stderr.startswith("error: voices: another service has taken it over")


def test_a_full_queue_answers_at_once(tmp_path: Path) -> None:
    options = ["--queue_size", "1", "--num_threads", "1", "--rate_limit", "0", "--json_logs"]
    options += ["--database", "sqlite:///v.sqlite3"]
    with service_process(tmp_path, *options) as service:
        with closed(tmp_path), concurrent.futures.ThreadPoolExecutor(2) as pool:
            accepted = [pool.submit(identify, service.url) for _ in range(2)]
            wait_for_queue(service, 2)
            answer = httpx.post(f"{service.url}/v1/embed", files=files(speech(1)))
            assert not any(future.done() for future in accepted)
            check_problem(answer, 503, "busy")
            assert int(answer.headers["retry-after"]) >= 1
            (tmp_path / "closed").unlink()
            assert [future.result() for future in accepted] == [200, 200]
        lines = [line for line in service.log.splitlines() if line.startswith("{")]
    entries = [json.loads(line) for line in lines]
    of_embed = [entry for entry in entries if entry.get("route") == "/v1/embed"]
    assert {entry["status"] for entry in of_embed} == {200, 503}


# How it does not begin.


@pytest.fixture
def start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., SimpleNamespace]]:
    """Starts a service in this process, which must not go well; returns how it ended."""
    loggers = [logging.getLogger(name) for name in (LOGGER, "uvicorn.error", "uvicorn.access")]
    kept = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encoder, "SpeakerEncoder", lambda *options, **named: FakeEncoder())
    monkeypatch.setattr(header, "read_header", lambda path: FakeHeader())

    def start(*options: str, **env: str) -> SimpleNamespace:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        status = run_here(ROOT / "serve.py", ["--model_path", "fake", *options])
        for name in env:
            monkeypatch.delenv(name)
        out, err = capfd.readouterr()
        return SimpleNamespace(returncode=status, stdout=out, stderr=err)

    yield start
    for logger, (handlers, level, propagate) in zip(loggers, kept, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_port_in_use(service: ServiceProcess, start: Start) -> None:
    result = start("--port", str(service.port))
    assert result.returncode == 2
    assert re.fullmatch(r"error: cannot listen on 127\.0\.0\.1 port .*\n", result.stderr)


def test_without_a_token_it_stays_at_home(start: Start) -> None:
    result = start("--host", "0.0.0.0")
    assert result.returncode == 2
    assert "without a token the service listens on 127.0.0.1 only" in result.stderr
    result = start("--database", "mysql://user:secret@host/db")
    assert result.returncode == 2
    assert "secret" not in result.stdout + result.stderr


def test_an_encrypted_database_needs_its_key(tmp_path: Path, start: Start) -> None:
    options = ["--database", f"sqlite:///{tmp_path}/v.sqlite3"]
    key = bytes(range(32)).hex()
    with service_process(tmp_path, *options, VOICEPRINT_KEY=key) as service:
        answer = httpx.post(
            f"{service.url}/v1/speakers", data={"name": "Ann"}, files=files(speech(1))
        )
        assert answer.status_code == 201
    for env in [{}, {"VOICEPRINT_KEY": "00" * 32}]:
        result = start("--port", "0", *options, **env)
        assert result.returncode == 2
        assert re.fullmatch(r"error: [^\n]*key[^\n]*\n", result.stderr)
        assert key not in result.stderr


def test_a_database_that_is_not_there(start: Start) -> None:
    options = ["--port", "0", "--database", "postgresql://me:secret@127.0.0.1:1/voice"]
    result = start(*options)
    assert result.returncode == 2
    assert re.fullmatch(r"error: [^\n]*127\.0\.0\.1[^\n]*\n", result.stderr)
    assert "secret" not in result.stdout + result.stderr


def test_ipv6(tmp_path: Path) -> None:
    options = ["--host", "::1", "--database", "sqlite:///v.sqlite3"]
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with service_process(tmp_path, *options) as service:
        assert service.url.startswith("http://[::1]:")
        assert httpx.get(f"{service.url}/health/ready").status_code == 200


def test_a_connection_that_is_new_when_the_service_stops(tmp_path: Path) -> None:
    """Its first request is answered, as that of a proxy on its way; unused, it is closed."""
    with service_process(tmp_path, "--database", "sqlite:///v.sqlite3") as service:
        with connect(service) as used, connect(service) as unused:
            assert httpx.get(f"{service.url}/health/live").status_code == 200
            service.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 20
            while True:  # until the port is closed
                assert time.monotonic() < deadline
                try:
                    connect(service).close()
                except ConnectionRefusedError:
                    break
                time.sleep(0.01)
            used.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = read_all(used)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert read_all(unused) == b""
        assert service.wait() == 0


def test_a_second_signal_ends_the_draining(tmp_path: Path) -> None:
    options = ["--database", "sqlite:///v.sqlite3", "--drain_s", "60"]
    with service_process(tmp_path, *options) as service:
        service.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while httpx.get(f"{service.url}/health/ready").status_code != 503:
            assert time.monotonic() < deadline
        assert httpx.get(f"{service.url}/health/live").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0

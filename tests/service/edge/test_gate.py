"""The gate: tokens, origins, hosts, rates, locks, and the headers of all answers."""

import json
import logging
from pathlib import Path

import pytest

from service.edge.token_file import create_token, hash_token, read_token_file
from service.edge.tokens import Tokens
from service.logs import JsonFormatter, TextFormatter, log_event, log_failure
from service.settings import ServiceError
from tests.support.service_client import (
    TOKEN,
    TestClient,
    check_problem,
    enrol,
    files,
    running,
    speech,
)
from utils.version import __version__
from voices.sql.records import AuditLine

PATHS = [
    ("GET", "/v1/speakers"),
    ("POST", "/v1/identify"),
    ("DELETE", "/v1/speakers/Ann"),
    ("GET", "/voiceprint/health"),
    ("POST", "/voiceprint/identify"),
    ("GET", "/metrics"),
    ("GET", "/v1/nothing"),
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/v.sqlite3"


# Tokens.


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_a_valid_token_nothing_is_told(url: str, method: str, path: str) -> None:
    with running(url, token=TOKEN, authorized=False) as client:
        for value in [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", "Bearer wrong" * 3, TOKEN]:
            headers = {} if value is None else {"Authorization": value}
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="voiceprint"'


def test_what_is_open_without_a_token(url: str) -> None:
    with running(url, token=TOKEN, authorized=False) as client:
        assert client.get("/v1/info").json() == {"auth_required": True, "version": __version__}
        for path in ["/health/live", "/health/ready", "/docs", "/openapi.json", "/"]:
            assert client.get(path).status_code == 200
        told = client.get("/v1/info", headers={"Authorization": f"bearer {TOKEN}"}).json()
        assert told["num_speakers"] == 0


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready", "/v1/info"])
def test_head_is_get_without_the_body(url: str, path: str) -> None:
    volatile = {"x-request-id"}
    with running(url, token=TOKEN, authorized=False) as client:
        for headers in [{}, {"Authorization": f"Bearer {TOKEN}"}]:
            whole, head = (client.request(m, path, headers=headers) for m in ["GET", "HEAD"])
            assert (head.status_code, head.content) == (200, b"")
            assert int(head.headers["content-length"]) == len(whole.content) > 0
            for name in set(whole.headers) - volatile:
                assert head.headers[name] == whole.headers[name]


def test_an_upload_of_nobody_is_not_read(url: str) -> None:
    with running(url, token=TOKEN, authorized=False, max_upload_mb=1e-5) as client:
        for path in ["/v1/identify", "/v1/info", "/", "/nowhere", "/static/x"]:
            answer = client.post(path, files=files(speech(1)))
            check_problem(answer, 401, "unauthorized")
        answer = client.request("OPTIONS", "/v1/identify", content=b"x" * 20)
        check_problem(answer, 401, "unauthorized")


def test_tokens_of_a_file_come_and_go(url: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    token, _ = create_token("app", path)
    with running(url, token_file=path, authorized=False) as client:
        client.app.state.service.database.audit_log.append(AuditLine("x", "x", "", ""))
        headers = {"Authorization": f"Bearer {token}"}
        assert client.get("/v1/speakers", headers=headers).status_code == 200
        sent = files(speech(1))
        client.post("/v1/identify", files=sent, headers=headers)
        assert client.app.state.service.database.audit_log.last()[0].actor == "app"


def test_a_removed_token_stops_working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokens.txt"
    first, _ = create_token("one", path)
    second, line = create_token("two", path)
    monkeypatch.setattr("service.edge.tokens.RELOAD_S", 0.0)
    tokens = Tokens(path=path)
    found = tokens.find(first)
    assert found is not None
    assert found.name == "one"
    path.write_text(f"# left\n\n{line}\n", encoding="utf-8")
    assert tokens.find(first) is None
    assert tokens.find(second) is not None
    path.write_text("# none\n", encoding="utf-8")
    assert tokens.find(second) is None
    assert tokens.are_required


def test_a_slip_in_the_token_file_locks_nobody_out(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens.txt"
    token, line = create_token("app", path)
    monkeypatch.setattr("service.edge.tokens.RELOAD_S", 0.0)
    headers = {"Authorization": f"Bearer {token}"}
    with running(url, token_file=path, authorized=False) as client:
        for damage in [lambda: path.write_text(f"{line}\nb:12\n"), path.unlink]:
            damage()
            assert client.get("/v1/speakers", headers=headers).status_code == 200
            ready = client.get("/health/ready").json()
            assert ready["status"] == "ready"
            assert "token file is damaged" in ready["warning"]
        reasons = [record.voiceprint_fields["reason"] for record in caplog.records]
        assert f"{path}, line 2: expected NAME:SHA256" in reasons[0]
        assert "cannot be read" in reasons[1]
        path.write_text(f"{line}\n", encoding="utf-8")
        assert client.get("/v1/speakers", headers=headers).status_code == 200
        assert client.get("/health/ready").json() == {"status": "ready"}


def test_token_files_hold_hashes_only_and_are_private(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    token, line = create_token("app", path)
    text = path.read_text(encoding="utf-8")
    assert text == f"{line}\n" == f"app:{hash_token(token)}\n"
    assert token not in text
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ServiceError, match="has a token named app"):
        create_token("app", path)
    for name in ["", "a:b", "#a", "a\nb"]:
        with pytest.raises(ServiceError, match="token name"):
            create_token(name, path)


@pytest.mark.parametrize("text", ["", "# none\n", "app:12\n", TOKEN, "app:" + "G" * 64])
def test_token_files_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ServiceError) as caught:
        read_token_file(path)
    assert TOKEN not in str(caught.value)


def test_token_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="cannot be read"):
        read_token_file(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ServiceError, match="not UTF-8"):
        Tokens(path=tmp_path / "binary")
    with pytest.raises(ServiceError, match="cannot be written"):
        create_token("a", tmp_path / "binary" / "tokens.txt")


def test_short_tokens_are_refused() -> None:
    with pytest.raises(ServiceError, match="has 5 characters"):
        Tokens("short")


def test_wrong_tokens_are_counted_by_address(url: str) -> None:
    with running(url, token=TOKEN, authorized=False) as client:
        wrong = {"Authorization": "Bearer not-the-token"}
        statuses = [client.get("/v1/speakers", headers=wrong).status_code for _ in range(60)]
        assert statuses[:30] == [401] * 30
        assert 429 in statuses[30:]  # one more is allowed every two seconds
        answer = client.get("/v1/speakers", headers=wrong)
        check_problem(answer, 429, "too-many-requests")
        # Whoever has a right one is not kept out by others behind the same address.
        right = {"Authorization": f"Bearer {TOKEN}"}
        for headers, status in [(right, 200), (wrong, 429), (right, 200)]:
            assert client.get("/v1/speakers", headers=headers).status_code == status


# Origins and hosts.


def test_pages_of_others_may_not_call(url: str) -> None:
    with running(url) as client:
        sent = files(speech(1))
        for origin in ["https://evil.example", "null", "http://127.0.0.1.evil.example"]:
            answer = client.post("/v1/identify", files=sent, headers={"Origin": origin})
            check_problem(answer, 403, "cross-origin")
        for origin in ["http://[", "http://[::1", "//", "http:127.0.0.1"]:
            answer = client.post("/v1/identify", files=sent, headers={"Origin": origin})
            check_problem(answer, 403, "cross-origin")
        own = {"Origin": "http://127.0.0.1"}
        assert client.post("/v1/identify", files=sent, headers=own).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "localhost.x"])
def test_without_tokens_only_localhost_is_answered(url: str, host: str) -> None:
    with running(url) as client:
        check_problem(client.get("/v1/speakers", headers={"Host": host}), 400, "bad-host")
        for own in ["localhost:8005", "127.0.0.1", "[::1]:8005", "LOCALHOST"]:
            assert client.get("/v1/speakers", headers={"Host": own}).status_code == 200
    with running(url, token=TOKEN) as client:
        assert client.get("/v1/speakers", headers={"Host": "a.example"}).status_code == 200


@pytest.mark.slow
def test_one_origin_may_be_allowed(url: str) -> None:
    origin = "https://app.example"
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    with running(url, token=TOKEN, cors_origin=origin) as client:
        answer = client.options("/v1/identify", headers=preflight)
        assert answer.headers["access-control-allow-origin"] == origin
        sent = files(speech(1))
        answer = client.post("/v1/identify", files=sent, headers={"Origin": origin})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        refused = {"Origin": origin, "Authorization": "Bearer wrong"}
        answer = client.post("/v1/identify", files=sent, headers=refused)
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == origin
        answer = client.post("/v1/identify", files=sent, headers={"Origin": "https://b.example"})
        check_problem(answer, 403, "cross-origin")
        assert "access-control-allow-origin" not in answer.headers
    with running(url) as client:
        assert client.options("/v1/identify", headers=preflight).status_code == 405


def test_headers_of_all_answers(url: str) -> None:
    with running(url) as client:
        for path in ["/", "/docs", "/v1/info", "/v1/nothing", "/metrics"]:
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy
            assert "http" not in policy
            assert "script-src" not in policy or "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert len(headers["x-request-id"]) == 32
        assert client.get("/v1/info").headers["cache-control"] == "no-store"
        assert "unsafe" not in client.get("/").headers["content-security-policy"]


# Rates and locks.


def test_rates_are_counted_by_token(url: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    one, two = (create_token(name, path)[0] for name in ["one", "two"])
    with running(url, token_file=path, rate_limit=3) as client:
        first = {"Authorization": f"Bearer {one}"}
        statuses = [client.get("/v1/info", headers=first).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        answer = client.get("/v1/info", headers=first)
        check_problem(answer, 429, "too-many-requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        second = {"Authorization": f"Bearer {two}"}
        assert client.get("/v1/info", headers=second).status_code == 200
        assert client.get("/health/ready").status_code == 200


def test_failed_verifications_lock_a_speaker(url: str) -> None:
    with running(url, lockout_failures=3, lockout_s=60) as client:
        enrol(client, "Ann", 1)
        enrol(client, "Ben", 2)

        def verify(name: str, speaker: int, data: dict[str, str] | None = None) -> int:
            sent = files(speech(speaker, 5))
            answer = client.post(f"/v1/speakers/{name}/verify", files=sent, data=data)
            return answer.status_code

        # A success in between begins anew; what a lower threshold of the client's own accepts
        # has failed all the same.
        assert [verify("Ann", 3), verify("Ann", 3), verify("Ann", 1)] == [200] * 3
        assert [verify("Ann", 3), verify("ann", 3)] == [200] * 2
        assert verify("ANN", 3, {"threshold": "-1"}) == 200
        answer = client.post("/v1/speakers/Ann/verify", files=files(speech(1)))
        check_problem(answer, 429, "locked")
        assert 50 <= int(answer.headers["retry-after"]) <= 60
        assert verify("Ben", 2) == 200


@pytest.mark.parametrize("threshold", ["-1", "0"])
def test_a_low_threshold_is_no_way_around_the_lock(url: str, threshold: str) -> None:
    with running(url, lockout_failures=3) as client:
        enrol(client, "Ann", 1)
        path, data = "/v1/speakers/Ann/verify", {"threshold": threshold}
        # The right voice begins anew, whatever threshold it is measured by.
        for _ in range(4):
            answer = client.post(path, files=files(speech(1, 5)), data=data)
            assert answer.json()["is_same_speaker"] is True
        for _ in range(3):
            assert client.post(path, files=files(speech(3)), data=data).status_code == 200
        check_problem(client.post(path, files=files(speech(3)), data=data), 429, "locked")


def test_recordings_that_cannot_be_used_are_no_failures(url: str) -> None:
    with running(url, lockout_failures=1) as client:
        enrol(client, "Ann", 1)
        for _ in range(3):
            answer = client.post("/v1/speakers/Ann/verify", files=files(b"no sound"))
            assert answer.status_code == 415
        assert client.post("/v1/speakers/Ann/verify", files=files(speech(1))).status_code == 200


def test_many_bodies_at_a_time_are_refused(url: str) -> None:
    with running(url, max_bodies_bytes=1000) as client:
        answer = client.post("/v1/identify", files=files(speech(1)))
        check_problem(answer, 503, "busy")
        assert answer.headers["retry-after"] == "2"
        assert client.post("/v1/identify", data={"top_k": 3}).status_code == 422


# Figures, logs and unexpected errors.


def test_figures(url: str) -> None:
    with running(url) as client:
        enrol(client, "Ann", 1)
        client.post("/v1/speakers/Ann/verify", files=files(speech(3)))
        client.get("/v1/speakers/Ann")
        client.get("/v1/speakers/nobody")
        client.get("/somewhere/else")
        text = client.get("/metrics").text
    for line in [
        'voiceprint_requests_total{method="POST",route="/v1/speakers",status="201"} 1.0',
        'voiceprint_requests_total{method="GET",route="/v1/speakers/{name}",status="404"} 1.0',
        'voiceprint_requests_total{method="GET",route="other",status="404"} 1.0',
        'voiceprint_decisions_total{kind="verify",outcome="rejected"} 1.0',
        "voiceprint_encoding_seconds_count 3.0",
        "voiceprint_queue_depth 0.0",
    ]:
        assert line in text.splitlines()
    assert "Ann" not in text


def test_an_unexpected_error_tells_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(url) as client:
        database = client.app.state.service.database
        monkeypatch.setattr(database, "count", lambda: 1 / 0)
        document = check_problem(client.get("/v1/info"), 500, "internal")
        assert "division" not in json.dumps(document)
        assert client.get("/voiceprint/health").json().keys() == {"detail"}
    assert "ZeroDivisionError" in caplog.text


def test_a_database_that_does_not_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from utils.errors import DatabaseError

    def fail(*args: object, **options: object) -> None:
        raise DatabaseError("the database does not answer")

    with running(url) as client:
        for method in ["ping", "identify_each", "count"]:
            monkeypatch.setattr(client.app.state.service.database, method, fail)
        check_problem(client.get("/health/ready"), 503, "not-ready")
        answer = client.post("/v1/identify", files=files(speech(1)))
        check_problem(answer, 503, "database")
        assert answer.headers["retry-after"] == "5"
        assert client.get("/health/live").json() == {"status": "alive"}


def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "voiceprint")
    log_event("request", route="/v1/x", note="one\ntwo", status=200)
    log_failure("broken", ValueError("why"))
    first, second = caplog.records
    assert (
        TextFormatter().format(first).endswith("INFO request route=/v1/x note=one?two status=200")
    )
    entry = json.loads(JsonFormatter().format(first))
    assert entry["route"] == "/v1/x"
    assert entry["level"] == "info"
    assert "ValueError: why" in TextFormatter().format(second)
    assert "\n" not in JsonFormatter().format(second)
    assert "ValueError: why" in json.loads(JsonFormatter().format(second))["error"]


def test_docs_need_no_other_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(url) as client:
        page = client.get("/docs").text
        assert "http" not in page.replace("http-equiv", "")
        for source in ["docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "docs/start.js"]:
            assert source in page
            assert client.get(f"/{source}").status_code == 200
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with running(url) as client:
        assert "openapi.json" in client.get("/docs").text
        assert client.get("/docs/swagger-ui.css").status_code == 404


@pytest.mark.slow
def test_uploads_stay_in_memory(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(
        tempfile.SpooledTemporaryFile, "rollover", lambda self: pytest.fail("written to a disk")
    )
    with running(url) as client:
        assert isinstance(client, TestClient)
        answer = client.post("/v1/quality", files=files(speech(1, duration_s=50)))
        assert answer.status_code == 200

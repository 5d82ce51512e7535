"""The audit log of a service: a full disk, retention, what is removed; on both databases."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import text

import manage
from service.chores import do_chores, trim_audit
from service.settings import ServiceError
from tests.support.service_client import TestClient, check_problem, enrol, files, running, speech
from utils.errors import DatabaseError
from voices.sql.records import AuditLine
from voices.sql.store import SqlVoiceStore

FULL = {
    True: "CREATE TRIGGER full_disk BEFORE INSERT ON voiceprint_audit "
    "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
    False: "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'could not extend file'; END $$; CREATE TRIGGER full_disk BEFORE "
    "INSERT ON voiceprint_audit FOR EACH ROW EXECUTE FUNCTION full_disk()",
}
FREE = {
    True: "DROP TRIGGER full_disk",
    False: "DROP TRIGGER full_disk ON voiceprint_audit; DROP FUNCTION full_disk()",
}


def run(database: SqlVoiceStore, statements: dict[bool, str]) -> None:
    with database._connections.write() as connection:
        connection.exec_driver_sql(statements[database._connections.is_sqlite])


@pytest.fixture
def start(database_url: str) -> Iterator[Callable[..., TestClient]]:
    """Starts a service on the test's database."""
    opened = []

    def starter(**options: object) -> TestClient:
        context = running(database_url, **options)
        opened.append(context)
        return context.__enter__()

    yield starter
    for context in opened:
        context.__exit__(None, None, None)


def test_identification_goes_on_without_room_for_the_audit_log(
    start: Callable[..., TestClient],
) -> None:
    client = start()
    enrol(client, "Ann", 1)
    database = client.app.state.service.database
    run(database, FULL)
    for _ in range(3):
        answer = client.post("/v1/identify", files=files(speech(1, 5)))
        assert answer.json()["name"] == "Ann"
    answer = client.post("/v1/speakers/Ann/verify", files=files(speech(1, 5)))
    assert answer.json()["is_same_speaker"] is True
    # A change without its line is no change.
    check_problem(client.delete("/v1/speakers/Ann"), 503, "database")
    assert "voiceprint_audit_gaps_total 4.0" in client.get("/metrics").text
    ready = client.get("/health/ready").json()
    assert ready["status"] == "ready"
    assert ready["warning"] == "the audit log cannot be written: 4 lines are missing"
    assert client.portal is not None
    client.portal.call(do_chores, client.app.state.service)
    assert "warning" in client.get("/health/ready").json()
    run(database, FREE)
    client.portal.call(do_chores, client.app.state.service)
    assert client.get("/health/ready").json() == {"status": "ready"}
    assert "voiceprint_audit_gaps_total 4.0" in client.get("/metrics").text
    line = database.audit_log.last(1)[0]
    assert (line.actor, line.action, line.outcome) == ("service", "gap", "4 lines are missing")


def test_a_strict_service_identifies_nobody_unlogged(start: Callable[..., TestClient]) -> None:
    client = start(strict_audit=True)
    enrol(client, "Ann", 1)
    run(client.app.state.service.database, FULL)
    check_problem(client.post("/v1/identify", files=files(speech(1))), 503, "database")
    answer = client.post("/v1/speakers/Ann/verify", files=files(speech(1)))
    check_problem(answer, 503, "database")
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_old_lines_go_only_by_the_setting(start: Callable[..., TestClient]) -> None:
    client = start(audit_max_lines=5)
    service = client.app.state.service
    log = service.database.audit_log
    log.append(*(AuditLine("a", "x", "", str(number)) for number in range(20)))
    assert client.portal is not None
    client.portal.call(trim_audit, service)
    lines = log.last()
    assert [line.outcome for line in lines] == ["15 lines", "19", "18", "17", "16", "15"]
    assert (lines[0].actor, lines[0].action) == ("service", "trim audit")
    for statement in ("DELETE FROM voiceprint_audit", "UPDATE voiceprint_audit SET actor = 'b'"):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            service.database._connections.write() as connection,
        ):
            connection.execute(text(statement))
    assert len(log.last()) == 6


def test_lines_are_kept_for_days(start: Callable[..., TestClient]) -> None:
    client = start(audit_days=1e-6)
    service = client.app.state.service
    service.database.audit_log.append(AuditLine("a", "x", "", "old"))
    time.sleep(0.2)
    assert client.portal is not None
    client.portal.call(trim_audit, service)
    (line,) = service.database.audit_log.last()
    assert line.outcome == "1 lines"
    client.portal.call(trim_audit, service)


def test_the_operator_archives_and_trims(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("voices.sql.audit.LINES_AT_ONCE", 3)
    database = SqlVoiceStore(database_url)
    lines = [AuditLine("a", "verify", "夜雨", str(number), 0.5) for number in range(8)]
    database.audit_log.append(*lines)
    time.sleep(0.2)
    archive = tmp_path / "audit.jsonl"
    options = ["--trim_audit", "--older_than_days", "0.000001", "--database", database_url]
    assert manage.main([*options, "--archive", str(archive)]) == 0
    assert capsys.readouterr().out == "8 lines of the audit log removed\n"
    kept = [json.loads(line) for line in archive.read_text(encoding="utf-8").splitlines()]
    assert [line["outcome"] for line in kept] == [str(number) for number in range(8)]
    assert kept[0]["speaker"] == "夜雨"
    now = datetime.now(timezone.utc)
    assert now - timedelta(minutes=5) < datetime.fromisoformat(kept[0]["at"]) < now
    assert archive.stat().st_mode & 0o777 == 0o600
    assert [line.action for line in database.audit_log.last()] == ["trim audit"]
    with pytest.raises(ServiceError, match="is there already"):
        manage.main([*options, "--archive", str(archive)])
    with pytest.raises(ServiceError, match="cannot be written"):
        manage.main([*options, "--archive", str(archive / "x")])
    options[2] = "30"
    assert manage.main(options) == 0
    assert capsys.readouterr().out == "0 lines of the audit log removed\n"
    with pytest.raises(SystemExit):
        manage.main(["--trim_audit", "--database", database_url])
    database.close()

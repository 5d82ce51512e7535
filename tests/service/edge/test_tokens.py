"""Tokens: lines of a file with scopes, group and expiry; made, rotated, revoked, listed."""

import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import manage
from service.answers.problems import Problem
from service.edge.scopes import SCOPES
from service.edge.token_file import (
    Grant,
    create_token,
    hash_token,
    read_token_file,
    revoke_token,
    rotate_token,
)
from service.edge.tokens import Tokens
from service.settings import ServiceError
from tests.support.service_client import check_problem, running
from utils.errors import DatabaseError

NOW = datetime(2027, 1, 1, tzinfo=timezone.utc)
HASH = "0" * 64


def write(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_a_line_without_words_allows_everything(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    write(
        path,
        "# kept",
        f"my app:{HASH}",
        f"b:{HASH} scopes=read,verify group=shop expires=2027-01-31",
    )
    first, second = read_token_file(path)
    assert first == Grant("my app", frozenset(SCOPES), "default", None, HASH)
    assert second.scopes == {"read", "verify"}
    assert second.group == "shop"
    assert second.expires_at == datetime(2027, 1, 31, tzinfo=timezone.utc)
    assert first.line() == f"my app:{HASH}"
    assert second.line().endswith(
        " scopes=verify,read group=shop expires=2027-01-31T00:00:00+00:00"
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("scopes=enroll", "line 2: received the scope 'enroll', expected enrol, verify, identify"),
        ("scopes=", "received the scope ''"),
        ("group=Shop!", "line 2: received the group 'Shop!', expected 1 to 40"),
        ("expires=tomorrow", "line 2: received the time 'tomorrow', expected one as 2027-01-31"),
        ("colour=red", "line 2: received colour=, expected scopes=, group= or expires="),
        ("a-secret", "line 2: expected NAME:SHA256"),
    ],
)  # fmt: skip
def test_slips_are_told_with_their_line(tmp_path: Path, words: str, reason: str) -> None:
    path = tmp_path / "tokens.txt"
    write(path, "", f"app:{HASH} {words}")
    with pytest.raises(ServiceError) as caught:
        read_token_file(path)
    assert reason in str(caught.value)
    assert "a-secret" not in str(caught.value)


def test_a_token_expires(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    token, _ = create_token("app", path, expires_at=NOW + timedelta(hours=1))
    now = [NOW]
    tokens = Tokens(path=path, clock=lambda: now[0])
    found = tokens.find(token)
    assert found is not None
    assert tokens.take_uses() == {found.fingerprint: NOW}
    assert tokens.take_uses() == {}
    now[0] += timedelta(hours=1)
    with pytest.raises(Problem, match="app has expired"):
        tokens.find(token)
    assert tokens.take_uses() == {}


def test_an_expired_token_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    token, _ = create_token("app", path, expires_at=NOW - timedelta(days=400))
    headers = {"Authorization": f"Bearer {token}"}
    with running(f"sqlite:///{tmp_path}/v.sqlite3", token_file=path, authorized=False) as client:
        answer = client.get("/v1/speakers", headers=headers)
        document = check_problem(answer, 401, "unauthorized")
        assert document["detail"] == "the token app has expired; ask for a new one"
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        told = client.get("/v1/info", headers=headers).json()
        assert told.keys() == {"auth_required", "version"}


def test_the_old_token_stays_valid_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokens.txt"
    write(path, "# the shop's")
    old, _ = create_token("app", path, scopes=["verify"], group="shop")
    other, other_line = create_token("other", path)
    monkeypatch.setattr("service.edge.tokens.RELOAD_S", 0.0)
    now = [NOW]
    tokens = Tokens(path=path, clock=lambda: now[0])
    new, ends_at = rotate_token("app", path, timedelta(hours=2), NOW)
    assert ends_at == NOW + timedelta(hours=2)
    first, second = tokens.find(old), tokens.find(new)
    assert first is not None
    assert second is not None
    assert (second.name, second.scopes, second.group) == ("app", {"verify"}, "shop")
    assert second.expires_at is None
    now[0] = ends_at
    with pytest.raises(Problem):
        tokens.find(old)
    assert tokens.find(new) == second
    assert tokens.find(other) is not None
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# the shop's"
    assert other_line in lines
    # At the next rotation the line of the expired one goes; a grace never lengthens a life.
    rotate_token("app", path, timedelta(days=9), now[0] + timedelta(hours=1))
    assert hash_token(old) not in path.read_text(encoding="utf-8")
    assert len(read_token_file(path)) == 3
    assert revoke_token("app", path) == 2
    assert tokens.find(new) is None


def test_tokens_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    create_token("app", path)
    with pytest.raises(ServiceError, match="no token named b"):
        revoke_token("b", path)
    with pytest.raises(ServiceError, match="no token named b"):
        rotate_token("b", path, timedelta(), NOW)
    with pytest.raises(DatabaseError, match="received the group"):
        create_token("c", path, group="a b")


def test_the_operator_makes_lists_rotates_and_revokes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.txt"

    def run(*words: str) -> list[str]:
        database = f"sqlite:///{tmp_path}/none.sqlite3"
        assert manage.main([*words, "--token_file", str(path), "--database", database]) == 0
        return capsys.readouterr().out.splitlines()

    made = run("--new_token", "app", "--scopes", "verify,read", "--group", "shop", "--days", "30")
    token = made[0].removeprefix("token of app: ")
    assert made[2] == f"added to {path}"
    header, line = run("--tokens")
    assert header == "name\thash\tgroup\tscopes\texpires\tlast use"
    name, fingerprint, group, scopes, expires, used = line.split("\t")
    assert used == "unknown"
    assert (name, group, scopes) == ("app", "shop", "verify,read")
    assert hash_token(token).startswith(fingerprint)
    assert expires.endswith(" UTC")
    new = run("--rotate_token", "app", "--grace_h", "0")
    assert new[2].startswith("The old one stays valid until 20")
    _, old_line, new_line = run("--tokens")
    assert "expired 20" in old_line
    assert new_line.endswith("\tnever\tunknown")
    assert Tokens(path=path).find(new[0].removeprefix("token of app: ")) is not None
    assert run("--revoke_token", "app")[0].startswith("The token app is revoked")
    with pytest.raises(ServiceError, match="no tokens in it"):
        manage.main(["--tokens", "--token_file", str(path)])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--rotate_token", "a", "--scopes", "read"], "are for --new_token"),
        (["--tokens", "--group", "x"], "are for --new_token"),
        (["--tokens", "--new_token", "a"], "not allowed with argument"),
        ([], "one of the arguments"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit):
        manage.main([*words, "--token_file", str(tmp_path / "t")])
    assert reason in capsys.readouterr().err


def test_uses_are_written_when_the_database_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.chores.PERIOD_S", 0.02)
    path = tmp_path / "tokens.txt"
    token, _ = create_token("app", path)
    headers = {"Authorization": f"Bearer {token}"}
    with running(f"sqlite:///{tmp_path}/v.sqlite3", token_file=path, authorized=False) as client:
        uses = client.app.state.service.database.token_uses
        fails = threading.Event()
        note = uses.note

        def fail(some: object) -> None:
            if some:
                fails.set()
            raise DatabaseError("away")

        monkeypatch.setattr(uses, "note", fail)
        client.get("/v1/speakers", headers=headers)
        assert fails.wait(10)
        assert uses.all() == {}
        monkeypatch.setattr(uses, "note", note)
        deadline = time.monotonic() + 10
        while not uses.all():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert list(uses.all()) == [hash_token(token)[:12]]

"""Backups: of a database in use, of both kinds, encrypted, of an earlier version; and restored."""

import itertools
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import manage_voices
from tests.support.fake_encoder import FakeEncoder
from tests.support.voice_databases import KEY, OTHER, PAIRS, NewUrl, fill, new, of, vector
from utils.errors import DatabaseError
from voices.sql.cipher import KEY_VARIABLE
from voices.sql.engine import SqlConnections, migrate, version_of
from voices.sql.records import AuditLine
from voices.sql.snapshot import back_up, restore
from voices.sql.store import SqlVoiceStore


@pytest.mark.slow
@pytest.mark.parametrize("kinds", PAIRS)
@pytest.mark.parametrize("key", [None, KEY], ids=["readable", "encrypted"])
def test_restored_it_is_the_same(
    kinds: tuple[str, str],
    key: bytes | None,
    new_url: NewUrl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target, path = new_url(kinds[0]), new_url(kinds[1]), tmp_path / "backup.sqlite3"
    before = fill(source, key)
    # A backup needs no key.
    assert manage_voices.main(["backup", source, str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 3 speakers, 5 recordings\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.glob("*backup*")] == ["backup.sqlite3"]
    raw = path.read_bytes()
    assert key is None or vector(0).tobytes()[:16] not in raw
    if key is not None:
        with pytest.raises(DatabaseError, match="is encrypted; give its key"):
            manage_voices.main(["restore", target, str(path)])
        monkeypatch.setenv(KEY_VARIABLE, OTHER.hex())
        with pytest.raises(DatabaseError, match="is encrypted with another key"):
            manage_voices.main(["restore", target, str(path)])
        monkeypatch.setenv(KEY_VARIABLE, key.hex())
    assert manage_voices.main(["restore", target, str(path)]) == 0
    assert of(target, key) == before
    assert path.read_bytes() == raw
    # What holds something is overwritten only if asked; those who have it open follow.
    beside = SqlVoiceStore(target, FakeEncoder("new"), key=key)
    beside.enrol("Zoe", [new(8)])
    beside.in_group("shop").enrol("Yan", [new(9)])
    beside.remove("Ben")
    assert beside.identify(vector(8))[0][0] == "Zoe"
    with pytest.raises(DatabaseError, match=r"holds 4 speakers and \d lines of the audit log"):
        manage_voices.main(["restore", target, str(path)])
    assert manage_voices.main(["restore", target, str(path), "--replace"]) == 0
    assert [name for name, _ in beside.rank(vector(3))] == ["Ann", "Ben"]
    # The numbers of keys and lines go on behind those that were restored.
    beside.enrol("Zoe", [new(8)])
    beside.audit_log.append(AuditLine("app", "enrol", "Zoe", "1 recordings"))
    assert beside.identify(vector(8))[0][0] == "Zoe"
    with (
        pytest.raises(DatabaseError, match="append-only"),
        beside._connections.write() as connection,
    ):
        connection.exec_driver_sql("UPDATE voiceprint_audit SET actor = 'x'")
    beside.close()


@pytest.mark.slow
def test_backup_of_a_database_in_use_is_of_one_moment(database_url: str, tmp_path: Path) -> None:
    database = SqlVoiceStore(database_url, FakeEncoder())
    database.enrol("s", [new(0), new(1)])
    is_over = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if is_over.is_set():
                return
            database.enrol(f"s{number}", [new(number), new(number + 1)])
            database.remove(f"s{number}")
            database.enrol("s", [new(number), new(number + 1)], if_exists="replace")

    writer = threading.Thread(target=write)
    writer.start()
    paths = [tmp_path / f"b{number}" / "backup.sqlite3" for number in range(4)]
    for path in paths:
        back_up(database_url, path)
    is_over.set()
    writer.join()
    database.close()
    for path in paths:
        copy = SqlVoiceStore(f"sqlite:///{path}", FakeEncoder())
        found = copy.speakers()[0]
        assert found and all(len(speaker.recordings) == 2 for speaker in found)
        assert len(copy.rank(vector(0))) == len(found) and copy.num_damaged == 0
        copy.close()


@pytest.mark.slow
def test_an_earlier_version_is_backed_up_as_it_is_and_restored_as_today(
    database_url: str, tmp_path: Path
) -> None:
    database = SqlVoiceStore(database_url, FakeEncoder())
    database.enrol("Ann", [new(0)])
    with database._connections.migrating() as connection:
        migrate(connection, "0002")
    database.close()
    path = tmp_path / "backup.sqlite3"
    back_up(database_url, path)
    before = SqlConnections(database_url, migrate=False)
    with before.read() as connection:
        assert version_of(connection) == "0002"
    before.close()
    restore(path, f"sqlite:///{tmp_path}/v.sqlite3", None)
    again = SqlVoiceStore(f"sqlite:///{tmp_path}/v.sqlite3", FakeEncoder())
    assert again.identify(vector(0)) == [("Ann", pytest.approx(1, abs=1e-6))]
    again.close()


def test_a_restore_that_fails_changes_nothing(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(database_url)
    path = tmp_path / "backup.sqlite3"
    back_up(database_url, path)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("voices.sql.snapshot._count_on", stop)
    with pytest.raises(KeyboardInterrupt):
        restore(path, database_url, None, replace=True)
    assert of(database_url) == before


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    url, path = f"sqlite:///{tmp_path}/v.sqlite3", tmp_path / "backup.sqlite3"
    with pytest.raises(DatabaseError, match="no such file"):
        back_up(url, path)
    fill(url)
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseError, match="cannot be written"):
        back_up(url, tmp_path / "file" / "backup.sqlite3")
    assert manage_voices.main(["backup", url, str(path)]) == 0
    with pytest.raises(DatabaseError, match="exists; choose another name, or give --replace"):
        manage_voices.main(["backup", url, str(path)])
    assert manage_voices.main(["backup", url, str(path), "--replace"]) == 0
    for content, message in (
        (None, "no such file"),
        (b"text" * 5000, "not a backup of a voice database"),
        (path.read_bytes()[:-20000] + bytes(20000), "damaged; use another backup|not a backup"),
    ):
        wrong = tmp_path / "wrong"
        if content is not None:
            wrong.write_bytes(content)
        with pytest.raises(DatabaseError, match=message):
            restore(wrong, f"sqlite:///{tmp_path}/w.sqlite3", None)
    shutil.copy(path, wrong)
    other = SqlConnections(f"sqlite:///{wrong}")
    with other.write() as connection:
        connection.exec_driver_sql("UPDATE voiceprint_schema SET version_num = '9999'")
    other.pack()
    other.close()
    with pytest.raises(DatabaseError, match="of a newer version of the toolkit"):
        restore(wrong, f"sqlite:///{tmp_path}/w.sqlite3", None)
    other = SqlConnections(f"sqlite:///{tmp_path}/empty.sqlite3", migrate=False)
    other.close()
    with pytest.raises(DatabaseError, match="holds no voice database"):
        back_up(f"sqlite:///{tmp_path}/empty.sqlite3", tmp_path / "x.sqlite3")
    assert not (tmp_path / "w.sqlite3").exists()


def test_commands_need_their_file(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["backup", "sqlite:///v.sqlite3"], "backup: expected DATABASE FILE"),
        (["rekey", "sqlite:///v.sqlite3", "file"], "rekey: expected DATABASE"),
    ):
        with pytest.raises(SystemExit):
            manage_voices.main(words)
        assert message in capsys.readouterr().err

"""Between two databases: whole, without sound, with another key; what stops half-way goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

import manage_voices
import move_voices
from tests.support.fake_encoder import FakeEncoder
from tests.support.voice_databases import KEY, OTHER, PAIRS, NewUrl, fill, new, of, vector
from utils.errors import DatabaseError
from voices.sql.cipher import KEY_VARIABLE, NEW_KEY_VARIABLE
from voices.sql.records import AuditLine, NewRecording
from voices.sql.store import SqlVoiceStore
from voices.sql.transfer import SpeakerRows, Transfer


@pytest.mark.slow
@pytest.mark.parametrize("kinds", PAIRS)
def test_everything_arrives(
    kinds: tuple[str, str],
    new_url: NewUrl,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target, plain = new_url(kinds[0]), new_url(kinds[1]), new_url(kinds[1])
    before = fill(source)
    assert move_voices.main([source, target]) == 0
    assert "3 speakers complete, 5 recordings moved and verified, 0 were" in capsys.readouterr().out
    assert of(target) == before == of(source)
    # Again, with what came since.
    database = SqlVoiceStore(source, FakeEncoder("new"))
    database.enrol("Ben", [new(7)], if_exists="add")
    database.audit_log.append(AuditLine("app", "enrol", "Ben", "1 recordings"))
    database.close()
    monkeypatch.setenv(NEW_KEY_VARIABLE, OTHER.hex())
    encrypted = new_url(kinds[0])
    for url, options in ((target, []), (encrypted, ["--new_key"])):
        assert move_voices.main([source, url, *options]) == 0
    assert "1 recordings moved and verified, 5 were" in capsys.readouterr().out.splitlines()[0]
    after, moved = of(source), of(target)
    assert moved["speakers"]["default"][1] == 2 and moved["audit"] == after["audit"]
    assert dict(moved["scores"]["default"]) == pytest.approx(dict(after["scores"]["default"]))
    # And out of the encrypted one.
    assert of(encrypted, OTHER) == after
    monkeypatch.setenv(KEY_VARIABLE, OTHER.hex())
    assert move_voices.main([encrypted, plain, "--decrypt", "--delete_source"]) == 0
    assert of(plain) == after
    emptied = SqlVoiceStore(encrypted, key=OTHER)
    assert emptied.groups() == {}
    emptied.close()


def test_stopped_half_way_it_goes_on(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(database_url)
    target = f"sqlite:///{tmp_path}/target.sqlite3"
    write, left = Transfer.write, [2]

    def stop(self: Transfer, *args: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return write(self, *args)

    monkeypatch.setattr(Transfer, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        move_voices.main([database_url, target, "--delete_source"])
    monkeypatch.setattr(Transfer, "write", write)
    assert move_voices.main([database_url, target, "--delete_source"]) == 0
    assert of(target) == before


def test_what_cannot_go_is_told_and_stays(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(database_url)
    target = f"sqlite:///{tmp_path}/target.sqlite3"
    database = SqlVoiceStore(target, FakeEncoder("new"))
    database.enrol("ann", [new(9)])
    database.close()
    database = SqlVoiceStore(database_url)
    with database._connections.write() as connection:
        changed = "UPDATE voiceprint_keys SET stored = :content WHERE id = (SELECT key_id FROM "
        changed += "voiceprint_speakers WHERE name = 'Ben')"
        connection.execute(text(changed), {"content": b"short"})
    assert move_voices.main([database_url, target, "--delete_source"]) == 2
    told = capsys.readouterr().err
    assert "not moved: Ann: enrolled in the destination with other recordings" in told
    assert "not moved: Ben: its key was changed from outside" in told
    assert database.groups() == {"default": 2}
    database.close()
    # One that reads back as something else removes nothing.
    monkeypatch.setattr(SpeakerRows, "holds", lambda *_: False)
    fill(other := f"sqlite:///{tmp_path}/other.sqlite3")
    with pytest.raises(DatabaseError, match="what arrived is not what was sent"):
        move_voices.main([other, f"sqlite:///{tmp_path}/third.sqlite3", "--delete_source"])
    assert len(of(other)["speakers"]) == 2
    # The same name for a model of another size.
    odd = SqlVoiceStore(f"sqlite:///{tmp_path}/odd.sqlite3", None)
    odd.enrol("x", [NewRecording(np.ones(8) / 8**0.5, 1, None, 1)])
    with pytest.raises(DatabaseError, match="of the model , received 9"):
        odd.transfer.write(odd.transfer.read(odd.transfer.speakers()[0][0]), {"": 9})
    odd.close()


def test_another_key_in_place(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fill(database_url)
    beside = SqlVoiceStore(database_url, FakeEncoder("new"))
    assert beside.identify(vector(3)) == before["scores"]["default"][:1]
    command = ["rekey", database_url]
    with pytest.raises(DatabaseError, match="VOICEPRINT_NEW_KEY is not set"):
        manage_voices.main(command)
    with beside._connections.read() as connection:
        keys = connection.exec_driver_sql("SELECT stored FROM voiceprint_keys").scalars().all()
    monkeypatch.setenv(NEW_KEY_VARIABLE, KEY.hex())
    assert manage_voices.main(command) == 0
    assert capsys.readouterr().out.startswith("9 records sealed anew, 0 damaged\nFrom now on")
    # Who has it open without the key neither writes nor finds nobody.
    for action in (
        lambda: beside.enrol("Cid", [new(5)]),
        lambda: beside.identify(vector(3)),
    ):
        with pytest.raises(DatabaseError, match="was given another key meanwhile"):
            action()
    if beside._connections.is_sqlite:
        files = list(Path(database_url[10:]).parent.glob("*.sqlite3*"))
        raw = b"".join(path.read_bytes() for path in files)
        assert not any(bytes(key[:32]) in raw for key in keys if any(key))
    else:
        assert beside._connections.ask("SELECT count(*) FROM voiceprint_model_vectors") == 0
    beside.close()
    with pytest.raises(DatabaseError, match="is encrypted; give its key"):
        of(database_url)
    assert of(database_url, KEY) == before
    monkeypatch.setenv(KEY_VARIABLE, KEY.hex())
    monkeypatch.setenv(NEW_KEY_VARIABLE, OTHER.hex())
    assert manage_voices.main(command) == 0
    with pytest.raises(DatabaseError, match="with another key"):
        of(database_url, KEY)
    assert of(database_url, OTHER) == before
    # A damaged key is told, and stays damaged.
    database = SqlVoiceStore(database_url, key=OTHER)
    with database._connections.write() as connection:
        changed = "UPDATE voiceprint_keys SET stored = :content WHERE id = (SELECT key_id FROM "
        changed += "voiceprint_speakers WHERE name = 'Ben')"
        connection.execute(text(changed), {"content": b"short"})
    database.close()
    monkeypatch.setenv(KEY_VARIABLE, OTHER.hex())
    assert manage_voices.main([*command, "--decrypt"]) == 2
    assert capsys.readouterr().out.endswith("8 records sealed anew, 1 damaged\n")
    database = SqlVoiceStore(database_url, FakeEncoder("new"))
    assert database.identify(vector(3)) == before["scores"]["default"][:1]
    assert database.num_damaged == 1
    if not database._connections.is_sqlite:
        assert database._connections.ask("SELECT count(*) FROM voiceprint_model_vectors") == 3
    database.close()


def test_a_new_key_that_was_stopped_changes_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(database_url)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv(NEW_KEY_VARIABLE, KEY.hex())
    monkeypatch.setattr("voices.sql.rekeying.KeyRing.check_text", stop)
    with pytest.raises(KeyboardInterrupt):
        manage_voices.main(["rekey", database_url])
    monkeypatch.undo()
    assert of(database_url) == before

"""Export and import: all voiceprints as Parquet, and everything about one person as a zip."""

import json
import zipfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sqlalchemy import text

import manage_voices
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_client import running
from tests.support.synthetic_voices import synthetic_speech, write_wav
from tests.support.voice_databases import KEY, OTHER, PAIRS, NewUrl, fill, new, of, vector
from utils.errors import DatabaseError, UnknownSpeakerError, VoiceprintError
from voices.sql.cipher import KEY_VARIABLE
from voices.sql.records import AuditLine
from voices.sql.store import SqlVoiceStore
from voices.upkeep import parquet
from voices.upkeep.parquet import EXPORT_KEY_VARIABLE


@pytest.mark.parametrize("kinds", PAIRS)
def test_voiceprints_on_another_machine(
    kinds: tuple[str, str],
    new_url: NewUrl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target, path = new_url(kinds[0]), new_url(kinds[1]), tmp_path / "voices.parquet"
    before = fill(source, KEY)
    monkeypatch.setenv(KEY_VARIABLE, KEY.hex())
    monkeypatch.setenv(EXPORT_KEY_VARIABLE, OTHER.hex())
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 2)  # Speakers lie across their borders.
    command = ["export", source, str(path), "--with_audio"]
    assert manage_voices.main(command) == 0
    assert capsys.readouterr().out == "voices.parquet: 3 speakers, 5 recordings\n"
    raw = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"Ann" not in raw and vector(0).tobytes()[:16] not in raw
    monkeypatch.delenv(KEY_VARIABLE)
    for key in ("", KEY.hex()):
        monkeypatch.setenv(EXPORT_KEY_VARIABLE, key)
        with pytest.raises(DatabaseError, match="check the file and the key in VOICEPRINT_EXPORT"):
            manage_voices.main(["import", target, str(path)])
    monkeypatch.setenv(EXPORT_KEY_VARIABLE, OTHER.hex())
    for num_written in (5, 0):
        assert manage_voices.main(["import", target, str(path)]) == 0
        assert f"3 speakers, {num_written} recordings" in capsys.readouterr().out
    after = of(target)
    # The audit log, the inbox and what was sent lately are the other machine's own.
    assert [line.action for line in after.pop("audit")] == ["import", "import"]
    assert after.pop("files") == after.pop("uploads") == []
    for name, scores in after.pop("scores").items():
        assert dict(scores) == pytest.approx(dict(before["scores"][name]), abs=1e-6)
    assert after == {name: before[name] for name in ("speakers", "sound")}


def test_other_programs_read_it(database_url: str, tmp_path: Path) -> None:
    fill(database_url)
    path = tmp_path / "voices.parquet"
    assert manage_voices.main(["export", database_url, str(path)]) == 0
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert "audio" not in rows[0]
    of_model = {(row["group"], row["speaker"], row["model_id"]) for row in rows}
    assert of_model == {
        ("default", "Ann", "old"), ("default", "Ann", "new"), ("default", "Ben", "new"),
        ("shop", "Ann", "old"),
    }  # fmt: skip
    np.testing.assert_array_equal(rows[0]["embedding"], vector(0))
    assert isinstance(rows[0]["created_at"], datetime)


def test_what_cannot_be_exported_or_imported_is_told(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(database_url)
    database = SqlVoiceStore(database_url, FakeEncoder("new"))
    with database._connections.write() as connection:
        changed = "UPDATE voiceprint_keys SET stored = :content WHERE id = (SELECT key_id FROM "
        changed += "voiceprint_speakers WHERE name = 'Ben')"
        connection.execute(text(changed), {"content": b"short"})
    path = tmp_path / "voices.parquet"
    assert manage_voices.main(["export", database_url, str(path)]) == 2
    assert "not moved: Ben: record key: cannot be decrypted" in capsys.readouterr().err
    with pytest.raises(DatabaseError, match="cannot be written"):
        parquet.export_all(database, path / "x", None)
    rows = pyarrow.parquet.read_table(path).to_pylist()
    other = SqlVoiceStore(f"sqlite:///{tmp_path}/other.sqlite3", FakeEncoder("new"))
    other.in_group("shop").enrol("ann", [new(5)])
    for row in rows:
        if row["group"] == "default":
            row["embedding"] = [2.0] * 64
    extra = {**rows[0], "embedding": vector(1).tolist()}
    rows += [
        {**extra, "speaker_id": "1" * 32, "speaker": "a/b", "recording_id": "1" * 32},
        {**extra, "speaker_id": "2" * 32, "speaker": "Cid", "recording_id": "../2"},
    ]
    schema = parquet._schema(pyarrow, False)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)
    done = parquet.import_all(path, other, None)
    assert [name for name, _ in done.refused] == ["Ann", "Ann", "a/b", "Cid"]
    assert done.num_speakers == 0 and other.groups() == {"shop": 1}
    reasons = " ".join(reason for _, reason in done.refused)
    for part in ("of length 16.000, expected 1", "somebody else has", "expected 32 hexadecimal"):
        assert part in reasons
    pyarrow.parquet.write_table(pyarrow.table({"speaker": ["Ann"]}), path)
    with pytest.raises(DatabaseError, match="not an export of voiceprints, it lacks"):
        parquet.import_all(path, other, None)
    with pytest.raises(DatabaseError, match="no such file"):
        parquet.import_all(tmp_path / "missing", other, None)
    database.close()
    other.close()


def test_without_pyarrow_its_absence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    database = SqlVoiceStore(f"sqlite:///{tmp_path}/v.sqlite3")
    with pytest.raises(VoiceprintError, match="needs the package pyarrow; pip install"):
        parquet.export_all(database, tmp_path / "x", None)
    database.close()


def read_zip(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    return json.loads(contents.pop("person.json")), contents


def test_everything_about_a_person(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = tmp_path / "audio_db", tmp_path / "person.zip"
    write_wav(folder / "Ann.wav", synthetic_speech(1))
    with running(database_url, encoder=FakeEncoder("old"), audio_db=folder) as client:
        client.app.state.service.database.enrol("Zoe", [new(1)])
    with running(database_url, audio_db=folder, keep_audio=True) as client:
        database = client.app.state.service.database
        assert client.app.state.service.reembedding.wait(30)
        database.add("ann", synthetic_speech(1, 1))
        for line in (
            AuditLine("app", "verify", "Zoe", "accepted", 0.9),
            AuditLine("app", "enrol", "Bea", "of an earlier one of this name"),
            AuditLine("app", "delete", "Bea", "1 recordings"),
            AuditLine("app", "verify", "ann", "accepted", 0.8),
            AuditLine("app", "verify", "Bea", "is another one's", group="shop"),
        ):
            database.audit_log.append(line)
        assert client.patch("/v1/speakers/Ann", json={"name": "Bea"}).status_code == 200
        database.audit_log.append(AuditLine("app", "identify", "Bea", "accepted", 0.7))
        command = ["export", database_url, str(path), "--speaker", "bea"]
        assert manage_voices.main([*command, "--audio_db", str(folder)]) == 0
        assert capsys.readouterr().out == f"{path}: 3 files about bea\n"
        first, second = database.recordings("Bea")
        document, sounds = read_zip(path)
        assert sounds[f"recordings/{first.id}.wav"] == (folder / "Ann.wav").read_bytes()
        assert (
            sounds[f"recordings/{second.id}.flac"] == database.original_audio("Bea", second.id)[0]
        )
        assert document["speaker"]["name"] == "Bea" and document["group"] == "default"
        assert document["uploads_remembered"] == []
        told = document["recordings"]
        assert set(told[0]["embeddings"]) == {"old", "fake"}
        assert told[0]["files_of_audio_db"] == ["Ann.wav"] and told[1]["sound"] == [
            f"recordings/{second.id}.flac"
        ]
        expected = FakeEncoder().embed_waveform(synthetic_speech(1, 1))
        np.testing.assert_allclose(told[1]["embeddings"]["fake"], expected, atol=1e-6)
        lines = [(line["action"], line["outcome"]) for line in document["audit_log"]]
        assert lines == [("verify", "accepted"), ("rename", "to Bea"), ("identify", "accepted")]
        assert path.stat().st_mode & 0o777 == 0o600
        # That it was exported is in the log itself.
        assert database.audit_log.last(1)[0].action == "export"
        with pytest.raises(UnknownSpeakerError):
            manage_voices.main([*command, "--group", "shop"])
        with pytest.raises(DatabaseError, match="cannot be written"):
            manage_voices.main(["export", database_url, str(path / "x"), "--speaker", "Bea"])


def test_lines_about_a_person_begin_with_the_enrolment(database_url: str) -> None:
    database = SqlVoiceStore(database_url)
    for action, speaker in (
        ("verify", "Ann"),
        ("enrol", "Ann"),
        ("verify", "ANN"),
        ("hear", "Ann"),
    ):
        database.audit_log.append(AuditLine("app", action, speaker, "x"))
    lines = database.audit_log.about("Ann", "default")
    assert [line.action for line in lines] == ["enrol", "verify", "hear"]
    assert lines[0].at is not None and lines[0].at <= datetime.now(timezone.utc)
    database.close()

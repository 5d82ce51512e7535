"""Bulk enrolment from a folder, a zip and a table, with a report, stopped and repeated."""

import csv
import zipfile
from pathlib import Path
from typing import Any

import pytest

import manage_voices
from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.corpus.embedding_file import EmbeddingFile, StoredEmbedding, pack
from utils.corpus.lists import LabelledClip
from utils.errors import DatabaseError, DataListError
from utils.model import encoder as encoder_module
from voices.sql.store import SqlVoiceStore
from voices.upkeep import bulk


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(encoder_module, "SpeakerEncoder", lambda *_: FakeEncoder())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def people() -> Path:
    folder = Path("people")
    write_wav(folder / "Ann" / "1.wav", synthetic_speech(1, 0))
    write_wav(folder / "Ann" / "2.wav", synthetic_speech(1, 1))
    write_wav(folder / "李雷.wav", synthetic_speech(3, 0))
    write_wav(folder / "Zoe" / "silent.wav", 0 * synthetic_speech(4, 0))
    (folder / "Zoe" / "broken.wav").write_bytes(b"RIFF....")
    (folder / "notes.txt").write_text("no recording")
    return folder


def run(
    capsys: pytest.CaptureFixture[str], url: str, source: Path, *options: str
) -> tuple[int, str, dict[str, tuple[str, str, str]]]:
    """Returns the exit status, the result, and the report by recording."""
    command = ["enrol", url, str(source), "--report", "report.csv", *options]
    status = manage_voices.main(command)
    with Path("report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["recording", "speaker", "outcome", "reason"]
    report = {row[0]: (row[1], row[2], row[3]) for row in rows[1:]}
    assert len(report) == len(rows) - 1
    return status, capsys.readouterr().out.splitlines()[-1], report


def test_a_folder_a_zip_and_a_table_are_the_same(
    database_url: str, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told, report = run(capsys, database_url, people, "--keep_audio")
    assert (status, told) == (2, "3 recordings enrolled, 0 were enrolled before, 3 skipped")
    assert report["Ann/1.wav"] == ("Ann", "enrolled", "")
    assert report["李雷.wav"] == ("李雷", "enrolled", "")
    assert report["Zoe/silent.wav"][:2] == ("Zoe", "skipped") and report["Zoe/silent.wav"][2]
    assert report["Zoe/broken.wav"][1] == "skipped" and report["notes.txt"][1] == "skipped"
    with zipfile.ZipFile("people.zip", "w") as file:
        for path in people.rglob("*.*"):
            file.write(path, path.relative_to(people).as_posix())
        file.writestr("__MACOSX/Ann/1.wav", b"")
        file.writestr("Ann/.hidden.wav", b"")
    status, told, report = run(capsys, database_url, Path("people.zip"))
    assert (status, told) == (2, "0 recordings enrolled, 3 were enrolled before, 2 skipped")
    assert report["Ann/2.wav"] == ("Ann", "enrolled before", "")
    lines = ["path,speaker", "people/Ann/1.wav,ann", "people/李雷.wav,Lei", "gone.wav,Ann", ","]
    Path("list.csv").write_text("\n".join(lines), encoding="utf-8")
    status, told, report = run(capsys, database_url, Path("list.csv"))
    assert (status, told) == (2, "1 recordings enrolled, 1 were enrolled before, 2 skipped")
    assert report["gone.wav"][1] == "skipped" and "No such file" in report["gone.wav"][2]
    assert report["people/李雷.wav"] == ("Lei", "enrolled", "")
    database = SqlVoiceStore(database_url, FakeEncoder())
    assert {name: len(some) for name, some in database.all_recordings().items()} == {
        "Ann": 2, "Lei": 1, "李雷": 1,
    }  # fmt: skip
    has_audio = {name: some[0].has_audio for name, some in database.all_recordings().items()}
    assert has_audio == {"Ann": True, "Lei": False, "李雷": True}
    assert database.rank(FakeEncoder().embed_waveform(synthetic_speech(1, 7)))[0][0] == "Ann"
    assert database.audit_log.last(1)[0].outcome == "1 recordings of list.csv"
    database.close()


def test_embeddings_that_were_made_elsewhere(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def entry(speaker: str, label: int, number: int) -> StoredEmbedding:
        clip = LabelledClip(f"{label}/{speaker}/{number}.wav", label, speaker=speaker, seconds=2.0)
        waveform = synthetic_speech(label, number)
        return StoredEmbedding((1,), "", FakeEncoder().embed_waveform(waveform), 1.0, clip=clip)

    entries = [entry("Ann", 1, 0), entry("Ann", 1, 1), entry("Bob", 2, 0), entry("Ann", 3, 0)]
    content = {each.clip.path: each for each in entries if each.clip}
    Path("people.npz").write_bytes(pack(EmbeddingFile("fake", content)))
    status, told, report = run(capsys, database_url, Path("people.npz"), "--group", "shop")
    assert (status, told) == (2, "3 recordings enrolled, 0 were enrolled before, 1 skipped")
    assert report["1/Ann/1.wav"] == ("Ann", "enrolled", "")
    assert report["3/Ann/0.wav"][1:] == (
        "skipped",
        "two people of the list have this name; rename one",
    )
    status, told, report = run(capsys, database_url, Path("people.npz"), "--group", "shop")
    assert (status, told) == (2, "0 recordings enrolled, 3 were enrolled before, 1 skipped")
    Path("people.npz").write_bytes(pack(EmbeddingFile("another", content)))
    with pytest.raises(DataListError, match="embeddings of another model"):
        run(capsys, database_url, Path("people.npz"))


def test_stopped_it_goes_on_in_its_group(
    database_url: str,
    people: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enrol, left = SqlVoiceStore.enrol, [2]

    def stop(self: SqlVoiceStore, *args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return enrol(self, *args, **options)

    monkeypatch.setattr(SqlVoiceStore, "enrol", stop)
    with pytest.raises(KeyboardInterrupt):
        run(capsys, database_url, people, "--group", "shop")
    monkeypatch.setattr(SqlVoiceStore, "enrol", enrol)
    _, told, _ = run(capsys, database_url, people, "--group", "shop")
    assert told == "1 recordings enrolled, 2 were enrolled before, 3 skipped"
    database = SqlVoiceStore(database_url)
    assert database.groups() == {"shop": 2}
    database.close()


def test_sources_that_are_none(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    Path("wrong.csv").write_text("file,name\na,b\n")
    Path("binary.csv").write_bytes(b"path,speaker\n\xff\xfe,a\n")
    for name, message in (
        ("missing", "no such file or folder"),
        ("wrong.csv", "whose first line is path,speaker"),
        ("binary.csv", "cannot be read as a table"),
    ):
        with pytest.raises(DatabaseError, match=message):
            manage_voices.main(["enrol", url, name])
    with pytest.raises(DatabaseError, match="cannot be written"):
        manage_voices.main(["enrol", url, str(people), "--report", "people/notes.txt/x"])
    monkeypatch.setattr(bulk, "MAX_FILE_BYTES", 100)
    database = SqlVoiceStore(url, FakeEncoder())
    rows = list(bulk.enrol_many(people, database, FakeEncoder()))
    assert [row.reason for row in rows].count("longer than 0 MiB; cut it") == 4
    # A database that goes away ends the run.
    monkeypatch.setattr(bulk, "MAX_FILE_BYTES", 1 << 28)

    def fail(*_: Any, **__: Any) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(SqlVoiceStore, "enrol", fail)
    monkeypatch.setattr(SqlVoiceStore, "ping", fail)
    with pytest.raises(DatabaseError, match="gone"):
        list(bulk.enrol_many(people, database, FakeEncoder()))
    database.close()

"""Migrations, unreachable databases, and what is left on the disk after a kill or a deletion."""

import base64
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from tests.support.fake_encoder import FakeEncoder
from tests.support.postgres_server import NO_SERVER, PostgresServer, running_server
from tests.support.ready_databases import migrations_run
from tests.support.synthetic_voices import synthetic_speech
from utils.errors import DatabaseError
from voices.sql import engine as engine_module
from voices.sql.cipher import KEY_VARIABLE, read_key
from voices.sql.engine import MIGRATIONS, SCHEMA_HEAD, SqlConnections, migrate
from voices.sql.records import NewRecording
from voices.sql.schema import OF_BEFORE, POSTGRESQL_TABLES, VERSION_TABLE, metadata
from voices.sql.store import SqlVoiceStore

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def engine(database_url: str) -> Iterator[SqlConnections]:
    database = SqlConnections(database_url)
    yield database
    database.close()


def embedding(seed: int, size: int = 192) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=size)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def tables(engine: SqlConnections) -> set[str]:
    with engine.read() as connection:
        return set(inspect(connection).get_table_names())


def test_schema_head_is_the_newest_migration() -> None:
    newest = max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    assert newest.split("_")[0] == SCHEMA_HEAD


@pytest.mark.slow
def test_migrations_make_the_tables_of_the_code(engine: SqlConnections) -> None:
    def is_here(item: object, name: str, kind: str, *_: object) -> bool:
        table = item if kind == "table" else getattr(item, "table", item)
        full_name = name if kind == "table" else f"{getattr(table, 'name', '')}.{name}"
        if full_name in OF_BEFORE:
            return False
        return not (engine.is_sqlite and getattr(table, "name", "") in POSTGRESQL_TABLES)

    with engine.read() as connection:
        options = {"version_table": VERSION_TABLE, "include_object": is_here}
        options |= {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_clocks_that_differ_are_told(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    SqlConnections(postgres_url).close()
    assert "clock" not in caplog.text
    monkeypatch.setattr(engine_module, "time", SimpleNamespace(time=lambda: time.time() - 60))
    SqlConnections(postgres_url).close()
    assert "this machine's clock is -60 s ahead of the server's" in caplog.text


def test_upgrade_and_downgrade(engine: SqlConnections) -> None:
    expected = set(metadata.tables) - (POSTGRESQL_TABLES if engine.is_sqlite else set())
    expected |= set() if engine.is_sqlite else {"voiceprint_vectors"}
    assert tables(engine) == expected | {VERSION_TABLE}
    with engine.migrating() as connection:
        migrate(connection, "base")
    assert tables(engine) == {VERSION_TABLE}
    with engine.migrating() as connection:
        migrate(connection, "head")
    assert tables(engine) == expected | {VERSION_TABLE}


def test_embeddings_survive_the_way_back_and_forth(database_url: str) -> None:
    database = SqlVoiceStore(database_url, FakeEncoder(), keep_audio=True)
    database.add("kept", synthetic_speech(0), synthetic_speech(0, 1))
    vector = FakeEncoder().embed_waveform(synthetic_speech(1))
    speaker = database.enrol("lost", [NewRecording(vector, 1, None, 1)])
    expected = database.rank(vector)
    database.close()
    other = SqlVoiceStore(database_url, FakeEncoder("other"))
    assert other.load() == ["kept"]
    other.close()
    database = SqlVoiceStore(database_url, FakeEncoder())
    with database._connections.migrating() as connection:
        migrate(connection, "0002")
        columns = {each["name"] for each in inspect(connection).get_columns("voiceprint_info")}
        assert "embedding_size" in columns
    database.close()
    again = SqlVoiceStore(database_url, FakeEncoder())
    assert again.rank(vector) == expected and again.speaker("lost") == speaker
    # The version before knew one model's embeddings only.
    with again._connections.read() as connection:
        found = connection.exec_driver_sql("SELECT model_id FROM voiceprint_embeddings").all()
        assert [row[0] for row in found] == ["fake"] * 3
    again.close()


def test_failed_migration_leaves_nothing(engine: SqlConnections) -> None:
    with engine.migrating() as connection:
        migrate(connection, "base")
        # A table of another program has the name of one of ours.
        connection.exec_driver_sql("CREATE TABLE voiceprint_audit (id INTEGER)")
    with pytest.raises(DatabaseError, match="already exists"), engine.migrating() as connection:
        migrate(connection, "head")
    assert tables(engine) == {VERSION_TABLE, "voiceprint_audit"}


def test_other_programs_tables_do_not_matter(database_url: str) -> None:
    first = SqlConnections(database_url)
    with first.migrating() as connection:
        migrate(connection, "base")
        connection.exec_driver_sql(f"DROP TABLE {VERSION_TABLE}")
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('beef')")
        connection.exec_driver_sql("CREATE TABLE speakers (id INTEGER)")
    first.close()
    second = SqlConnections(database_url)
    assert {"voiceprint_info", "speakers"} <= tables(second)
    second.close()


def test_newer_tables_are_refused(engine: SqlConnections, database_url: str) -> None:
    with engine.write() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(
        DatabaseError, match=f"version 9999, this toolkit knows up to {SCHEMA_HEAD}"
    ):
        SqlConnections(database_url)


def test_an_empty_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "v.sqlite3").touch()
    SqlConnections(f"sqlite:///{tmp_path}/v.sqlite3").close()
    assert "an empty file, which becomes a new database" in caplog.text
    caplog.clear()
    SqlConnections(f"sqlite:///{tmp_path}/v.sqlite3").close()
    assert caplog.text == ""


def test_create_false_makes_nothing(tmp_path: Path, postgres_server: PostgresServer) -> None:
    with pytest.raises(DatabaseError, match="no such file"):
        SqlConnections(f"sqlite:///{tmp_path}/new.sqlite3", create=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DatabaseError, match="holds no voice database"):
        SqlConnections(postgres_server.new_database(), create=False)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:secret@h/d", "received a database address with mysql, expected sqlite:///PATH"),
        ("sqlite://", "expected sqlite:///PATH"),
        ("sqlite:///:memory:", "expected sqlite:///PATH"),
        ("postgresql://u:secret@host", "expected sqlite:///PATH"),
        ("nonsense", "with no scheme"),
        ("postgresql://u:secret@127.0.0.1:1/d", "postgresql://127.0.0.1/d: connection failed"),
        ("postgresql://u@127.0.0.1:1/d?password=secret", "postgresql://127.0.0.1/d"),
        ("postgresql://u:secret@127.0.0.1:port/d", "with postgresql, expected"),
    ],
)
def test_bad_addresses_are_told_without_the_password(url: str, message: str) -> None:
    with pytest.raises(DatabaseError) as error:
        SqlConnections(url)
    assert message in str(error.value)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    assert error.value.__cause__ is None or "secret" not in repr(error.value.__cause__)


def test_files_that_are_no_database(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to have a header" * 50)
    for path, message in [("text", "not a database"), ("", "a folder, expected a file")]:
        with pytest.raises(DatabaseError, match=message):
            SqlConnections(f"sqlite:///{tmp_path}/{path}")
    with pytest.raises(DatabaseError, match="cannot be made"):
        SqlConnections(f"sqlite:///{tmp_path}/text/v.sqlite3")


def test_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    database = SqlVoiceStore(f"sqlite:///{tmp_path}/new/v.sqlite3")
    database.enrol("a", [NewRecording(embedding(0), 1, None, 1)])
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    database.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_processes_may_start_at_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    database_url = f"sqlite:///{tmp_path}/v.sqlite3"
    if kind == "postgresql":
        database_url = request.getfixturevalue("postgres_server").new_database()
    imports = "import sys; from voices.sql.engine import SqlConnections"
    program = f"{imports}; SqlConnections(sys.argv[1]); print('ok')"
    command = [sys.executable, "-c", program, database_url]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    with migrations_run(), ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: SqlConnections(database_url), range(8)))
    for database in opened:
        database.close()
    for process in started:
        out, err = process.communicate(timeout=120)
        assert out.strip() == b"ok", err.decode()


@pytest.mark.slow
def test_a_server_that_went_away_and_came_back() -> None:
    with running_server() as server:
        if server is None:
            pytest.skip(NO_SERVER)
        database = SqlVoiceStore(server.new_database())
        database.enrol("a", [NewRecording(embedding(0), 1, None, 1)])
        server.stop(kill=True)
        for use in (database.ping, database.names, lambda: database.identify(embedding(0))):
            with pytest.raises(DatabaseError, match="postgresql://"):
                use()
        server.start()
        database.ping()
        assert database.identify(embedding(0))[0][0] == "a"
        database.close()


ENROL = textwrap.dedent(
    """
    import sys, threading
    import numpy as np
    from voices.sql.records import NewRecording
    from voices.sql.store import SqlVoiceStore

    database = SqlVoiceStore(sys.argv[1], keep_audio=True)
    print("ready", flush=True)

    def enrol(thread):
        for number in range(1000):
            vector = np.random.default_rng([thread, number]).normal(size=192)
            vector = (vector / np.linalg.norm(vector)).astype(np.float32)
            name = f"{thread}-{number}"
            audio = name.encode() * 2000
            database.enrol(name, [NewRecording(vector, 1.0, audio, 2.0)])
            sys.stdout.write(name + "\\n")
            sys.stdout.flush()

    for thread in range(20):
        threading.Thread(target=enrol, args=(thread,)).start()
    """
)


@pytest.mark.slow
def test_nothing_answered_is_lost_when_killed(database_url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENROL, database_url], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    answered = [process.stdout.readline().strip() for _ in range(150)]
    process.kill()
    rest = process.stdout.read().split("\n")
    answered += [name for name in rest[:-1] if name]  # The last may be a part of a line.
    process.wait()
    process.stdout.close()

    database = SqlVoiceStore(database_url)
    stored = set(database.names())
    assert len(answered) >= 150 and set(answered) <= stored
    for name in answered[:: len(answered) // 20]:
        thread, number = map(int, name.split("-"))
        vector = np.random.default_rng([thread, number]).normal(size=192)
        expected = (vector / np.linalg.norm(vector)).astype(np.float32)
        assert database.identify(expected)[0] == (name, pytest.approx(1, abs=1e-5))
        (recording,) = database.speaker(name).recordings
        assert database.original_audio(name, recording.id)[0] == name.encode() * 2000
    # Whole or absent: what was under way has left no half of it.
    assert all(len(speaker.recordings) == 1 for speaker in database.speakers(limit=10_000)[0])
    database.enrol("after", [NewRecording(embedding(0), 1, None, 1)])
    database.close()


def files_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def needles(database: SqlVoiceStore, names: list[str]) -> list[bytes]:
    """Returns pieces of everything that the tables hold of speakers' voices, and their keys."""
    found = []
    with database._connections.read() as connection:
        for table, owner, condition in [
            ("voiceprint_means", "voiceprint_speakers o ON o.id = e.speaker_id", "o.id"),
            (
                "voiceprint_embeddings",
                "voiceprint_recordings o ON o.id = e.recording_id",
                "o.speaker_id",
            ),
        ]:
            query = (
                f"SELECT e.embedding, k.stored FROM {table} e JOIN {owner} JOIN "
                f"voiceprint_speakers s ON s.id = {condition} JOIN voiceprint_keys k "
                "ON k.id = o.key_id WHERE s.name = ?"
            )
            for name in names:
                for sealed, key in connection.exec_driver_sql(query, (name,)):
                    found += [key[:32], key[8:24]]
                    found += [
                        sealed[start : start + 16] for start in range(0, len(sealed) - 16, 48)
                    ]
    return found


@pytest.mark.slow
def test_deleted_means_deleted_in_the_raw_files(tmp_path: Path) -> None:
    database = SqlVoiceStore(f"sqlite:///{tmp_path}/v.sqlite3", keep_audio=True)
    sound = np.random.default_rng(0).bytes(30_000)
    for seed in range(60):
        audio = sound[100 * seed :] if seed % 3 == 0 else None
        database.enrol(f"s{seed}", [NewRecording(embedding(seed), 1, audio, 1)])
    database.enrol("s1", [NewRecording(embedding(100), 1, None, 1)], if_exists="add")
    first = database.speaker("s1").recordings[0].id
    before = needles(database, [f"s{seed}" for seed in range(40)])
    raw = files_of(tmp_path)
    assert all(piece in raw for piece in before), "the test looks for what is there"
    database.remove_recording("s1", first)
    for seed in range(2, 40):
        if seed == 20:
            database.enrol("s20", [NewRecording(embedding(101), 1, None, 1)], if_exists="replace")
        else:
            database.remove(f"s{seed}")
    raw = files_of(tmp_path)
    # Pages are rearranged when rows go, and copies of sealed content may stay in their gaps; of
    # the keys, without which it is noise, none may.
    assert database.count() == 60 - 37
    kept = set(needles(database, database.names()))
    gone = [piece for piece in before if len(piece) == 32 and piece not in kept]
    assert len(gone) == 78
    assert not any(key in raw or key[8:24] in raw for key in gone)
    for seed in range(40):
        assert embedding(seed).tobytes()[:32] not in raw, "an embedding in plain sight"
    assert sound[10_000:10_032] not in raw
    # The database works on, from the file alone.
    database.close()
    again = SqlVoiceStore(f"sqlite:///{tmp_path}/v.sqlite3")
    assert again.identify(embedding(50))[0][0] == "s50"
    again.close()


def test_deletion_empties_the_log_while_others_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    database, other = SqlVoiceStore(url), SqlVoiceStore(url)
    for seed in range(30):
        database.enrol(f"s{seed}", [NewRecording(embedding(seed), 1, None, 1)])
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            other.identify(embedding(3))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    keys = [piece for piece in needles(database, ["s5"]) if len(piece) == 32]
    database.remove("s5")
    raw = files_of(tmp_path)
    is_over.set()
    for reader in readers:
        reader.join()
    assert len(keys) == 2 and not any(key in raw for key in keys)
    database.close()
    other.close()


def test_deletion_that_was_killed_before_its_end_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    first = SqlVoiceStore(url)
    for seed in range(10):
        first.enrol(f"s{seed}", [NewRecording(embedding(seed), 1, None, 1)])
    keys = [piece for piece in needles(first, ["s5"]) if len(piece) == 32]
    # The deletion is on the disk, and the log, which still holds the keys, is not yet emptied.
    monkeypatch.setattr(first._connections, "truncate_log", lambda: None)
    first.remove("s5")
    assert all(key in files_of(tmp_path) for key in keys)
    second = SqlVoiceStore(url)
    raw = files_of(tmp_path)
    assert len(keys) == 2 and not any(key in raw for key in keys)
    first.close()
    second.close()


def test_encrypted_file_holds_nothing_readable(tmp_path: Path) -> None:
    key = bytes(range(32))
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    database = SqlVoiceStore(url, FakeEncoder(), key=key, keep_audio=True)
    database.add("a", synthetic_speech(0))
    plain = database.original_audio("a", database.recordings("a")[0].id)[0]
    vector = FakeEncoder().embed_waveform(synthetic_speech(0))
    with database._connections.read() as connection:
        query = "SELECT stored FROM voiceprint_keys"
        stored = [row[0] for row in connection.exec_driver_sql(query)]
    opened = [database._ring.open(row) for row in stored]
    database.close()
    raw = files_of(tmp_path)
    assert plain is not None and vector.tobytes()[:16] not in raw
    assert all(plain[start : start + 16] not in raw for start in range(0, len(plain) - 16, 999))
    assert key not in raw and base64.b64encode(key) not in raw
    assert len(opened) == 2 and not any(record_key in raw for record_key in opened)


def commands_of_the_guide(language: str) -> list[str]:
    text = (ROOT / "docs" / "database.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines()]


def test_what_the_guide_says_empties_the_files_of_postgresql(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = SqlVoiceStore(postgres_url)
    for seed in range(20):
        database.enrol(f"s{seed}", [NewRecording(embedding(seed), 1, None, 1)])
    vector = embedding(3).astype("<f4").tobytes()
    with database._connections.read() as connection:
        keys = connection.exec_driver_sql("SELECT stored FROM voiceprint_keys").scalars().all()
    engine = database._connections.engine.execution_options(isolation_level="AUTOCOMMIT")

    def data_files() -> bytes:
        with engine.connect() as connection:
            connection.exec_driver_sql("CHECKPOINT")
            own = "SELECT oid FROM pg_database WHERE datname = current_database()"
            number = connection.exec_driver_sql(own).scalar_one()
        folder = postgres_server.folder / "data" / "base" / str(number)
        return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())

    gone = [bytes(key[:32]) for key in keys[6:8]]
    raw = data_files()
    assert vector in raw and all(key in raw for key in gone)
    database.remove("s3")
    (vacuum,) = [line for line in commands_of_the_guide("sql") if line.startswith("VACUUM")]
    # Autovacuum may be reading: as the guide says, what it may still see stays until it has ended.
    for _ in range(5):
        with engine.connect() as connection:
            connection.exec_driver_sql(vacuum.rstrip(";"))
        raw = data_files()
        if vector not in raw:
            break
        time.sleep(2)
    assert vector not in raw and not any(key in raw for key in gone)
    assert embedding(4).astype("<f4").tobytes() in raw
    assert database.identify(embedding(4))[0][0] == "s4"
    database.close()


def test_the_guides_way_to_a_key(tmp_path: Path) -> None:
    commands = commands_of_the_guide("shell")
    (make,) = [command for command in commands if "token_hex" in command]
    make = make.replace("python", sys.executable, 1)
    subprocess.run(make, shell=True, check=True, cwd=tmp_path)
    key = read_key({KEY_VARIABLE: (tmp_path / "database.key").read_text()})
    assert key is not None and len(key) == 32

"""Connections to SQLite and PostgreSQL, set up so that a finished write stays; the migrations."""

import contextlib
import logging
import re
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Executable, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from utils.errors import DatabaseError
from voices.sql.schema import VERSION_TABLE, read_text

SCHEMA_HEAD = "0009"
"""Newest file in voices/sql/migrations/versions; a test compares."""

LOGGER = logging.getLogger("voiceprint")
"""The service's; elsewhere its warnings are lines on stderr."""

MIGRATIONS = Path(__file__).resolve().with_name("migrations")

BUSY_TIMEOUT_S = 60
"""Seconds that a writer waits for writers of other processes before it gives up."""

CONNECT_TIMEOUT_S = 10
"""Seconds after which a PostgreSQL server that does not answer counts as unreachable."""

MAX_CONNECTIONS = 20
"""Connections of one process at a time; a PostgreSQL server allows 100 by default."""

MIGRATION_LOCK = 0x766F6963
"""Number of the PostgreSQL advisory lock under which processes migrate one after the other."""

LOCK_TIMEOUT_S = 2
"""Seconds that a migration waits for a table of PostgreSQL. All others who want the table wait
behind it, so that it gives up soon and tries again later."""

MIGRATION_TRIES = 30
"""Times that a migration is tried while others use the tables, a second apart."""

LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's code for a lock that was waited for too long."""

CLOCK_TOLERANCE_S = 5.0
"""Seconds by which clocks may differ; a job that is silent for ten counts as lost."""

CHECKPOINT_TRIES = 50
"""Times that emptying SQLite's log is tried while others read; each waits up to 0.1 s."""


class SqlConnections:
    """One SQLite file or PostgreSQL database, by its address.

    Attributes:
        name: The address without user and password, for messages.
        is_sqlite: SQLite, or else PostgreSQL.
    """

    def __init__(self, url: str, *, create: bool = True, migrate: bool = True) -> None:
        """Connects, and brings the tables to this version of the toolkit.

        Args:
            url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`.
            create: Make the file and the tables if they are missing.
            migrate: Bring the tables to this version; else they stay as they are.

        Raises:
            DatabaseError: If the address is wrong, nobody answers, or the tables are of another
                version.
        """
        parsed = _parse(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.name = _public_name(parsed)
        self._password = parsed.password or str(parsed.query.get("password", ""))
        self._write_lock = threading.Lock()
        self._must_checkpoint = False
        if self.is_sqlite:
            self._prepare_file(Path(str(parsed.database)), create)
        self.engine = _make_engine(parsed, self.is_sqlite)
        # The connections are closed even where nobody calls `close`, as in the scripts.
        weakref.finalize(self, self.engine.dispose)
        self._writer = self.engine.execution_options(is_write=True)
        self._reader = self._asker = self.engine
        if not self.is_sqlite:
            self._reader = self.engine.execution_options(isolation_level="REPEATABLE READ")
            self._asker = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        try:
            if migrate:
                self._migrate(create)
                self._compare_clocks()
            if self.is_sqlite:
                # A process that was killed may have left the log of a deletion.
                with self.driver_errors(), self._write_lock:
                    self._checkpoint(1)
        except BaseException:
            self.engine.dispose()
            raise

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Yields a connection that sees one state of the whole database."""
        with self.driver_errors(), self._reader.begin() as connection:
            yield connection

    def fetch(self, query: Executable) -> list[Any]:
        """Returns the rows that a query finds, in a transaction of its own."""
        with self.read() as connection:
            return list(connection.execute(query))

    def ask(self, question: str) -> Any:
        """Returns the one value that a question of constant text is answered with.

        It is asked before each search, and takes a twentieth of the time of a transaction.
        """
        if self.is_sqlite:
            with (
                self.driver_errors(),
                contextlib.closing(self.engine.raw_connection()) as connection,
            ):
                return connection.cursor().execute(question).fetchone()[0]
        with self.driver_errors(), self._asker.connect() as connection:
            return connection.exec_driver_sql(question).scalar_one()

    def execute_alone(self, statement: Executable, values: dict[str, Any]) -> list[Any]:
        """Runs one statement as a transaction of its own, on PostgreSQL; returns its rows."""
        with self.driver_errors(), self._asker.connect() as connection:
            result = connection.execute(statement, values)
            return list(result) if result.returns_rows else []

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Yields a connection whose changes are on the disk, all of them, when the block ends."""
        # Threads queue here in turn; SQLite's own lock is asked for again and again.
        turn = self._write_lock if self.is_sqlite else contextlib.nullcontext()
        with self.driver_errors(), turn:
            with self._writer.begin() as connection:
                yield connection
            if self._must_checkpoint:
                self._checkpoint(1)

    @contextlib.contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Yields a connection like `write`, on which SQLite's tables may be rebuilt.

        Foreign keys are off: dropping a table's old form would else delete what refers to it.
        """
        with self.driver_errors(), self._begun_migration() as connection:
            yield connection

    @contextlib.contextmanager
    def _begun_migration(self) -> Iterator[Connection]:
        """Does the same, and leaves the errors of drivers as they are."""
        if not self.is_sqlite:
            with self._writer.begin() as connection:
                yield connection
            return
        with self._write_lock, self._writer.connect() as connection:
            driver = connection.connection.cursor()
            driver.execute("PRAGMA foreign_keys = OFF")  # does nothing inside a transaction
            try:
                with connection.begin():
                    yield connection
            finally:
                driver.execute("PRAGMA foreign_keys = ON")
                driver.close()

    def truncate_log(self) -> None:
        """Removes what was overwritten or deleted from SQLite's log too; after the write."""
        if not self.is_sqlite:
            return
        with self.driver_errors(), self._write_lock:
            self._checkpoint(CHECKPOINT_TRIES)

    def pack(self) -> None:
        """Makes a SQLite file whole by itself, without a log beside it; nobody else may have it."""
        with self.driver_errors(), self.engine.connect() as connection:
            connection.connection.cursor().execute("PRAGMA journal_mode = DELETE").close()

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def driver_errors(self) -> Iterator[None]:
        """Turns the errors of drivers into one line without the password."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise DatabaseError(f"{self.name}: {self._reason(error)}") from None

    def _reason(self, error: Exception) -> str:
        """Returns the first line of what a driver says; never values, which may be secret."""
        cause = getattr(error, "orig", None) or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        # PostgreSQL's DETAIL line, which is left out, would quote the row.
        reason = re.sub(r"\s+", " ", lines[0])[:200]
        return reason.replace(self._password, "***") if self._password else reason

    def _checkpoint(self, num_tries: int) -> None:
        """Copies the log into the file and cuts it to nothing, as soon as no reader needs it."""
        self._must_checkpoint = True
        with self.engine.connect() as connection:
            cursor = connection.connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 100")
            try:
                for _ in range(num_tries):
                    try:
                        is_busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                    except sqlite3.OperationalError as error:
                        if "locked" not in str(error):
                            raise
                        is_busy = 1
                    if not is_busy:
                        self._must_checkpoint = False
                        return
                # Another process has been reading all the time: the next write tries again.
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {1000 * BUSY_TIMEOUT_S}")
                cursor.close()

    def _prepare_file(self, path: Path, create: bool) -> None:
        """Makes the folder and the file, readable by its owner only."""
        if path.is_dir():
            raise DatabaseError(f"{self.name}: a folder, expected a file; add its name")
        if path.exists():
            if path.stat().st_size == 0 and create:
                LOGGER.warning(
                    "%s: an empty file, which becomes a new database; if it held voices, stop and "
                    "restore a backup",
                    self.name,
                )
            return
        if not create:
            raise DatabaseError(f"{self.name}: no such file; check the path")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise DatabaseError(f"{self.name}: cannot be made ({error.strerror})") from error

    def _migrate(self, create: bool) -> None:
        """Brings the tables to `SCHEMA_HEAD`, one process at a time."""
        with self.driver_errors():
            with self.engine.connect() as connection:
                version = version_of(connection)
            if version == SCHEMA_HEAD:
                return
            if version is None and not create:
                raise DatabaseError(f"{self.name}: holds no voice database; check the address")
            for tries_left in reversed(range(MIGRATION_TRIES)):
                try:
                    self._migrate_once()
                    return
                except OperationalError as error:
                    is_blocked = getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE
                    if not is_blocked or not tries_left:
                        raise
                time.sleep(1)

    def _compare_clocks(self) -> None:
        """Says so if this machine's clock differs from the server's: replicas judge by theirs."""
        if self.is_sqlite:
            return
        ahead_s = time.time() - float(self.ask("SELECT extract(epoch FROM clock_timestamp())"))
        if abs(ahead_s) > CLOCK_TOLERANCE_S:
            LOGGER.warning(
                "%s: this machine's clock is %.0f s ahead of the server's (minus: behind); set "
                "both by NTP, else others take its jobs for lost and its terms end early or late",
                self.name,
                ahead_s,
            )

    def _migrate_once(self) -> None:
        """Brings the tables to `SCHEMA_HEAD` while no other process does, all of it or nothing.

        Raises:
            OperationalError: If another process uses a table for too long.
        """
        with self._begun_migration() as connection:
            if not self.is_sqlite:
                lock = text("SELECT pg_advisory_xact_lock(:number)")
                connection.execute(lock, {"number": MIGRATION_LOCK})
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"))
            version = version_of(connection)
            if version is not None and not is_known(version):
                raise DatabaseError(
                    f"{self.name}: its tables are of version {version}, this toolkit knows "
                    f"up to {SCHEMA_HEAD}; use a newer version of the toolkit"
                )
            if version != SCHEMA_HEAD:
                migrate(connection, "head")


def migrate(connection: Connection, revision: str) -> None:
    """Brings the tables to a version, up or down, within the connection's transaction.

    Args:
        connection: An open transaction.
        revision: Name of a file in voices/sql/migrations/versions, "head" or "base".
    """
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    is_down = revision == "base" or (version_of(connection) or "") > revision != "head"
    (command.downgrade if is_down else command.upgrade)(config, revision)


def version_of(connection: Connection) -> str | None:
    """Returns the version of the tables, None if there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return None if found is None else str(found)


def is_known(version: str) -> bool:
    """Tells whether a version is one of voices/sql/migrations/versions."""
    return version.isalnum() and any((MIGRATIONS / "versions").glob(f"{version}_*.py"))


def _parse(url: str) -> URL:
    """Returns the parts of an address, with the driver that is used for it."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        backend = ""
    if backend in ("postgresql", "postgres") and parsed.database:
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed.set(drivername="sqlite+pysqlite")
    scheme = url.partition("://")[0] if "://" in url else "no scheme"
    raise DatabaseError(
        f"received a database address with {scheme}, expected sqlite:///PATH or "
        "postgresql://USER:PASSWORD@HOST/DATABASE"
    )


def _public_name(parsed: URL) -> str:
    """Returns an address without user, password and options."""
    if parsed.get_backend_name() == "sqlite":
        return f"sqlite:///{parsed.database}"
    host = parsed.host or parsed.query.get("host") or "localhost"
    return f"postgresql://{host}/{parsed.database}"


def _make_engine(parsed: URL, is_sqlite: bool) -> Engine:
    """Returns the pool of connections."""
    # Values of a failed statement, among them embeddings, stay out of messages.
    options: dict[str, Any] = {"hide_parameters": True, "pool_timeout": BUSY_TIMEOUT_S}
    options |= {"pool_size": 5, "max_overflow": MAX_CONNECTIONS - 5}
    if is_sqlite:
        options["connect_args"] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    else:
        options["pool_pre_ping"] = True
        # Whatever the server's default is: a writer waits for the one before and sees its work.
        options["isolation_level"] = "READ COMMITTED"
        options["connect_args"] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "voiceprint",
        }
    engine = create_engine(parsed, **options)
    if is_sqlite:
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Makes a new connection durable, forgetful of what is deleted, and patient."""
    connection.text_factory = read_text
    connection.isolation_level = None  # Transactions begin and end where `_begin_sqlite` says.
    cursor = connection.cursor()
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # This one statement does not wait by itself while another process does the same.
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.02)
    for setting in (
        "synchronous = FULL",
        "fullfsync = ON",
        "foreign_keys = ON",
        "secure_delete = ON",
        "temp_store = MEMORY",
    ):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Begins a transaction; a writer's takes the lock at once instead of failing midway."""
    is_write = connection.get_execution_options().get("is_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

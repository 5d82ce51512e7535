"""Fixtures that more than one test file uses."""

import hashlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.eagerly import never_compiling
from tests.support.postgres_server import NO_SERVER, READY, PostgresServer, shared_server
from tests.support.synthetic_voices import write_speech_folder
from utils.processors import num_processors

# Compiled modules are kept: else each of hundreds of processes compiles all of ours anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Before TensorFlow is imported by any test: quiet, and on the CPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# The same examples every time, and no failure because a machine is busy.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")

# Whoever runs the tests may have a database of real voices in the environment.
for variable in ("VOICEPRINT_DATABASE", "VOICEPRINT_KEY", "VOICEPRINT_TOKEN"):
    os.environ.pop(variable, None)

ROOT = Path(__file__).resolve().parents[1]


def own_recordings() -> dict[str, str]:
    """The recordings that belong to the repository, and their content's SHA-256."""
    return {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("audio", "audio_db")
        for path in (ROOT / folder).rglob("*.wav")
    }


@pytest.fixture(scope="session", autouse=True)
def own_recordings_stay() -> Iterator[None]:
    """No test changes, adds or removes a recording of the repository."""
    before = own_recordings()
    yield
    assert own_recordings() == before


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 synthetic speakers with 4 wav files of 2 s each. Shared: only read it."""
    folder = tmp_path_factory.mktemp("speech")
    write_speech_folder(folder)
    return folder


@pytest.fixture
def eager() -> Iterator[None]:
    """Trains without compiling."""
    with never_compiling():
        yield


@pytest.fixture(scope="session")
def all_workers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all processes of this run of pytest share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def postgres_server(all_workers_folder: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL server with pgvector, started once for all workers."""
    with shared_server(all_workers_folder) as server:
        if server is None:
            pytest.skip(NO_SERVER)
        yield server


@pytest.fixture(scope="session")
def ready_databases() -> Iterator[None]:
    """SQLite databases that the tests make begin as copies of one."""
    from tests.support import ready_databases

    with ready_databases.ready_databases():
        yield


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a PostgreSQL database with nobody in it."""
    url = postgres_server.new_database(READY)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an SQL database with nobody in it, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/voices.sqlite3"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def new_url(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes addresses of new databases: of "sqlite" or "postgresql"."""
    made, numbers = [], itertools.count()

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/v{next(numbers)}.sqlite3"
        made.append(postgres_server.new_database(READY))
        return made[-1]

    yield make
    for url in made:
        postgres_server.drop_database(url)


WITHOUT_SLOW = "not slow"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Half as many processes again as processors: many slow tests wait for another process."""
    is_quick = config.option.markexpr == WITHOUT_SLOW
    return num_processors() if is_quick else num_processors() * 3 // 2


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Passes over files of slow tests where none is wanted: importing some takes a second."""
    if config.option.markexpr != WITHOUT_SLOW or collection_path.suffix != ".py":
        return None
    is_slow = "\npytestmark = pytest.mark.slow\n" in collection_path.read_text(encoding="utf-8")
    return True if is_slow else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deals out the tests so that every worker begins with its share of the slow ones.

    Workers take equal parts of the list, one after the other, and steal from each other later:
    with the slow ones first, none ends alone with one.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    shares: list[list[pytest.Item]] = [
        [] for _ in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    ]
    for path in sorted(files, key=lambda path: path not in slow):
        min(shares, key=len).extend(files[path])
    items[:] = [item for share in shares for item in share]


def pytest_configure(config: pytest.Config) -> None:
    """Sets up what workers and programs under test inherit.

    Ctrl-C comes through to them: background jobs begin with it ignored. Where workers share the
    cores, each calculates on one.
    """
    if getattr(config.option, "numprocesses", None):
        for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(variable, "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""Two replicas on one PostgreSQL: what they share, and that one may go at any moment."""

import contextlib
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.support.postgres_server import PostgresServer
from tests.support.proxy import running_proxy, upstreams
from tests.support.service_client import TestClient, check_problem, enrol, files, running, speech
from tests.support.service_process import ServiceProcess
from voices.sql.engine import MIGRATION_LOCK

pytestmark = pytest.mark.slow

NUM_CLIENTS = 6
NUM_ACKNOWLEDGED = 30
"""Enrolments to wait for before each of the things that happen to a replica."""

PATIENCE_S = 60.0


# --- What replicas share: two applications in this process ----------------------------------------


@contextlib.contextmanager
def two_replicas(url: str, **options: int) -> Iterator[tuple[TestClient, TestClient]]:
    with running(url, **options) as one, running(url, **options) as other:
        yield one, other


def test_what_one_replica_does_the_other_sees_at_once(postgres_url: str) -> None:
    with two_replicas(postgres_url) as (one, other):
        enrol(one, "Ann", 1)
        answer = other.post("/v1/identify", files=files(speech(1, 7)))
        assert answer.json()["name"] == "Ann"
        assert other.delete("/v1/speakers/Ann").status_code == 200
        check_problem(one.get("/v1/speakers/Ann"), 404, "unknown-speaker")
        assert one.post("/v1/identify", files=files(speech(1, 7))).json()["matches"] == []


def test_rates_and_locks_are_shared(postgres_url: str) -> None:
    with two_replicas(postgres_url, rate_limit=30, lockout_failures=4) as (one, other):
        enrol(one, "Ann", 1)
        clients = [one, other]
        for number in range(4):
            answer = clients[number % 2].post("/v1/speakers/Ann/verify", files=files(speech(3)))
            assert answer.status_code == 200, answer.text
        for client in clients:
            answer = client.post("/v1/speakers/Ann/verify", files=files(speech(1)))
            check_problem(answer, 429, "locked")
        # 7 requests so far.
        statuses = [clients[number % 2].get("/v1/info").status_code for number in range(23)]
        assert set(statuses) == {200}
        statuses = [client.get("/v1/info").status_code for client in clients * 3]
        assert statuses.count(429) >= 5  # the bucket fills by one in two seconds
        # A third replica, which is started now, knows it too.
        with running(postgres_url, rate_limit=30) as third:
            assert 429 in [third.get("/v1/info").status_code for _ in range(2)]


def test_a_stopping_replica_is_not_ready_and_works_on(postgres_url: str) -> None:
    with running(postgres_url) as client:
        client.app.state.service.begin_stop()  # type: ignore[attr-defined]
        check_problem(client.get("/health/ready"), 503, "stopping")
        assert client.get("/health/live").status_code == 200
        enrol(client, "Ann", 1)


# --- Processes behind nginx, under load -----------------------------------------------------------


@dataclass
class Load:
    """Clients that enrol and list until they are told to stop, and what became of it.

    Attributes:
        acknowledged: Names that were answered 201, or 409 on a retry: it had been stored.
        failed_posts: When an enrolment had to be sent again.
        failed_gets: Lists that did not come at the first try.
    """

    address: str
    certificate: Path
    acknowledged: list[str] = field(default_factory=list)
    failed_posts: list[tuple[float, str]] = field(default_factory=list)
    failed_gets: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        context = ssl.create_default_context(cafile=str(self.certificate))
        voice = files(speech(number, duration_s=0.6))
        with httpx.Client(base_url=self.address, verify=context, timeout=30) as client:
            for count in range(100_000):
                if self.is_over.is_set():
                    return
                self._enrol(client, f"n{number}-{count}", voice)
                self._list(client)

    def _enrol(self, client: httpx.Client, name: str, voice: list) -> None:  # type: ignore[type-arg]
        for attempt in range(1000):
            try:
                answer = client.post("/v1/speakers", data={"name": name}, files=voice)
                outcome = str(answer.status_code)
            except httpx.TransportError as error:
                outcome = repr(error)
            if outcome == "201" or (outcome == "409" and attempt):
                self.acknowledged.append(name)
                return
            self.failed_posts.append((time.monotonic(), outcome))
            time.sleep(0.05)

    def _list(self, client: httpx.Client) -> None:
        try:
            answer = client.get("/v1/speakers", params={"limit": 1})
            if answer.status_code != 200:
                self.failed_gets.append(answer.text)
        except httpx.TransportError as error:
            self.failed_gets.append(repr(error))

    def more(self) -> None:
        """Waits until a number of further enrolments are acknowledged."""
        num_wanted = len(self.acknowledged) + NUM_ACKNOWLEDGED
        wait_for(lambda: len(self.acknowledged) >= num_wanted)


def wait_for(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def loaded(load: Load) -> Iterator[None]:
    threads = [threading.Thread(target=load.run, args=(each,)) for each in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        load.is_over.set()
        for thread in threads:
            thread.join()


def test_no_acknowledged_enrolment_is_lost(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """One replica is killed and comes back, tables are added, the other one is drained."""
    url = postgres_server.new_database()
    options = ["--database", url, "--rate_limit", "0", "--num_threads", "2", "--drain_s", "1"]
    with contextlib.ExitStack() as stack:

        def start(port: int = 0) -> ServiceProcess:
            service = ServiceProcess(tmp_path, *options, "--port", str(port))
            stack.callback(service.process.wait)
            stack.callback(service.process.kill)
            return service

        one, other = start(), start()
        proxy = tmp_path / "proxy"
        proxy.mkdir()
        replicas = [f"127.0.0.1:{each.port}" for each in (one, other)]
        address = stack.enter_context(running_proxy(proxy, replicas))
        load = Load(address, proxy / "secrets" / "tls_certificate")
        with loaded(load):
            load.more()
            one.process.kill()
            load.more()
            one = start(one.port)
            num_before = len(upstreams(proxy))
            wait_for(lambda: [replicas[0]] in upstreams(proxy)[num_before:])
            add_as_a_later_version(url)
            load.more()
            check_drained(other, load)
        assert load.failed_gets == []
        # The proxy has asked the other one where a replica was gone.
        assert any(len(each) == 2 for each in upstreams(proxy))
        with httpx.Client(base_url=one.url, timeout=30) as client:
            assert set(load.acknowledged) <= names(client)
            num_rows = client.get("/v1/speakers", params={"limit": 1}).json()["total"]
            assert num_rows == len(set(load.acknowledged)), "each is enrolled once"
    postgres_server.drop_database(url)


def check_drained(replica: ServiceProcess, load: Load) -> None:
    """Stops a replica: it is not ready at once, works on for a second, and no client notices."""
    stopped_at = time.monotonic()
    replica.process.send_signal(signal.SIGTERM)
    with httpx.Client(base_url=replica.url) as client:
        wait_for(lambda: client.get("/health/ready").status_code == 503)
        assert client.get("/v1/speakers", params={"limit": 1}).status_code == 200
        assert time.monotonic() - stopped_at < 1
    load.more()
    assert replica.wait() == 0
    load.more()
    late = [outcome for at, outcome in load.failed_posts if at > stopped_at]
    assert late == [], late


def names(client: httpx.Client) -> set[str]:
    found: set[str] = set()
    while True:
        page = client.get("/v1/speakers", params={"offset": len(found), "limit": 500}).json()
        if not page["speakers"]:
            return found
        found |= {speaker["name"] for speaker in page["speakers"]}


def add_as_a_later_version(url: str) -> None:
    """Does what a migration of a later version may do while earlier ones serve: it only adds."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        connection.execute("ALTER TABLE voiceprint_speakers ADD COLUMN later TEXT")
        connection.execute("CREATE TABLE voiceprint_later (id INTEGER PRIMARY KEY)")
        connection.execute("UPDATE voiceprint_schema SET version_num = '9999'")

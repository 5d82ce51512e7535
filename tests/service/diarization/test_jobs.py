"""Jobs with stand-ins for their processes: queue, cancel, death, expiry, restart."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from service.answers.problems import Problem
from service.diarization import jobs as module
from service.diarization.findings import unpack_voice
from service.diarization.jobs import Jobs, Order
from service.diarization.spool import Spool
from service.settings import Settings
from tests.support import fake_workers
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_client import speech
from utils.diarization.clustering import SpeakerCount
from utils.errors import AudioError, AudioTooLongError, DatabaseError
from voices.sql import jobs as table
from voices.sql.owned import Owner
from voices.sql.records import NewRecording
from voices.sql.schema import jobs as rows
from voices.sql.schema import keys
from voices.sql.store import SqlVoiceStore

ME = Owner("me", "default")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)


@pytest.fixture
def database(database_url: str) -> Iterator[SqlVoiceStore]:
    store = SqlVoiceStore(database_url, FakeEncoder())
    yield store
    store.close()


@contextmanager
def working(
    database: SqlVoiceStore,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[..., None],
    **options: Any,
) -> Iterator[Jobs]:
    """Jobs whose processes do something else."""
    monkeypatch.setattr(module, "work", work)
    jobs = Jobs(Settings(**options), FakeEncoder(), database)
    jobs.open()
    try:
        yield jobs
    finally:
        jobs.close()


def order(content: bytes = b"", owner: Owner = ME, candidates: list[str] | None = None) -> Order:
    spool = Spool()
    spool.write(content or speech(1))
    return Order(owner, spool, "talk.wav", SpeakerCount(), candidates)


def wait(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(database: SqlVoiceStore, job_id: str) -> str:
    job = database.jobs.find(job_id, ME)
    assert job is not None
    return job.state


@pytest.mark.slow
def test_a_job_is_done_and_named(database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = np.eye(64, dtype=np.float32)[1]
    for name, group in [("Ann", "default"), ("Bob", "default"), ("Eve", "other")]:
        embedding = voice if name != "Bob" else np.eye(64, dtype=np.float32)[7]
        database.in_group(group).enrol(name, [NewRecording(embedding, 1.0, None, 1.0)])
    with working(database, monkeypatch, fake_workers.finds) as jobs:
        sent = order()
        job = jobs.start(sent)
        assert (job.state, job.progress) == ("queued", 0.0)
        wait(lambda: state(database, job.id) == "done")
        wait(lambda: jobs.num_pending == 0)
        with pytest.raises(ValueError, match="closed"):
            sent.spool.read(0, 1)
        (found,) = jobs.of(ME)
        assert (found.id, found.state, found.progress) == (job.id, "done", 1.0)
        result = json.loads(database.jobs.result(job.id) or b"")
        assert [speaker["name"] for speaker in result["speakers"]] == [None, "Ann"]
        assert b"fLaC" not in (database.jobs.voices(job.id) or b"")
        lines = database.audit_log.last(2)
        assert {(line.action, line.speaker, line.outcome) for line in lines} == {
            ("diarize", "Ann", "accepted"),
            ("diarize", "", "rejected"),
        }
        # Only the candidates are named, and only those of the group.
        second = jobs.start(order(candidates=["Bob"]))
        third = jobs.start(order(owner=Owner("me", "other")))
        wait(lambda: state(database, second.id) == "done" and jobs.num_pending == 0)
        names = [
            [
                speaker["name"]
                for speaker in json.loads(database.jobs.result(each.id) or b"")["speakers"]
            ]
            for each in (second, third)
        ]
        assert names == [[None, None], [None, "Eve"]]
        assert database.jobs.find(third.id, ME) is None


@pytest.mark.parametrize(
    ("work", "code", "detail"),
    [
        (fake_workers.fails, "too-long", "file: 99.0 s or more, expected at most 10 s"),
        (fake_workers.dies, "internal", "the process that worked on it died"),
    ],
)
def test_failures_say_why(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch, work: Any, code: str, detail: str
) -> None:
    with working(database, monkeypatch, work) as jobs:
        job = jobs.start(order())
        wait(lambda: state(database, job.id) == "failed")
        found = database.jobs.find(job.id, ME)
        error = json.loads(found.error or "") if found else {}
        assert (error["type"], error["detail"]) == (f"/problems/{code}", detail)
        assert error["status"] in (413, 500)
        assert database.jobs.result(job.id) is None
        assert database.jobs.voices(job.id) is None


def test_what_cannot_be_a_job_is_refused(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"diarization_max_duration_s": 1.0}
    with working(database, monkeypatch, fake_workers.hangs, **options) as jobs:
        for content, error in [
            (b"text", AudioError),
            (speech(1)[:-3000], AudioError),
            (speech(1), AudioTooLongError),
        ]:
            sent = order(content)
            with pytest.raises(error):
                jobs.start(sent)
            sent.spool.close()
        monkeypatch.setattr(
            database.jobs, "add", lambda *_: (_ for _ in ()).throw(DatabaseError("away"))
        )
        with pytest.raises(DatabaseError, match="away"):
            jobs.start(order(speech(1, duration_s=0.5)))
        assert jobs.num_pending == 0
    assert database.jobs.of(ME) == []


def test_cancel_at_any_moment(database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with working(database, monkeypatch, fake_workers.hangs) as jobs:
        running, waiting = jobs.start(order()), jobs.start(order())
        wait(lambda: [job.state for job in jobs.of(ME)] == ["queued", "running"])
        found = jobs.find(waiting.id, ME)
        assert found is not None
        assert found.state == "queued"
        process = jobs._running[running.id].process
        spools = [jobs._running[job.id].order.spool for job in (running, waiting)]
        for job in (waiting, running):
            start = time.monotonic()
            jobs.cancel(job.id)
            assert database.jobs.remove(job.id)
            assert time.monotonic() - start < 1
        assert not process.is_alive()
        assert all(spool._file.closed for spool in spools)
        wait(lambda: jobs.num_pending == 0)
        assert not database.jobs.remove(running.id)
        jobs.cancel(running.id)  # nothing happens
    assert database.jobs.of(ME) == []


def test_a_removal_by_another_process_ends_the_job(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(database, monkeypatch, fake_workers.hangs) as jobs:
        job = jobs.start(order())
        wait(lambda: state(database, job.id) == "running")
        process = jobs._running[job.id].process
        assert database.jobs.remove(job.id)
        wait(lambda: jobs.num_pending == 0)
        assert not process.is_alive()


def test_places_are_limited(database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with working(database, monkeypatch, fake_workers.hangs, diarization_queue_size=1) as jobs:
        with jobs.place(ME):
            jobs.start(order())
            with pytest.raises(Problem, match="503") as caught, jobs.place(None):
                raise AssertionError
            assert caught.value.code == "busy"
            assert caught.value.extra["retry_after_s"] == 60
        with jobs.place(ME):
            pass


def test_a_token_gets_its_share_of_the_places(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(database, monkeypatch, fake_workers.hangs) as jobs:
        started = [jobs.start(order()) for _ in range(2)]
        with pytest.raises(Problem, match="429") as caught, jobs.place(ME):
            raise AssertionError
        assert caught.value.code == "too-many-requests"
        assert caught.value.extra["retry_after_s"] == 60
        # Uploads that arrive count too; the same name in another group is somebody else.
        theirs = Owner("me", "shop")
        with ExitStack() as places:
            for _ in range(2):
                places.enter_context(jobs.place(theirs))
            with pytest.raises(Problem, match="429"):
                places.enter_context(jobs.place(theirs))
            places.enter_context(jobs.place(None))
            with pytest.raises(Problem, match="503"):
                places.enter_context(jobs.place(None))
        assert not jobs._places
        jobs.cancel(started[1].id)
        wait(lambda: jobs.num_pending == 1)
        with jobs.place(ME):
            pass


def test_a_stop_loses_jobs_and_says_so(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(database, monkeypatch, fake_workers.hangs) as jobs:
        started = [jobs.start(order()) for _ in range(2)]
        wait(lambda: state(database, started[0].id) == "running")
        process = jobs._running[started[0].id].process
    assert not process.is_alive()
    for job in started:
        found = database.jobs.find(job.id, ME)
        assert found is not None
        assert found.state == "lost"
        assert json.loads(found.error or "")["type"] == "/problems/lost"
    with pytest.raises(Problem, match="503") as caught, jobs.place(ME):
        raise AssertionError
    assert caught.value.code == "stopping"
    sent = order()
    with pytest.raises(Problem, match="503"):
        jobs.start(sent)
    sent.spool.close()


def test_a_process_that_is_gone_leaves_lost_jobs(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.jobs.add("a" * 32, ME, "gone", 3600)
    assert state(database, "a" * 32) == "queued"
    monkeypatch.setattr(table, "LOST_AFTER_S", 0.05)
    time.sleep(0.1)
    assert state(database, "a" * 32) == "lost"
    # Whoever comes back to life goes on.
    database.jobs.beat("gone", {"a" * 32: ("running", 0.5)}, 3600)
    found = database.jobs.find("a" * 32, ME)
    assert found is not None
    assert (found.state, found.progress) == ("running", 0.5)


def test_what_expires_is_destroyed(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_BEATS", 1)
    options = {"diarization_keep_s": 0.6}
    with working(database, monkeypatch, fake_workers.finds, **options) as jobs:
        job = jobs.start(order())
        wait(lambda: database.jobs.result(job.id) is not None)
        with database._connections.read() as connection:
            key_id = connection.execute(select(rows.c.key_id)).scalar_one()
        wait(lambda: database.jobs.result(job.id) is None)
        assert database.jobs.find(job.id, ME) is None
        with database._connections.read() as connection:
            stored = connection.execute(select(keys.c.stored).where(keys.c.id == key_id)).scalar()
            assert connection.execute(select(rows.c.id)).all() == []
        assert set(stored or b"x") == {0}
    # A job of which nobody has heard for that long is removed too, and not shown before.
    database.jobs.add("b" * 32, ME, "gone", 0.01)
    time.sleep(0.05)
    assert database.jobs.of(ME) == []
    assert database.jobs.remove_expired() == 1
    assert database.jobs.remove_expired() == 0


def test_jobs_of_a_group_go_with_it(database: SqlVoiceStore) -> None:
    theirs = Owner("me", "shop")
    for job_id, owner in [("a" * 32, ME), ("b" * 32, theirs)]:
        database.jobs.add(job_id, owner, "w", 3600)
        database.jobs.finish(job_id, "done", 3600, result=b"{}", voices=b"{}")
    assert database.in_group("shop").remove_group() == 0
    assert database.jobs.of(theirs) == []
    assert [job.id for job in database.jobs.of(ME)] == ["a" * 32]
    # What is over stays as it is.
    assert not database.jobs.finish("a" * 32, "failed", 3600)
    assert not database.jobs.finish("c" * 32, "done", 3600, result=b"{}")


def test_whoever_is_deleted_is_in_no_result(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = np.eye(64, dtype=np.float32)[:2]
    for group in ("default", "shop"):
        voices = database.in_group(group)
        voices.enrol("Ann", [NewRecording(first, 1.0, None, 1.0)])
        voices.enrol("Bob", [NewRecording(second, 1.0, None, 1.0)])

    def names(job_id: str) -> list[list[str | None]]:
        result = json.loads(database.jobs.result(job_id) or b"")
        return [[entry["name"] for entry in result[key]] for key in ("speakers", "turns")]

    with working(database, monkeypatch, fake_workers.finds) as jobs:
        mine, theirs = jobs.start(order()), jobs.start(order(owner=Owner("me", "shop")))
        wait(lambda: database.jobs.result(theirs.id) and jobs.num_pending == 0)
        assert names(mine.id) == [["Ann", "Bob"], ["Ann", "Bob", "Ann"]]
        with database._connections.read() as connection:
            old_key = connection.execute(select(rows.c.key_id).where(rows.c.id == mine.id)).scalar()
        database.remove("ann")
        assert names(mine.id) == [[None, "Bob"], [None, "Bob", None]]
        assert names(theirs.id) == [["Ann", "Bob"], ["Ann", "Bob", "Ann"]]
        with database._connections.read() as connection:
            stored = connection.execute(select(keys.c.stored).where(keys.c.id == old_key)).scalar()
        assert set(stored or b"x") == {0}
        # Neither is the voice left, that of the others is.
        packed = database.jobs.voices(mine.id) or b""
        with pytest.raises(AudioError, match="speaker 1: the person was deleted"):
            unpack_voice(packed, "1")
        voice, _ = unpack_voice(packed, "2")
        assert voice is not None
        # Nor whoever is deleted between the comparison and the end of the job.
        finish = database.jobs.finish

        def finish_late(*args: Any, **options: Any) -> bool:
            database.remove("Bob")
            return finish(*args, **options)

        monkeypatch.setattr(database.jobs, "finish", finish_late)
        late = jobs.start(order())
        wait(lambda: jobs.num_pending == 0)
        assert names(late.id) == [[None, None], [None, None, None]]


def test_a_damaged_result_does_not_keep_a_person(database: SqlVoiceStore) -> None:
    database.enrol("Ann", [NewRecording(np.eye(64, dtype=np.float32)[0], 1.0, None, 1.0)])
    database.jobs.add("a" * 32, ME, "w", 3600)
    database.jobs.finish("a" * 32, "done", 3600, result=b"{}", voices=b"{}")
    with database._connections.write() as connection:
        connection.execute(update(rows).values(result=b"damaged"))
    database.remove("Ann")
    assert database.names() == []
    assert database.jobs.of(ME) == []


def test_a_database_that_is_away_is_logged_and_waited_for(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with working(database, monkeypatch, fake_workers.hangs) as jobs:
        job = jobs.start(order())
        wait(lambda: state(database, job.id) == "running")
        with monkeypatch.context() as patch:
            patch.setattr(
                database.jobs, "beat", lambda *_: (_ for _ in ()).throw(DatabaseError("away"))
            )
            time.sleep(0.2)
        before = datetime.now(timezone.utc) + timedelta(seconds=3600)
        wait(lambda: database.jobs.of(ME)[0].expires_at > before)
        assert jobs.num_pending == 1

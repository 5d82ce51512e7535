"""The jobs of this process: a queue, a process for each job that runs, signs of life for all."""

import contextlib
import json
import logging
import multiprocessing
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from service.answers.problems import Problem, describe_error, problem_document, retry_later
from service.diarization.findings import describe, pack_voices
from service.diarization.spool import Spool
from service.diarization.worker import NAME, Findings, Task, work
from service.logs import log_event, log_failure
from service.settings import Settings
from utils.arrays import FloatArray
from utils.audio.decode import declared_seconds
from utils.diarization.clustering import SpeakerCount
from utils.errors import DatabaseError, VoiceprintError
from utils.processors import num_processors
from utils.verification.embedding import Encoder
from voices.sql.jobs import DONE, FAILED, LOST, QUEUED, RUNNING, Job
from voices.sql.owned import Owner
from voices.sql.records import AuditLine
from voices.sql.store import SqlVoiceStore

BEAT_S = 2.0
"""Seconds between two signs of life, and until a removal by another process is noticed."""

SWEEP_BEATS = 15
"""Signs of life between two looks for what has expired."""

HEARD_SHARE = 0.9
"""Progress when the whole recording was heard; grouping and a second pass are the rest."""

LOST_DETAIL = "the service stopped before it was done; send the recording again"

RETRY_S = 60
"""Seconds after which a client may try again when all places are taken."""


@dataclass
class Order:
    """What a client ordered.

    Attributes:
        owner: Whose token it is.
        spool: The recording.
        file_name: What the client calls it.
        count: How many speakers there may be.
        candidates: The enrolled people who may be named; None for all.
    """

    owner: Owner
    spool: Spool
    file_name: str
    count: SpeakerCount
    candidates: list[str] | None


@dataclass
class _Running:
    """A job of this process.

    Attributes:
        is_noted: Whether it is in the database: from then on, not to be there means removed.
        lock: Held while the process starts or is ended.
    """

    id: str
    order: Order
    state: str = QUEUED
    progress: float = 0.0
    process: Any = None
    is_noted: bool = False
    is_cancelled: bool = False
    is_over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


def _latest(job: Job, running: _Running | None) -> Job:
    """Returns a job with the state and progress that its process told last."""
    if running is None or job.state not in (QUEUED, RUNNING):
        return job
    return replace(job, state=running.state, progress=round(running.progress, 3))


class _CancelledError(Exception):
    """The job was removed while it ran."""


class Jobs:
    """Works on recordings, a few at a time; any thread may call it.

    Attributes:
        is_stopping: Whether no further orders are taken.
    """

    def __init__(self, settings: Settings, encoder: Encoder, database: SqlVoiceStore) -> None:
        """Starts nothing before `open`."""
        self._settings = settings
        self._encoder = encoder
        self._database = database
        self._worker = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._places: Counter[Owner | None] = Counter()
        self._is_closing = threading.Event()
        self.is_stopping = False
        self._executor: ThreadPoolExecutor | None = None
        self._beats: threading.Thread | None = None

    @property
    def num_pending(self) -> int:
        """Jobs that run or wait."""
        return len(self._running)

    def open(self) -> None:
        """Begins to give signs of life and to remove what expires."""
        self._is_closing.clear()
        self.is_stopping = False
        self._executor = ThreadPoolExecutor(self._settings.diarization_jobs, "diarize")
        self._beats = threading.Thread(target=self._beat, name="jobs", daemon=True)
        self._beats.start()

    def stop_accepting(self) -> None:
        """Takes no further orders: the service is stopping."""
        self.is_stopping = True

    def close(self) -> None:
        """Ends all jobs of this process; they are lost, and say so."""
        self.stop_accepting()
        self._is_closing.set()
        with self._lock:
            jobs = list(self._running.values())
        for job in jobs:
            self._end(job)
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        for job in jobs:
            with contextlib.suppress(DatabaseError):
                self._fail(job, Problem("lost", LOST_DETAIL), LOST)
            self._forget(job)
        if self._beats is not None:
            self._beats.join()

    @contextlib.contextmanager
    def place(self, owner: Owner | None) -> Iterator[None]:
        """Holds a place for a job while its recording arrives.

        Args:
            owner: Whose; None where no tokens are required, for as many places as there are.

        Raises:
            Problem: 429 if the owner's are taken, 503 if all are or the service is stopping.
        """
        with self._lock:
            if self.is_stopping:
                raise retry_later("stopping", "the service is stopping", RETRY_S)
            own = self._places[owner] + sum(j.order.owner == owner for j in self._running.values())
            if owner is not None and own >= self._settings.diarization_jobs_per_token:
                detail = f"{own} recordings of this token are being worked on or waiting"
                raise retry_later("too-many-requests", f"{detail}; wait or remove one", RETRY_S)
            most = self._settings.diarization_jobs + self._settings.diarization_queue_size
            if len(self._running) + self._places.total() >= most:
                detail = f"{most} recordings are being worked on or waiting"
                raise retry_later("busy", detail, RETRY_S)
            self._places[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._places[owner] -= 1
                self._places += Counter()  # forgets who has none

    def start(self, order: Order) -> Job:
        """Accepts an order: looks at the recording's header, and puts it into the queue.

        Raises:
            AudioError: If it is no recording, is cut short, or says that it is too long.
            DatabaseError: If the job cannot be noted.
        """
        most = self._settings.diarization_max_duration_s
        declared_seconds(order.spool.open(), name=NAME, max_duration_s=most)
        keep_s = self._settings.diarization_keep_s
        # Known here before others can know of it: none can fail to be cancelled.
        job = _Running(uuid.uuid4().hex, order)
        with self._lock:
            if self.is_stopping or self._executor is None:
                raise retry_later("stopping", "the service is stopping", RETRY_S)
            self._running[job.id] = job
        try:
            row = self._database.jobs.add(job.id, order.owner, self._worker, keep_s)
            job.is_noted = True
            self._executor.submit(self._run, job)
        except BaseException:
            self._forget(job)
            raise
        return row

    def find(self, job_id: str, owner: Owner) -> Job | None:
        """Returns an owner's job as it is now, None if there is none by now."""
        # Looked up before the row is read: a job that ends in between is not seen going back.
        running = self._running.get(job_id)
        job = self._database.jobs.find(job_id, owner)
        return None if job is None else _latest(job, running)

    def of(self, owner: Owner) -> list[Job]:
        """Returns an owner's jobs as they are now, the newest first."""
        running = dict(self._running)
        return [_latest(job, running.get(job.id)) for job in self._database.jobs.of(owner)]

    def cancel(self, job_id: str) -> None:
        """Ends a job of this process and frees its recording; returns when both is done."""
        job = self._running.get(job_id)
        if job is not None:
            self._end(job)
            job.order.spool.close()
            if job.process is None:
                self._forget(job)  # its place is free before its turn comes
            else:
                job.is_over.wait(BEAT_S)

    def _end(self, job: _Running) -> None:
        """Ends the process of a job, or keeps it from starting."""
        with job.lock:
            job.is_cancelled = True
            if job.process is not None:
                job.process.kill()

    def _forget(self, job: _Running) -> None:
        """Takes a job out of the queue."""
        with self._lock:
            self._running.pop(job.id, None)
        job.order.spool.close()
        job.is_over.set()

    def _run(self, job: _Running) -> None:
        """Works on a job; the thread only waits and answers its process."""
        try:
            findings = self._find(job)
            job.order.spool.close()
            self._keep(job, findings)
        except _CancelledError:
            pass  # whoever cancelled it removes it, or says that it is lost
        except Problem as problem:
            self._fail(job, problem)
        except VoiceprintError as error:
            self._fail(job, describe_error(error))
        except Exception as error:
            log_failure("a diarization failed", error, job=job.id)
            with contextlib.suppress(DatabaseError):
                self._fail(job, Problem("internal", "internal error; see the service's log"))
        finally:
            self._forget(job)

    def _find(self, job: _Running) -> Findings:
        """Runs the process of a job.

        Raises:
            VoiceprintError: As the process does.
            Problem: 500 if the process died by itself.
            _CancelledError: If it was cancelled.
        """
        settings, spool = self._settings, job.order.spool
        task = Task(
            spool.size,
            job.order.count,
            settings.diarization_max_duration_s,
            settings.num_threads or num_processors(),
            settings.keep_audio,
            self._encoder.model_id,
        )
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        with here:
            with job.lock:
                if job.is_cancelled:
                    raise _CancelledError
                args = (there, self._encoder, task)
                job.process = context.Process(target=work, args=args, daemon=True)
                job.process.start()
                job.state = RUNNING
            there.close()
            try:
                return self._serve(job, here)
            except (EOFError, OSError, ValueError) as error:
                if job.is_cancelled:
                    raise _CancelledError from error
                job.process.join()
                log_event(
                    "a diarization died",
                    level=logging.ERROR,
                    status=job.process.exitcode,
                    job=job.id,
                )
                raise Problem("internal", "the process that worked on it died") from error
            finally:
                job.process.kill()
                job.process.join()

    def _serve(self, job: _Running, pipe: Connection) -> Findings:
        """Answers a process until it is done."""
        spool = job.order.spool
        total_s = declared_seconds(spool.open(), name=NAME)
        heard_s = 0.0
        while True:
            message = pipe.recv()
            if message[0] == "read":
                _, offset, size = message
                pipe.send_bytes(spool.read(offset, size))
                if total_s is None:
                    share = HEARD_SHARE * min(offset / max(spool.size, 1), 1.0)
                    job.progress = max(job.progress, share)
            elif message[0] == "heard":
                heard_s += message[1]
                if total_s:
                    job.progress = HEARD_SHARE * min(heard_s / total_s, 1.0)
            elif message[0] == "failed":
                _, kind, args, attributes = message
                error: VoiceprintError = kind.__new__(kind, *args)
                error.__dict__.update(attributes)
                raise error
            else:
                findings: Findings = message[1]
                return findings

    def _keep(self, job: _Running, findings: Findings) -> None:
        """Names the speakers, writes the audit log and keeps the result."""
        order, threshold = job.order, self._encoder.strict_threshold
        voices = self._database.in_group(order.owner.group)

        def rank(embedding: FloatArray) -> list[tuple[str, float]]:
            return voices.identify(embedding, candidates=order.candidates)

        result, named = describe(findings, rank, threshold, order.file_name)
        lines = [
            AuditLine(
                order.owner.actor,
                "diarize",
                name or "",
                "accepted" if name else "rejected",
                score,
                group=order.owner.group,
            )
            for name, score in named
        ]
        self._database.audit_log.append(*lines)
        packed = pack_voices(dict(findings.voices), self._encoder.model_id)
        self._database.jobs.finish(
            job.id,
            DONE,
            self._settings.diarization_keep_s,
            result=json.dumps(result).encode(),
            voices=packed,
        )
        # Whoever was deleted after the comparison stays deleted.
        for name in {name for name, _ in named if name is not None}:
            if voices.enrolled_name(name) is None:
                self._database.jobs.forget(order.owner.group, name)

    def _fail(self, job: _Running, problem: Problem, state: str = FAILED) -> None:
        """Notes why there is no result."""
        error = json.dumps(problem_document(problem))
        self._database.jobs.finish(
            job.id,
            state,
            self._settings.diarization_keep_s,
            progress=round(job.progress, 3),
            error=error,
        )

    def _beat(self) -> None:
        """Gives signs of life, ends what another process removed, removes what expired."""
        count = 0
        while not self._is_closing.wait(0 if count == 0 else BEAT_S):
            try:
                self._beat_once()
                if count % SWEEP_BEATS == 0:
                    self._database.jobs.remove_expired()
                    self._database.enrolments.remove_expired()
            except DatabaseError as error:
                log_event("jobs", level=logging.WARNING, reason=str(error))
            count += 1

    def _beat_once(self) -> None:
        with self._lock:
            jobs = {job.id: job for job in self._running.values() if job.is_noted}
        if not jobs:
            return
        progress = {job.id: (job.state, round(job.progress, 3)) for job in jobs.values()}
        self._database.jobs.beat(self._worker, progress, self._settings.diarization_keep_s)
        for gone in jobs.keys() - self._database.jobs.known(list(jobs)):
            self.cancel(gone)

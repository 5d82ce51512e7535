"""What the routes share: settings, encoder, database, pool, figures, locks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request, UploadFile

from service.joiner import Joiner
from service.limits import Lockout
from service.metrics import Metrics
from service.pool import EncodingPool
from service.problems import Problem
from service.schemas import speaker_document
from service.settings import Settings
from service.voice_folder import VoiceFolder
from service.voices import Encoder, Voice, VoiceReader
from utils.errors import DatabaseError, UnknownSpeakerError
from utils.speaker_names import clean_name
from utils.sql_database import SqlVoiceprintDatabase
from utils.sql_records import AuditLine, Speaker
from utils.vector_index import Question

T = TypeVar("T")


@dataclass(frozen=True)
class Inquiry:
    """A voice that somebody asks about.

    Attributes:
        voice: The voice.
        question: Whom to compare it with, and how many to tell.
        threshold: Least score of an answer.
        actor: Name of the token that asks.
    """

    voice: Voice
    question: Question
    threshold: float
    actor: str | None


@dataclass(frozen=True)
class Identified:
    """Whose voice it is.

    Attributes:
        voice: The voice.
        name: The speaker, None if nobody's score reaches the threshold.
        matches: `(name, score)` of the most alike, the best first.
    """

    voice: Voice
    name: str | None
    matches: list[tuple[str, float]]


NOBODY = "nobody"
"""Who acts, in the audit log, where there is no token."""

NUM_DATABASE_THREADS = 8
"""Database calls at a time: more would only wait for each other, and for SQLite's one writer."""


@dataclass
class Service:
    """The parts of a running service.

    Attributes:
        settings: The options.
        encoder: The speaker model.
        database: The enrolled speakers and the audit log.
        pool: Where recordings are encoded.
        reader: From uploads to voices.
        metrics: The figures.
        lockout: Failed verifications.
        folder: A folder of infer_recognition.py whose speakers were taken over, or None.
        auth_required: Whether requests need a token.
    """

    settings: Settings
    encoder: Encoder
    database: SqlVoiceprintDatabase
    pool: EncodingPool
    reader: VoiceReader
    metrics: Metrics
    lockout: Lockout
    folder: VoiceFolder | None
    auth_required: bool
    _executor: ThreadPoolExecutor | None = field(default=None, repr=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        """Joins the questions that wait at the same time."""
        self._inquiries = Joiner(
            self._answer, self._start, self._start_later, lambda: self.pool.is_pressed
        )
        self.pool.after_job = self._inquiries.release

    async def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Runs a call of the database in a thread of its own.

        The work is finished also if the client goes away or the service is told to stop.
        """
        return await asyncio.shield(
            asyncio.wrap_future(self._start(partial(function, *args, **options)))
        )

    def _start(self, function: Callable[[], T]) -> "Future[T]":
        """Begins a call in a thread of the database."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(NUM_DATABASE_THREADS, "database")
            return self._executor.submit(function)

    def _start_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Makes a call in the thread of the event loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, function)

    def close(self) -> None:
        """Finishes the calls of the database that have begun; later ones start new threads."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)

    def describe(self, speaker: Speaker) -> dict[str, Any]:
        """Returns a speaker, ready for JSON."""
        with_file = self.folder.recording_ids if self.folder is not None else ()
        return speaker_document(speaker, with_file)

    async def note(
        self, request: Request, action: str, speaker: str, outcome: str, score: float | None = None
    ) -> None:
        """Writes a line of the audit log; it is on the disk before the client is answered."""
        line = AuditLine(request.state.actor or NOBODY, action, speaker, outcome, score)
        await self.call(self.database.append_audit, line)

    async def identify(
        self,
        request: Request,
        upload: UploadFile,
        threshold: float,
        *,
        candidates: list[str] | None = None,
        top_k: int = 1,
    ) -> Identified:
        """Finds whose voice it is, counts the decision and writes it to the audit log.

        Args:
            request: Who asks.
            upload: The recording.
            threshold: Least score of an answer.
            candidates: Compare with these only; unknown ones are passed over.
            top_k: Matches to tell.

        Raises:
            AudioError: If the recording cannot be used.
            Problem: 503 if too many recordings are waiting.
        """
        self._loop = asyncio.get_running_loop()
        actor = request.state.actor
        answer: Future[Identified] = Future()

        def ask(voice: Voice) -> None:
            question = Question(voice.vector, top_k, candidates)
            self._inquiries.add(Inquiry(voice, question, threshold, actor), answer)

        def pass_error(done: "Future[None]") -> None:
            if (error := done.exception()) is not None:
                answer.set_exception(error)

        begun = await self.reader.begin("file", upload, ask)
        begun.add_done_callback(pass_error)
        return await asyncio.shield(asyncio.wrap_future(answer))

    def _answer(self, inquiries: list[Inquiry]) -> list[Identified]:
        """Answers questions together; runs in a thread of the database."""
        found = self.database.identify_each([inquiry.question for inquiry in inquiries])
        answers, lines = [], []
        for inquiry, matches in zip(inquiries, found, strict=True):
            score = matches[0][1] if matches else None
            name = matches[0][0] if score is not None and score >= inquiry.threshold else None
            answers.append(Identified(inquiry.voice, name, matches))
            outcome = "rejected" if name is None else "accepted"
            actor = inquiry.actor or NOBODY
            lines.append(AuditLine(actor, "identify", name or "", outcome, score))
        self.database.append_audit(*lines)
        for line in lines:
            self.metrics.decisions.labels("identify", line.outcome).inc()
        return answers


async def get_service(request: Request) -> Service:
    """Returns the service that a request is for; async, since others take a thread each time."""
    return cast(Service, request.app.state.service)


Context = Annotated[Service, Depends(get_service)]


def checked_name(text: str) -> str:
    """Returns a name in its one form.

    Raises:
        Problem: 422, if it cannot be one.
    """
    try:
        return clean_name(text)
    except DatabaseError as error:
        raise Problem("bad-name", str(error)) from error


async def require_speaker(service: Service, name: str) -> Speaker:
    """Returns a speaker.

    Raises:
        Problem: 404 if nobody has the name, 422 if nobody can have it.
    """
    name = checked_name(name)
    try:
        return await service.call(service.database.speaker, name)
    except UnknownSpeakerError as error:
        raise Problem("unknown-speaker", f"nobody named {name} is enrolled") from error

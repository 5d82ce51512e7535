"""What the routes share: settings, encoder, database, pool, figures, locks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request

from service.answers.problems import Problem
from service.answers.schemas import speaker_document
from service.edge.limits import Lockout
from service.edge.security import Tokens
from service.encoding.identification import NOBODY, Identifier
from service.encoding.pool import EncodingPool
from service.encoding.uploads import VoiceReader
from service.inbox import Inbox
from service.metrics import Metrics
from service.settings import Settings
from utils.errors import DatabaseError, UnknownSpeakerError
from utils.speaker_names import clean_name
from utils.verification.embedding import Encoder
from voices.sql.records import AuditLine, Speaker
from voices.sql.store import SqlVoiceStore

T = TypeVar("T")

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
        inbox: The folder whose recordings were enrolled at the start, or None.
        tokens: The valid tokens.
        identifier: Tells whose voice an upload is.
    """

    settings: Settings
    encoder: Encoder
    database: SqlVoiceStore
    pool: EncodingPool
    reader: VoiceReader
    metrics: Metrics
    lockout: Lockout
    inbox: Inbox | None
    tokens: Tokens
    _executor: ThreadPoolExecutor | None = field(default=None, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        """Builds the identifier."""
        self.identifier = Identifier(
            self.database, self.pool, self.reader, self.metrics, self._start
        )

    @property
    def auth_required(self) -> bool:
        """Whether requests need a token."""
        return self.tokens.are_required

    async def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Runs a database call in a separate thread.

        The work is finished even if the client disconnects or the service is stopping.
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

    def close(self) -> None:
        """Finishes the calls of the database that have begun; later ones start new threads."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)

    def describe(self, speaker: Speaker) -> dict[str, Any]:
        """Returns a speaker, ready for JSON."""
        with_file = self.inbox.recording_ids if self.inbox is not None else ()
        return speaker_document(speaker, with_file)

    async def note(
        self, request: Request, action: str, speaker: str, outcome: str, score: float | None = None
    ) -> None:
        """Writes a line of the audit log; it is on the disk before the client is answered."""
        line = AuditLine(request.state.actor or NOBODY, action, speaker, outcome, score)
        await self.call(self.database.audit_log.append, line)


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
        Problem: 404 if nobody has the name, 422 if the name is not valid.
    """
    name = checked_name(name)
    try:
        return await service.call(service.database.speaker, name)
    except UnknownSpeakerError as error:
        raise Problem("unknown-speaker", f"nobody named {name} is enrolled") from error

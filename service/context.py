"""What the routes share: settings, encoder, database, pool, figures, locks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request

from service.limits import Lockout
from service.metrics import Metrics
from service.pool import EncodingPool
from service.problems import Problem
from service.schemas import speaker_document
from service.settings import Settings
from service.voice_folder import VoiceFolder
from service.voices import Encoder, VoiceReader
from utils.audio import FloatArray
from utils.errors import DatabaseError, UnknownSpeakerError
from utils.speaker_names import clean_name
from utils.sql_database import SqlVoiceprintDatabase
from utils.sql_records import Speaker

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

    async def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Runs a call of the database in a thread of its own.

        The work is finished also if the client goes away or the service is told to stop.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(NUM_DATABASE_THREADS, "database")
        loop = asyncio.get_running_loop()
        return await asyncio.shield(
            loop.run_in_executor(self._executor, partial(function, *args, **options))
        )

    def close(self) -> None:
        """Finishes the calls of the database that have begun; later ones start new threads."""
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
        actor = request.state.actor
        await self.call(self.write_audit, actor, action, speaker, outcome, score)

    def write_audit(
        self, actor: str | None, action: str, speaker: str, outcome: str, score: float | None
    ) -> None:
        """Writes a line of the audit log, in a thread of the database."""
        self.database.append_audit(
            actor=actor or "nobody", action=action, speaker=speaker, outcome=outcome, score=score
        )

    async def search(
        self,
        request: Request,
        embedding: FloatArray,
        threshold: float,
        *,
        candidates: list[str] | None = None,
        top_k: int = 1,
    ) -> tuple[str | None, list[tuple[str, float]]]:
        """Finds whose voice it is, counts the decision and writes it to the audit log.

        Returns:
            The name, None if nobody's score reaches the threshold; and the best matches.
        """
        actor = request.state.actor

        def run() -> tuple[str | None, list[tuple[str, float]]]:
            matches = self.database.identify(embedding, candidates=candidates, top_k=top_k)
            score = matches[0][1] if matches else None
            name = matches[0][0] if score is not None and score >= threshold else None
            outcome = "rejected" if name is None else "accepted"
            self.write_audit(actor, "identify", name or "", outcome, score)
            self.metrics.decisions.labels("identify", outcome).inc()
            return name, matches

        return await self.call(run)


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

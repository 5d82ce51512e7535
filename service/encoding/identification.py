"""Whose voice an upload is: embedded in the pool, searched and noted with others of its time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from fastapi import UploadFile

from service.encoding.joiner import Joiner
from service.encoding.pool import EncodingPool
from service.encoding.uploads import Voice, VoiceReader
from service.metrics import Metrics
from utils.verification.verdict import verdict
from voices.sql.index import Question
from voices.sql.records import AuditLine
from voices.sql.store import SqlVoiceprintDatabase

NOBODY = "nobody"
"""Who acts, in the audit log, where there is no token."""


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
    actor: str


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


class Identifier:
    """Identifies, counts the decisions and writes them to the audit log."""

    def __init__(
        self,
        database: SqlVoiceprintDatabase,
        pool: EncodingPool,
        reader: VoiceReader,
        metrics: Metrics,
        start: Callable[[Callable[[], None]], object],
    ) -> None:
        """Takes what is needed.

        Args:
            database: The speakers and the audit log.
            pool: Where recordings are embedded.
            reader: From uploads to voices.
            metrics: Where decisions are counted.
            start: Begins a call of the database in a thread of its own.
        """
        self._database = database
        self._reader = reader
        self._metrics = metrics
        self._loop: asyncio.AbstractEventLoop | None = None
        self._joiner = Joiner(self._answer, start, self._start_later, lambda: pool.is_pressed)
        pool.after_job = self._joiner.release

    async def identify(
        self,
        actor: str | None,
        upload: UploadFile,
        threshold: float,
        *,
        candidates: list[str] | None = None,
        top_k: int = 1,
    ) -> Identified:
        """Finds whose voice it is; it is in the audit log before this returns.

        The work is finished also if the client goes away or the service is told to stop.

        Args:
            actor: Who asks.
            upload: The recording.
            threshold: Least score of an answer.
            candidates: Compare with these only; unknown ones are passed over.
            top_k: Matches to tell.

        Raises:
            AudioError: If the recording cannot be used.
            DatabaseError: If the database does not answer.
            Problem: 503 if too many recordings are waiting.
        """
        self._loop = asyncio.get_running_loop()
        answer: Future[Identified] = Future()

        def ask(voice: Voice) -> None:
            question = Question(voice.vector, top_k, candidates)
            self._joiner.add(Inquiry(voice, question, threshold, actor or NOBODY), answer)

        def pass_error(done: "Future[None]") -> None:
            if (error := done.exception()) is not None:
                answer.set_exception(error)

        begun = await self._reader.begin("file", upload, ask)
        begun.add_done_callback(pass_error)
        return await asyncio.shield(asyncio.wrap_future(answer))

    def _answer(self, inquiries: list[Inquiry]) -> list[Identified]:
        """Answers questions together; runs in a thread of the database."""
        found = self._database.identify_each([inquiry.question for inquiry in inquiries])
        answers, lines = [], []
        for inquiry, matches in zip(inquiries, found, strict=True):
            best, score = matches[0] if matches else (None, None)
            is_match = score is not None and verdict(score, inquiry.threshold)
            name = best if is_match else None
            outcome = "rejected" if name is None else "accepted"
            answers.append(Identified(inquiry.voice, name, matches))
            lines.append(AuditLine(inquiry.actor, "identify", name or "", outcome, score))
        self._database.append_audit(*lines)
        for line in lines:
            self._metrics.decisions.labels("identify", line.outcome).inc()
        return answers

    def _start_later(self, seconds: float, function: Callable[[], Any]) -> None:
        """Makes a call in the thread of the event loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, function)

"""Identifies the speaker of an upload: embedded in the pool, searched with concurrent requests."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import UploadFile

from service.encoding.joiner import Joiner
from service.encoding.pool import EncodingPool
from service.encoding.uploads import Voice, VoiceReader
from service.metrics import Metrics
from utils.speaker_names import DEFAULT_GROUP
from utils.verification.verdict import verdict
from voices.sql.index import Question
from voices.sql.records import AuditLine
from voices.sql.store import SqlVoiceStore

NOBODY = "nobody"
"""The actor in the audit log if there is no token."""


@dataclass(frozen=True)
class Inquiry:
    """A request to identify a voice; from `threshold` on a score is accepted."""

    voice: Voice
    question: Question
    threshold: float
    actor: str


@dataclass(frozen=True)
class Identified:
    """The result of an identification.

    Attributes:
        voice: The voice.
        name: The speaker, None if no score reaches the threshold.
        matches: `(name, score)` of the most similar speakers, the best first.
    """

    voice: Voice
    name: str | None
    matches: list[tuple[str, float]]


class Identifier:
    """Identifies, counts the decisions and writes them to the audit log."""

    def __init__(
        self,
        database: SqlVoiceStore,
        pool: EncodingPool,
        reader: VoiceReader,
        metrics: Metrics,
        call: Callable[..., Awaitable[Any]],
        note: Callable[..., Awaitable[None]],
    ) -> None:
        """Connects the pool to the search.

        Args:
            database: Whom voices are compared with.
            pool: Where they are embedded.
            reader: Reads uploads.
            metrics: Counts the decisions.
            call: Runs a database call in a separate thread.
            note: Writes lines of the audit log.
        """
        self._note = note
        self._database = database
        self._reader = reader
        self._metrics = metrics
        self._call = call
        self._joiner = Joiner(self._answer, lambda: pool.is_pressed)

    async def identify(
        self,
        actor: str | None,
        upload: UploadFile,
        threshold: float,
        *,
        candidates: list[str] | None = None,
        top_k: int = 1,
        group: str = DEFAULT_GROUP,
        may_shorten: bool = False,
    ) -> Identified:
        """Identifies the speaker among those of a group; writes the audit log before it returns.

        The work is finished even if the client disconnects or the service is stopping.

        Raises:
            AudioError: If the recording cannot be used.
            DatabaseError: If the database does not answer.
            Problem: 503 if too many recordings are waiting.
        """

        async def work() -> Identified:
            (voice,) = await self._reader.read([("file", upload)], may_shorten=may_shorten)
            question = Question(voice.vector, top_k, candidates, group)
            return await self._joiner.handle(Inquiry(voice, question, threshold, actor or NOBODY))

        return await asyncio.shield(asyncio.create_task(work()))

    async def _answer(self, inquiries: list[Inquiry]) -> list[Identified]:
        """Answers a batch of questions."""
        questions = [inquiry.question for inquiry in inquiries]
        found = await self._call(self._database.identify_each, questions)
        answers, lines = [], []
        for inquiry, matches in zip(inquiries, found, strict=True):
            best, score = matches[0] if matches else (None, None)
            is_match = score is not None and verdict(score, inquiry.threshold)
            name = best if is_match else None
            outcome = "rejected" if name is None else "accepted"
            answers.append(Identified(inquiry.voice, name, matches))
            group = inquiry.question.group
            line = AuditLine(inquiry.actor, "identify", name or "", outcome, score, group=group)
            lines.append(line)
        await self._note(*lines)
        for line in lines:
            self._metrics.decisions.labels("identify", line.outcome).inc()
        return answers

"""What the routes share: settings, encoder, database, pool, figures, locks."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from service.answers.problems import Problem
from service.diarization.jobs import Jobs
from service.edge.limits import Lockout
from service.edge.tokens import Grant, Tokens
from service.encoding.identification import NOBODY, Identifier
from service.encoding.pool import EncodingPool
from service.encoding.uploads import VoiceReader
from service.inbox import Inbox
from service.metrics import Metrics
from service.reembedding import BackgroundReembedding
from service.settings import Settings
from utils.errors import DatabaseError, UnknownSpeakerError
from utils.speaker_names import DEFAULT_GROUP, clean_name
from utils.verification.embedding import Encoder
from voices.sql.jobs import Owner
from voices.sql.records import AuditLine, IfExists, NewRecording, Speaker
from voices.sql.store import SqlVoiceStore

T = TypeVar("T")

NUM_DATABASE_THREADS = 8
"""Database calls at a time: more would only wait for each other, and for SQLite's one writer."""


@dataclass
class Service:
    """The parts of a running service; without an inbox no folder was enrolled at the start."""

    settings: Settings
    encoder: Encoder
    database: SqlVoiceStore
    pool: EncodingPool
    reader: VoiceReader
    metrics: Metrics
    lockout: Lockout
    inbox: Inbox | None
    tokens: Tokens
    reembedding: BackgroundReembedding
    jobs: Jobs
    num_streams: int = 0
    is_stopping: bool = False
    _executor: ThreadPoolExecutor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Builds the identifier."""
        self.identifier = Identifier(self.database, self.pool, self.reader, self.metrics, self.call)

    def begin_stop(self) -> None:
        """Makes /health/ready fail and takes no long recordings any more; all else goes on."""
        self.is_stopping = True
        self.jobs.stop_accepting()

    @property
    def auth_required(self) -> bool:
        """Whether requests need a token."""
        return self.tokens.are_required

    def voices(self, request: HTTPConnection) -> SqlVoiceStore:
        """Returns the store of the speakers whom the request's token reaches, of one group."""
        return self.database.in_group(group_of(request))

    def keeper(self, request: HTTPConnection) -> SqlVoiceStore | Inbox:
        """Returns who enrols and removes them: the inbox too, which is the default group's."""
        if self.inbox is not None and group_of(request) == DEFAULT_GROUP:
            return self.inbox
        return self.voices(request)

    def lock_name(self, request: HTTPConnection, name: str) -> str:
        """Returns by what a speaker's failed verifications are counted."""
        return f"{group_of(request)}/{name}"

    async def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Runs a database call in a separate thread.

        The work is finished even if the client disconnects or the service is stopping.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(NUM_DATABASE_THREADS, "database")
        work = partial(function, *args, **options)
        return await asyncio.shield(
            asyncio.get_running_loop().run_in_executor(self._executor, work)
        )

    def close(self) -> None:
        """Finishes the calls of the database that have begun; later ones start new threads."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)

    def describe(self, speaker: Speaker) -> dict[str, Any]:
        """Returns a speaker as a `SpeakerDocument`; sound may also be in a file of the folder."""
        with_file = self.inbox.recording_ids if self.inbox is not None else ()
        return {
            "name": speaker.name,
            "created_at": speaker.created_at.isoformat(),
            "updated_at": speaker.updated_at.isoformat(),
            "is_damaged": speaker.is_damaged,
            "recordings": [
                {
                    **vars(recording),
                    "created_at": recording.created_at.isoformat(),
                    "has_audio": recording.has_audio or recording.id in with_file,
                }
                for recording in speaker.recordings
            ],
        }

    async def count_other_models(self, group: str | None = None) -> dict[str, int]:
        """Returns an `OtherModelsDocument` of a group, or of all.

        Raises:
            DatabaseError: If the database does not answer.
        """
        waiting, without_sound = await self.call(self.reembedding.count, group)
        return {"waiting": waiting, "without_sound": without_sound}

    async def store(
        self,
        request: HTTPConnection,
        name: str,
        recordings: list[NewRecording],
        if_exists: IfExists,
        *,
        must_exist: bool = False,
    ) -> Speaker:
        """Enrols recordings; with `must_exist`, whoever is deleted meanwhile does not return."""
        return await self.call(
            self.keeper(request).enrol,
            name,
            recordings,
            if_exists=if_exists,
            max_recordings=self.settings.max_recordings,
            max_speakers=self.settings.limits_of(group_of(request)).max_speakers,
            must_exist=must_exist,
        )

    async def note(
        self,
        request: HTTPConnection,
        action: str,
        speaker: str,
        outcome: str,
        score: float | None = None,
    ) -> None:
        """Writes a line of the audit log; it is on the disk before the client is answered."""
        await self.note_each(request, action, [(speaker, outcome, score)])

    async def note_each(
        self,
        request: HTTPConnection,
        action: str,
        found: Sequence[tuple[str, str, float | None]],
    ) -> None:
        """Writes several lines, all or none: whose, with which outcome and score."""
        actor, group = request.state.actor or NOBODY, group_of(request)
        lines = [AuditLine(actor, action, *each, group=group) for each in found]
        await self.call(self.database.audit_log.append, *lines)


def group_of(request: HTTPConnection) -> str:
    """Returns the group whose speakers a request is about."""
    grant: Grant | None = request.state.grant
    return DEFAULT_GROUP if grant is None else grant.group


def owner_of(request: HTTPConnection) -> Owner:
    """Returns whose jobs and enrolments a request may see."""
    return Owner(request.state.actor or NOBODY, group_of(request))


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


async def require_speaker(service: Service, request: HTTPConnection, name: str) -> Speaker:
    """Returns a speaker of the request's group.

    Raises:
        Problem: 404 if nobody has the name, 422 if the name is not valid.
    """
    name = checked_name(name)
    try:
        return await service.call(service.voices(request).speaker, name)
    except UnknownSpeakerError as error:
        raise Problem("unknown-speaker", f"nobody named {name} is enrolled") from error


async def check_candidates(
    service: Service, request: HTTPConnection, candidates: Sequence[str]
) -> list[str]:
    """Returns the enrolled names to search, each once.

    Raises:
        Problem: 404 if some are unknown, 422 if one is not a valid name or there are too many.
    """
    most = service.settings.max_candidates
    if len(candidates) > most:
        raise Problem(
            "bad-field",
            "candidates: too many; leave them out to search among all",
            received=len(candidates),
            expected=f"at most {most}",
        )
    names = list(dict.fromkeys(checked_name(candidate) for candidate in candidates))
    voices = service.voices(request)
    found = await service.call(lambda: [voices.enrolled_name(name) for name in names])
    unknown = [name for name, other in zip(names, found, strict=True) if other is None]
    if unknown:
        raise Problem(
            "unknown-speaker",
            f"{len(unknown)} of {len(names)} candidates are not enrolled",
            unknown=unknown[:20],
        )
    return list(dict.fromkeys(name for name in found if name is not None))

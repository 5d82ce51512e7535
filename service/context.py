"""What the routes share: settings, encoder, database, pool, figures, locks."""

import asyncio
import logging
import re
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
from service.edge.token_file import Grant
from service.edge.tokens import Tokens
from service.encoding.identification import NOBODY, Identifier
from service.encoding.pool import EncodingPool
from service.encoding.uploads import VoiceReader
from service.inbox import Inbox
from service.logs import log_event
from service.metrics import Metrics
from service.reembedding import BackgroundReembedding
from service.settings import Settings
from utils.errors import DatabaseError, UnknownSpeakerError
from utils.speaker_names import DEFAULT_GROUP, clean_name, fold_name
from utils.verification.embedding import Encoder
from voices.sql.owned import Owner
from voices.sql.records import AuditLine, IfExists, NewRecording, Speaker
from voices.sql.requests import Errand
from voices.sql.store import SqlVoiceStore

T = TypeVar("T")

KEY = re.compile(r"[!-~]{1,255}")
"""What a request may be named by, for the case that it has to be repeated."""

DECISIONS = ("verify", "lock", "replay")
"""Actions whose answer does not wait for an audit log that cannot be written."""

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
    num_missing_lines: int = 0
    is_stopping: bool = False
    _executor: ThreadPoolExecutor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Builds the identifier."""
        self.identifier = Identifier(
            self.database, self.pool, self.reader, self.metrics, self.call, self.note_decisions
        )

    def begin_stop(self) -> None:
        """Makes /health/ready fail and takes no long recordings any more; all else goes on."""
        self.is_stopping = True
        self.jobs.stop_accepting()

    @property
    def auth_required(self) -> bool:
        """Whether requests need a token."""
        return self.tokens.are_required

    def groups_of(self, request: HTTPConnection) -> list[str]:
        """Returns the groups that a request with the same token may be about."""
        grant: Grant = request.state.grant
        if not grant.reaches_all:
            return [grant.group]
        return sorted(self.tokens.groups | self.settings.groups.keys())

    def voices(self, request: HTTPConnection) -> SqlVoiceStore:
        """Returns the store of the speakers whom the request's token reaches, of one group."""
        return self.database.in_group(group_of(request))

    def keeper(self, request: HTTPConnection, errand: Errand) -> SqlVoiceStore | Inbox:
        """Returns who changes them: the inbox too, which is the default group's.

        The errand's line of the audit log is written together with the change.
        """
        if self.inbox is not None and group_of(request) == DEFAULT_GROUP:
            return self.inbox.on(errand)
        return self.voices(request).on(errand)

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
        action: str = "",
        remark: str = "",
    ) -> Speaker:
        """Enrols recordings, and writes the line of the audit log.

        Args:
            request: Who asks.
            name: Whom.
            recordings: At least one.
            if_exists: What to do if the name is enrolled already.
            must_exist: Whether it has to be: whoever is deleted meanwhile does not return.
            action: For the audit log, by default what `if_exists` says.
            remark: For the audit log, by default the number of recordings.
        """
        action = action or action_of(if_exists)
        errand = errand_of(request, action, remark, about=fold_name(name))
        return await self.store_on(request, errand, name, recordings, if_exists, must_exist)

    async def store_on(
        self,
        request: HTTPConnection,
        errand: Errand,
        name: str,
        recordings: list[NewRecording],
        if_exists: IfExists,
        must_exist: bool = False,
    ) -> Speaker:
        """Does the same as `store`, on an errand."""
        return await self.call(
            self.keeper(request, errand).enrol,
            name,
            recordings,
            if_exists=if_exists,
            max_recordings=self.settings.max_recordings,
            max_speakers=self.settings.limits_of(group_of(request)).max_speakers,
            must_exist=must_exist,
        )

    async def note_decisions(self, *lines: AuditLine) -> None:
        """Writes what was decided into the audit log.

        Where that fails, as on a full disk, the decision stands and the gap is counted, told by
        /health/ready, and noted later; with --strict_audit there is no decision.

        Raises:
            DatabaseError: If the lines cannot be written and have to be.
        """
        try:
            await self.call(self.database.audit_log.append, *lines)
        except DatabaseError as error:
            if self.settings.strict_audit:
                raise
            self.num_missing_lines += len(lines)
            self.metrics.audit_gaps.inc(len(lines))
            log_event("audit gap", level=logging.ERROR, lines=len(lines), reason=str(error))

    async def note(
        self,
        request: HTTPConnection,
        action: str,
        speaker: str,
        outcome: str,
        score: float | None = None,
    ) -> None:
        """Writes a line of the audit log; it is on the disk before the client is answered."""
        actor, group = request.state.actor or NOBODY, group_of(request)
        line = AuditLine(actor, action, speaker, outcome, score, group=group)
        if action in DECISIONS:
            await self.note_decisions(line)
        else:
            await self.call(self.database.audit_log.append, line)


def action_of(if_exists: IfExists) -> str:
    """Returns what the audit log calls an enrolment."""
    return "enrol" if if_exists == "error" else if_exists


def group_of(request: HTTPConnection) -> str:
    """Returns the group whose speakers a request is about."""
    grant: Grant | None = request.state.grant
    return DEFAULT_GROUP if grant is None else grant.group


def owner_of(request: HTTPConnection) -> Owner:
    """Returns whose jobs and enrolments a request may see."""
    return Owner(request.state.actor or NOBODY, group_of(request))


def errand_of(request: HTTPConnection, action: str, remark: str = "", about: str = "") -> Errand:
    """Returns on whose behalf a request changes something; `about` says what.

    Raises:
        Problem: 422, if the header Idempotency-Key cannot be a key.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not (KEY.fullmatch(key) and key.isascii()):
        raise Problem(
            "bad-field",
            f"Idempotency-Key: received {len(key)} characters, expected 1 to 255 of ASCII",
        )
    return Errand(request.state.actor or NOBODY, action, remark, key, about)


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

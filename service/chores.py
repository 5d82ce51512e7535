"""What a running service does from time to time beside its requests."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta, timezone

from service.context import Service
from service.logs import log_event
from utils.errors import DatabaseError
from voices.sql.records import AuditLine

ACTOR = "service"
"""Who does this, in the audit log."""

TRIM_PERIOD_S = 3600.0
"""Seconds between two looks for lines of the audit log that may go."""

PERIOD_S = 30.0
"""Seconds between two rounds; the last use of a token is known to within that."""


@contextlib.asynccontextmanager
async def chores(service: Service) -> AsyncIterator[None]:
    """Does the chores while the block runs, and once more at its end."""

    async def repeat() -> None:
        trim_at = 0.0
        while True:
            if time.monotonic() >= trim_at:
                trim_at = time.monotonic() + TRIM_PERIOD_S
                await _attempt(trim_audit, service)
                await _attempt(forget_uploads, service)
            await asyncio.sleep(PERIOD_S)
            await do_chores(service)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await do_chores(service)


async def do_chores(service: Service) -> None:
    """Writes down what was counted; a database that fails now is asked again later."""
    for chore in (note_gap, note_uses, note_refusals):
        await _attempt(chore, service)


async def _attempt(chore: Callable[[Service], Awaitable[None]], service: Service) -> None:
    """Does a chore; an error is logged."""
    try:
        await chore(service)
    except DatabaseError as error:
        log_event("chores", level=logging.WARNING, reason=str(error))


async def trim_audit(service: Service) -> None:
    """Removes what the audit log need not keep any longer."""
    settings, log = service.settings, service.database.audit_log
    before = None
    if settings.audit_days:
        before = datetime.now(timezone.utc) - timedelta(days=settings.audit_days)
    last = await service.call(log.last_to_go, before, settings.audit_max_lines)
    if last:
        num_lines = await service.call(log.trim, last, ACTOR)
        log_event("audit log trimmed", lines=num_lines)


async def forget_uploads(service: Service) -> None:
    """Forgets challenges that are over, and recordings that were sent long ago."""
    await service.call(service.database.challenges.remove_old)
    await service.call(service.database.uploads.remove_old, service.settings.replay_days)


async def note_gap(service: Service) -> None:
    """Notes how many lines of the audit log are missing, once it can be written again."""
    missing = service.num_missing_lines
    if missing:
        line = AuditLine(ACTOR, "gap", "", f"{missing} lines are missing")
        await service.call(service.database.audit_log.append, line)
        service.num_missing_lines -= missing


async def note_uses(service: Service) -> None:
    """Writes down when tokens were used last."""
    uses = service.tokens.take_uses()
    try:
        await service.call(service.database.token_uses.note, uses)
    except DatabaseError:
        service.tokens.put_back_uses(uses)
        raise


async def note_refusals(service: Service) -> None:
    """Writes into the audit log which tokens were refused."""
    refusals = service.tokens.take_refusals()
    lines = [
        AuditLine(name, "refuse", "", f"{reason}, {number} times", group=group)
        for (name, group, reason), number in refusals.items()
    ]
    if lines:
        await service.call(service.database.audit_log.append, *lines)

"""What a running service does from time to time beside its requests."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from service.context import Service
from service.logs import log_event
from utils.errors import DatabaseError
from voices.sql.records import AuditLine

PERIOD_S = 30.0
"""Seconds between two rounds; the last use of a token is known to within that."""


@contextlib.asynccontextmanager
async def chores(service: Service) -> AsyncIterator[None]:
    """Does the chores while the block runs, and once more at its end."""

    async def repeat() -> None:
        while True:
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
    for chore in (note_uses, note_refusals):
        try:
            await chore(service)
        except DatabaseError as error:
            log_event("chores", level=logging.WARNING, reason=str(error))


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

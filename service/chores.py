"""What a running service does from time to time beside its requests."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from service.context import Service
from service.logs import log_event
from utils.errors import DatabaseError

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
    """Writes down when tokens were used last; a database that fails now is asked again later."""
    uses = service.tokens.take_uses()
    try:
        await service.call(service.database.token_uses.note, uses)
    except DatabaseError as error:
        service.tokens.put_back_uses(uses)
        log_event("chores", level=logging.WARNING, reason=str(error))

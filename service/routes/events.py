"""The route /v1/events: what happened to the speakers of a group, for whoever asks regularly."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from service.answers.schemas import EventsDocument
from service.context import Context, group_of

router = APIRouter(prefix="/v1/events", tags=["operation"])

MAX_NUMBER = 2**53
"""JavaScript cannot represent larger integers exactly."""


@router.get("", summary="Follow events", response_model=EventsDocument)
async def list_events(
    request: Request,
    service: Context,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="The last `next`")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Returns enrolments, changes, deletions, locks and refused tokens after a number.

    The oldest come first; ask again with `next` for later ones. Events are lines of the audit log
    and stay as long as it keeps them.
    """
    log = service.voices(request).audit_log
    found = await service.call(log.events, group_of(request), after, limit)
    return {
        "events": [{**vars(event), "at": event.at.isoformat()} for event in found],
        "next": found[-1].id if found else after,
    }

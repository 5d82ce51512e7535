"""Monitoring routes: liveness, readiness and metrics; and explanations of problem types."""

import logging

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from service.answers.problems import PROBLEMS, Problem, retry_later
from service.answers.schemas import HealthDocument
from service.context import Context
from service.logs import log_event
from utils.errors import DatabaseError

router = APIRouter(tags=["operation"])


@router.head("/health/live", include_in_schema=False)
@router.get(
    "/health/live",
    summary="Is the process alive?",
    response_model=HealthDocument,
    response_model_exclude_none=True,
)
async def live() -> dict[str, str]:
    """Answers as long as the process runs."""
    return {"status": "alive"}


@router.head("/health/ready", include_in_schema=False)
@router.get(
    "/health/ready",
    summary="Can it serve?",
    response_model=HealthDocument,
    response_model_exclude_none=True,
)
async def ready(service: Context) -> dict[str, str]:
    """Answers 200 if the model is loaded, the database answers and nobody stops it, else 503.

    `warning` says that the token file was changed to something that cannot be read.
    """
    if service.is_stopping:
        raise retry_later("stopping", "the service finishes its requests and stops", 5)
    try:
        await service.call(service.database.ping)
    except DatabaseError as error:
        log_event("not ready", level=logging.WARNING, reason=str(error))
        raise retry_later("not-ready", "the database does not answer", 5) from error
    if service.tokens.defect is not None:
        return {"status": "ready", "warning": "the token file is damaged; see the service's log"}
    return {"status": "ready"}


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format"}},
)
async def show_metrics(service: Context) -> Response:
    """Returns requests, latencies, queue, encodings and decisions."""
    return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")


@router.get("/problems/{code}", response_class=PlainTextResponse, include_in_schema=False)
async def explain_problem(code: str) -> PlainTextResponse:
    """Explains the type of a problem document."""
    if code not in PROBLEMS:
        raise Problem("not-found", "no such problem")
    status, title = PROBLEMS[code]
    return PlainTextResponse(f"{status} {title}.\ndocs/service.md has a row for it.\n")

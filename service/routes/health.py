"""Monitoring routes: liveness, readiness and metrics; and explanations of problem types."""

import contextlib
import logging
from typing import Any

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
async def ready(service: Context) -> dict[str, Any]:
    """Answers 200 if the model is loaded, the database answers and nobody stops it, else 503.

    `warning` says that the token file cannot be read, or the audit log not be written, and
    `other_models` how many recordings cannot be compared since the model was changed.
    """
    if service.is_stopping:
        raise retry_later("stopping", "the service finishes its requests and stops", 5)
    document: dict[str, Any] = {"status": "ready"}
    try:
        await service.call(service.database.ping)
        counts = await service.count_other_models()
    except DatabaseError as error:
        log_event("not ready", level=logging.WARNING, reason=str(error))
        raise retry_later("not-ready", "the database does not answer", 5) from error
    if any(counts.values()):
        document["other_models"] = counts
    warnings = []
    if service.tokens.defect is not None:
        warnings.append("the token file is damaged; see the service's log")
    if service.num_missing_lines:
        warnings.append(
            f"the audit log cannot be written: {service.num_missing_lines} lines are missing"
        )
    if warnings:
        document["warning"] = "; ".join(warnings)
    return document


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format"}},
)
async def show_metrics(service: Context) -> Response:
    """Returns requests, latencies, queue, encodings and decisions."""
    with contextlib.suppress(DatabaseError):
        for sound, number in (await service.count_other_models()).items():
            service.metrics.other_models.labels(sound).set(number)
    return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")


@router.get("/problems/{code}", response_class=PlainTextResponse, include_in_schema=False)
async def explain_problem(code: str) -> PlainTextResponse:
    """Explains the type of a problem document."""
    if code not in PROBLEMS:
        raise Problem("not-found", "no such problem")
    status, title = PROBLEMS[code]
    return PlainTextResponse(f"{status} {title}.\ndocs/service.md has a row for it.\n")

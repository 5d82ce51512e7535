"""Routes of /v1/diarizations: who spoke when in a long recording."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field, ValidationError

from service.answers.problems import Problem, problem_document
from service.answers.schemas import (
    DiarizationDocument,
    EnrolFoundDocument,
    JobDocument,
    JobsDocument,
    SpeakerDocument,
)
from service.context import Context, Service, check_candidates, checked_name, owner_of
from service.diarization.findings import to_rttm, unpack_voice
from service.diarization.jobs import LOST_DETAIL, Order
from service.diarization.upload import UploadForm, read_form
from utils.diarization.clustering import SpeakerCount
from voices.sql.jobs import DONE, LOST, QUEUED, RUNNING, Job

router = APIRouter(prefix="/v1/diarizations", tags=["diarization"])

MAX_SPEAKERS = 100
"""Most speakers that may be asked for."""

Count = Annotated[int | None, Field(ge=1, le=MAX_SPEAKERS)]


class _Fields(BaseModel):
    """The fields of the form beside the recording."""

    num_speakers: Count = None
    min_speakers: Count = None
    max_speakers: Count = None
    candidates: list[str] | None = None


FORM_SCHEMA = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "The recording"},
        "num_speakers": {"type": "integer", "minimum": 1, "maximum": MAX_SPEAKERS},
        "min_speakers": {"type": "integer", "minimum": 1, "maximum": MAX_SPEAKERS},
        "max_speakers": {"type": "integer", "minimum": 1, "maximum": MAX_SPEAKERS},
        "candidates": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Name these speakers only",
        },
    },
}
"""The form, which the route reads itself."""


@router.post(
    "",
    status_code=202,
    summary="Find who spoke when",
    response_model=JobDocument,
    responses={
        202: {
            "headers": {
                "Location": {"description": "Path of the job", "schema": {"type": "string"}}
            }
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": FORM_SCHEMA}},
        }
    },
)
async def start_diarization(
    request: Request, response: Response, service: Context
) -> dict[str, Any]:
    """Takes a recording of any length, and answers with a job that works on it."""
    settings = service.settings
    with service.jobs.place(owner_of(request) if service.auth_required else None):
        form = await read_form(
            request,
            settings.diarization_max_bytes,
            settings.body_timeout_s,
            lambda: service.jobs.is_stopping,
        )
        try:
            order = await _read_order(request, service, form)
            job = await service.call(service.jobs.start, order)
        except BaseException:
            form.close()
            raise
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return _describe(job)


@router.get("", summary="List your jobs", response_model=JobsDocument)
async def list_diarizations(request: Request, service: Context) -> dict[str, Any]:
    """Lists the jobs of this token, the newest first."""
    found = await service.call(service.jobs.of, owner_of(request))
    return {"diarizations": [_describe(job) for job in found]}


@router.get("/{job_id}", summary="Show who spoke when", response_model=DiarizationDocument)
async def show_diarization(request: Request, service: Context, job_id: str) -> dict[str, Any]:
    """Returns state and progress of a job, and the result once it is done."""
    job = await _require(request, service, job_id)
    document = _describe(job)
    if document["state"] == DONE:
        document["result"] = await _result(service, job)
    return document


@router.get(
    "/{job_id}/rttm",
    summary="Get the turns as RTTM",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {}}, "description": "A line a turn"}},
)
async def show_rttm(request: Request, service: Context, job_id: str) -> PlainTextResponse:
    """Returns the turns as RTTM; a speaker without a name is speaker_1, speaker_2, ..."""
    job = await _require(request, service, job_id)
    return PlainTextResponse(to_rttm(await _result(service, job)))


@router.delete("/{job_id}", summary="Cancel or remove a job", response_model=JobDocument)
async def remove_diarization(request: Request, service: Context, job_id: str) -> dict[str, Any]:
    """Ends a job if it is not over, and removes it with all that it found; nothing is left."""
    job = await _require(request, service, job_id)
    document = _describe(job)
    await service.call(service.jobs.cancel, job.id)
    if not await service.call(service.database.jobs.remove, job.id):
        raise _unknown()
    if document["state"] in (QUEUED, RUNNING):
        document["state"] = "cancelled"
    return document


@router.post(
    "/{job_id}/speakers/{label}/enrol",
    status_code=201,
    summary="Enrol a speaker of a recording",
    response_model=SpeakerDocument,
)
async def enrol_found(
    request: Request, service: Context, job_id: str, label: str, document: EnrolFoundDocument
) -> dict[str, Any]:
    """Enrols a speaker from the longest turns in which nobody else speaks, 30 s at most."""
    name = checked_name(document.name)
    job = await _require(request, service, job_id)
    content = await service.call(service.database.jobs.voices, job.id)
    if content is None:
        raise _not_done(job)
    voice, model_id = unpack_voice(content, label)
    if voice is None:
        raise Problem("unknown-label", f"no speaker {label[:20]}; the result lists the labels")
    if model_id != service.encoder.model_id:
        raise Problem("other-model", "this was found with another model; send the recording again")
    remark = "from a diarization"
    speaker = await service.store(request, name, [voice], document.if_exists, remark=remark)
    return service.describe(speaker)


async def _read_order(request: Request, service: Service, form: UploadForm) -> Order:
    """Checks the fields of a form.

    Raises:
        Problem: 404 or 422, if one of them cannot be used.
    """
    sent = {
        name: values if name == "candidates" else values[-1] for name, values in form.fields.items()
    }
    try:
        fields = _Fields.model_validate(sent)
    except ValidationError as error:
        entries = [
            {"field": ".".join(map(str, entry["loc"]))[:200], "message": entry["msg"]}
            for entry in error.errors(include_input=False, include_url=False)
        ]
        detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in entries)
        raise Problem("bad-field", detail[:1000], errors=entries) from error
    least, most = fields.min_speakers or 1, fields.max_speakers
    if fields.num_speakers is not None:
        least = most = fields.num_speakers
    if most is not None and least > most:
        raise Problem("bad-field", f"min_speakers: {least}, expected at most max_speakers, {most}")
    names = None
    if fields.candidates is not None:
        names = await check_candidates(service, request, fields.candidates)
    if form.spool is None:
        raise ValueError("the form was read without a recording")
    count = SpeakerCount(least, most)
    return Order(owner_of(request), form.spool, form.file_name, count, names)


async def _require(request: Request, service: Service, job_id: str) -> Job:
    """Returns a job of the request's token.

    Raises:
        Problem: 404 if there is none.
    """
    job: Job | None = await service.call(service.jobs.find, job_id, owner_of(request))
    if job is None:
        raise _unknown()
    return job


async def _result(service: Service, job: Job) -> dict[str, Any]:
    """Returns what a job found.

    Raises:
        Problem: 409 if it is not done.
    """
    content = await service.call(service.database.jobs.result, job.id)
    if content is None:
        raise _not_done(job)
    result: dict[str, Any] = json.loads(content)
    return result


def _unknown() -> Problem:
    """Returns the problem of a job that is not there, or another token's."""
    return Problem("unknown-job", "no such job: it was removed, has expired, or is another token's")


def _not_done(job: Job) -> Problem:
    """Returns the problem of a job that has no result."""
    return Problem("not-done", f"the job is {job.state}, expected done", state=job.state)


def _describe(job: Job) -> dict[str, Any]:
    """Returns a job as a `JobDocument`."""
    error = None if job.error is None else json.loads(job.error)
    if job.state == LOST and error is None:
        error = problem_document(Problem("lost", LOST_DETAIL))
    return {
        "id": job.id,
        "state": job.state,
        "progress": job.progress,
        "created_at": job.created_at.isoformat(),
        "expires_at": job.expires_at.isoformat(),
        "error": error,
    }

"""Errors as the service answers them: problem documents (RFC 9457) with received and expected."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match, Mount

from service.logs import log_event
from utils.audio.upload import AudioFormatError, AudioTooLongError
from utils.errors import (
    AudioError,
    DamagedVoiceError,
    DatabaseError,
    FileBlockedError,
    OnlyRecordingError,
    SpeakerExistsError,
    TooManyRecordingsError,
    UnknownSpeakerError,
    VoiceprintError,
)

CLASSIC_PREFIX = "/voiceprint/"
"""Paths whose clients expect `{"detail": "..."}` instead of a problem document."""

PROBLEMS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "bad-json": (400, "The body is not JSON"),
    "bad-host": (400, "The request names another host"),
    "unauthorized": (401, "A valid token is needed"),
    "cross-origin": (403, "Pages of other origins may not call this service"),
    "not-found": (404, "There is nothing here"),
    "unknown-speaker": (404, "Nobody of this name is enrolled"),
    "unknown-recording": (404, "The speaker has no such recording"),
    "no-audio-kept": (404, "The recording's sound is not kept"),
    "wrong-method": (405, "This path does not know the method"),
    "slow-client": (408, "The request did not arrive in time"),
    "speaker-exists": (409, "The name is enrolled already"),
    "too-many-recordings": (409, "The speaker would have too many recordings"),
    "only-recording": (409, "A speaker keeps at least one recording"),
    "other-model": (409, "The speaker was enrolled with another model"),
    "damaged": (409, "What is stored of the speaker's voice is damaged"),
    "too-large": (413, "The upload is too large"),
    "too-long": (413, "The recording is too long"),
    "wrong-type": (415, "This is not a form or no audio that can be read"),
    "bad-field": (422, "A field is missing or wrong"),
    "bad-name": (422, "This cannot be a name"),
    "bad-recording": (422, "The recording cannot be used"),
    "too-many-requests": (429, "Too many requests"),
    "locked": (429, "Too many failed verifications"),
    "internal": (500, "The service has made a mistake"),
    "busy": (503, "The service is busy"),
    "files": (503, "A file of the speaker cannot be changed"),
    "database": (503, "The database does not answer"),
    "not-ready": (503, "The service is not ready"),
}
"""Code -> status and title. The type of a problem is "/problems/CODE", and docs/service.md has a
row for each."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
"""Those that some route of the service knows, in the order in which `Allow` names them."""

FALLBACK_CODES = {400: "bad-request", 404: "not-found", 405: "wrong-method", 413: "too-large"}


class Problem(HTTPException):
    """An error that a route or a limit answers.

    Attributes:
        code: Key of `PROBLEMS`.
        extra: Further members of the document, such as received and expected.
    """

    def __init__(
        self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(PROBLEMS[code][0], detail, dict(headers) if headers else None)
        self.code = code
        self.extra = extra


def retry_later(code: str, detail: str, seconds: float, **extra: Any) -> Problem:
    """Returns a problem that says after how many seconds to try again."""
    whole = max(1, int(-(-seconds // 1)))
    return Problem(code, detail, headers={"Retry-After": str(whole)}, retry_after_s=whole, **extra)


def describe_error(error: VoiceprintError) -> Problem:
    """Turns an error of the toolkit into the problem that tells it."""
    text = " ".join(str(error).split())
    if isinstance(error, AudioTooLongError):
        return Problem("too-long", text, expected=f"at most {error.max_duration_s:g} s")
    if isinstance(error, AudioFormatError):
        return Problem("wrong-type", text)
    if isinstance(error, AudioError):
        return Problem("bad-recording", text)
    if isinstance(error, SpeakerExistsError):
        return Problem("speaker-exists", text)
    if isinstance(error, OnlyRecordingError):
        return Problem("only-recording", "the speaker has no other; delete the speaker")
    if isinstance(error, TooManyRecordingsError):
        return Problem("too-many-recordings", text)
    if isinstance(error, UnknownSpeakerError):
        return Problem("unknown-speaker", "nobody of this name is enrolled any more")
    if isinstance(error, DamagedVoiceError):
        return Problem(
            "damaged", "what is stored of this voice cannot be read; enrol the voice again"
        )
    if isinstance(error, FileBlockedError):
        detail = "a file of this speaker cannot be removed; the service's log names it"
        return retry_later("files", detail, 60)
    if isinstance(error, DatabaseError):
        # Its words name the server and are for the log.
        return retry_later("database", "the database does not answer or cannot be written", 5)
    return Problem("internal", "an error of the service; its log tells more")


def problem_response(problem: Problem, path: str) -> JSONResponse:
    """Returns the answer that tells a problem, in the form that the path's clients read."""
    if path.startswith(CLASSIC_PREFIX):
        return JSONResponse({"detail": problem.detail}, problem.status_code, problem.headers)
    status, title = PROBLEMS[problem.code]
    document = {
        "type": f"/problems/{problem.code}",
        "title": title,
        "status": status,
        "detail": problem.detail,
        **problem.extra,
    }
    return JSONResponse(document, status, problem.headers, media_type="application/problem+json")


def describe_validation(error: RequestValidationError, content_type: str) -> Problem:
    """Tells in one problem which fields are wrong, without repeating what was in them."""
    errors = error.errors()
    if any(entry["type"] == "json_invalid" for entry in errors):
        return Problem("bad-json", "the body is not JSON that can be read")
    is_form = content_type.startswith(("multipart/form-data", "application/x-www-form-urlencoded"))
    lacks_file = any(str(entry["loc"][-1]).startswith("file") for entry in errors)
    if lacks_file and not is_form:
        shown = content_type.split(";")[0][:100] or "no content type"
        return Problem("wrong-type", "the body is not a form", received=shown, expected=FORM)
    fields = [
        {"field": ".".join(str(part) for part in entry["loc"])[:200], "message": entry["msg"]}
        for entry in errors
    ]
    detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in fields)
    return Problem("bad-field", detail[:1000], errors=fields)


FORM = "multipart/form-data"


def add_handlers(app: FastAPI) -> None:
    """Makes an application answer all its errors as problems."""

    @app.exception_handler(Problem)
    async def answer_problem(request: Request, error: Problem) -> JSONResponse:
        return problem_response(error, request.url.path)

    @app.exception_handler(VoiceprintError)
    async def answer_voiceprint_error(request: Request, error: VoiceprintError) -> JSONResponse:
        problem = describe_error(error)
        if problem.status_code >= 500 or problem.code == "damaged":
            log_event("error", level=logging.ERROR, reason=str(error))
        return problem_response(problem, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def answer_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        problem = describe_validation(error, request.headers.get("content-type", "").lower())
        return problem_response(problem, request.url.path)

    @app.exception_handler(StarletteHTTPException)
    async def answer_http(request: Request, error: StarletteHTTPException) -> JSONResponse:
        code = FALLBACK_CODES.get(error.status_code, "bad-request")
        detail, headers = str(error.detail), error.headers
        if code == "not-found":
            detail = "no such path; /docs lists them"
        methods = _methods_of(request) if code == "wrong-method" else []
        if methods:
            headers = {"Allow": ", ".join(methods)}
        return problem_response(Problem(code, detail, headers=headers), request.url.path)


def _methods_of(request: Request) -> list[str]:
    """Returns the methods that a path knows, of all its routes; empty for files of the page."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]

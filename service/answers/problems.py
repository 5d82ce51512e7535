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
from utils.errors import (
    AudioError,
    AudioFormatError,
    AudioTooLargeError,
    AudioTooLongError,
    DamagedVoiceError,
    DatabaseError,
    FileBlockedError,
    OnlyRecordingError,
    RepeatedKeyError,
    ReplayedError,
    SpeakerExistsError,
    TooManyRecordingsError,
    TooManySpeakersError,
    UnknownEnrolmentError,
    UnknownSpeakerError,
    UsedChallengeError,
    VoiceprintError,
)

CLASSIC_PREFIX = "/voiceprint/"
"""Paths whose clients expect `{"detail": "..."}` instead of a problem document."""

PROBLEMS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "bad-json": (400, "The body is not JSON"),
    "bad-host": (400, "The host name is not allowed"),
    "unauthorized": (401, "A valid token is required"),
    "missing-scope": (403, "The token does not allow this"),
    "cross-origin": (403, "Pages of other origins may not call this service"),
    "not-found": (404, "Not found"),
    "unknown-speaker": (404, "No speaker with this name is enrolled"),
    "unknown-recording": (404, "The speaker has no such recording"),
    "unknown-job": (404, "There is no such job"),
    "unknown-enrolment": (404, "There is no such enrolment"),
    "unknown-group": (404, "The token reaches no such group"),
    "unknown-label": (404, "The recording has no such speaker"),
    "no-audio-kept": (404, "The recording's audio was not kept"),
    "wrong-method": (405, "The path does not support this method"),
    "slow-client": (408, "The request did not arrive in time"),
    "speaker-exists": (409, "The name is already enrolled"),
    "not-done": (409, "The job has no result"),
    "not-complete": (409, "The enrolment needs more"),
    "voices-differ": (409, "The recordings are not of one voice"),
    "bad-challenge": (409, "The challenge cannot be used"),
    "replayed": (409, "The recording was sent before"),
    "too-many-recordings": (409, "The speaker would have too many recordings"),
    "too-many-speakers": (409, "The group would have too many speakers"),
    "only-recording": (409, "A speaker keeps at least one recording"),
    "other-model": (409, "The speaker was enrolled with another model"),
    "damaged": (409, "The speaker's stored voice data is damaged"),
    "too-large": (413, "The upload is too large"),
    "too-long": (413, "The recording is too long"),
    "wrong-type": (415, "Not a form, or unreadable audio"),
    "bad-field": (422, "A field is missing or invalid"),
    "key-reused": (422, "The Idempotency-Key belongs to another request"),
    "bad-name": (422, "The name is not allowed"),
    "bad-recording": (422, "The recording cannot be used"),
    "too-few-people": (422, "Too few people or recordings to calibrate on"),
    "not-read": (422, "The recording is too short for the digits"),
    "challenge-required": (428, "A challenge is required"),
    "too-many-requests": (429, "Too many requests"),
    "too-fast": (429, "The samples arrive faster than they are spoken"),
    "locked": (429, "Too many failed verifications"),
    "internal": (500, "Internal error"),
    "busy": (503, "The service is busy"),
    "lost": (503, "The job was lost"),
    "stopping": (503, "The service is stopping"),
    "files": (503, "A file of the speaker cannot be changed"),
    "database": (503, "The database is unavailable"),
    "waits-for-model": (503, "The speaker is being embedded by a new model"),
    "not-ready": (503, "The service is not ready"),
    "no-space": (507, "The disk is full"),
}
"""Code -> status and title. The type of a problem is "/problems/CODE", and docs/service.md has a
row for each."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
"""Methods that the routes use, in the order in which `Allow` lists them."""

FALLBACK_CODES = {400: "bad-request", 404: "not-found", 405: "wrong-method", 413: "too-large"}


class Problem(HTTPException):
    """An error response, raised by a route or a limit.

    Attributes:
        code: Key of `PROBLEMS`.
        extra: Further members of the document, for example received and expected.
    """

    def __init__(
        self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(PROBLEMS[code][0], detail, dict(headers) if headers else None)
        self.code = code
        self.extra = extra


def retry_later(code: str, detail: str, seconds: float, **extra: Any) -> Problem:
    """Returns a problem with the seconds to wait before trying again."""
    whole = max(1, int(-(-seconds // 1)))
    return Problem(code, detail, headers={"Retry-After": str(whole)}, retry_after_s=whole, **extra)


def too_large(size: int, limit: int) -> Problem:
    """Returns the problem of an upload of `size` bytes or more that states the limit."""
    return Problem(
        "too-large",
        f"the upload has more than {limit} bytes; send a shorter recording, or mp3 or ogg",
        received=f"{size} bytes or more",
        expected=f"at most {limit} bytes",
    )


ERRORS: tuple[tuple[type[VoiceprintError], str, str | None], ...] = (
    (AudioFormatError, "wrong-type", None),
    (AudioError, "bad-recording", None),
    (SpeakerExistsError, "speaker-exists", None),
    (OnlyRecordingError, "only-recording", "the speaker has no other; delete the speaker"),
    (TooManyRecordingsError, "too-many-recordings", None),
    (TooManySpeakersError, "too-many-speakers", None),
    (UnknownEnrolmentError, "unknown-enrolment", None),
    (UsedChallengeError, "bad-challenge", None),
    (ReplayedError, "replayed", None),
    (UnknownSpeakerError, "unknown-speaker", "this speaker is no longer enrolled"),
    (RepeatedKeyError, "key-reused", None),
    (DamagedVoiceError, "damaged", "the stored voice data cannot be read; enrol the speaker again"),
)
"""Errors with code and detail, None for the error's own text; the first that fits counts."""


def describe_error(error: VoiceprintError) -> Problem:
    """Converts an error of the toolkit into a problem."""
    text = " ".join(str(error).split())
    if isinstance(error, AudioTooLongError):
        return Problem("too-long", text, expected=f"at most {error.max_duration_s:g} s")
    if isinstance(error, AudioTooLargeError):
        return Problem("too-large", text, expected=f"at most {error.max_bytes:.0f} bytes")
    if isinstance(error, FileBlockedError):
        detail = "a file of this speaker cannot be removed; the service's log names it"
        return retry_later("files", detail, 60)
    for kind, code, own_detail in ERRORS:
        if isinstance(error, kind):
            return Problem(code, own_detail or text)
    if isinstance(error, DatabaseError):
        # The error's text names the server, so it goes only into the log.
        return retry_later("database", "the database does not answer or cannot be written", 5)
    return Problem("internal", "internal error; see the service's log")


def problem_response(problem: Problem, path: str) -> JSONResponse:
    """Returns a problem as a response, in the format that the path's clients expect."""
    if path.startswith(CLASSIC_PREFIX):
        return JSONResponse({"detail": problem.detail}, problem.status_code, problem.headers)
    document = problem_document(problem)
    media_type = "application/problem+json"
    return JSONResponse(document, problem.status_code, problem.headers, media_type=media_type)


def problem_document(problem: Problem) -> dict[str, Any]:
    """Returns the members of a problem document."""
    status, title = PROBLEMS[problem.code]
    return {
        "type": f"/problems/{problem.code}",
        "title": title,
        "status": status,
        "detail": problem.detail,
        **problem.extra,
    }


def describe_validation(error: RequestValidationError, content_type: str) -> Problem:
    """Returns one problem that lists the invalid fields, without repeating their contents."""
    errors = error.errors()
    if any(entry["type"] == "json_invalid" for entry in errors):
        return Problem("bad-json", "the body is not valid JSON")
    is_form = content_type.startswith(("multipart/form-data", "application/x-www-form-urlencoded"))
    lacks_file = any(str(entry["loc"][-1]).startswith("file") for entry in errors)
    if lacks_file and not is_form:
        shown = content_type.split(";")[0][:100] or "no content type"
        return Problem("wrong-type", "the body is not a form", received=shown, expected=FORM)
    fields = [
        {"field": ".".join(str(part) for part in entry["loc"])[:200], "message": _message(entry)}
        for entry in errors
    ]
    detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in fields)
    return Problem("bad-field", detail[:1000], errors=fields)


def _message(entry: dict[str, Any]) -> str:
    """Returns what is wrong with a field."""
    if "UploadFile" in entry["msg"]:
        return (
            "received a text, expected a recording: the part has no filename (filename* alone "
            "does not count); add filename=a.wav"
        )
    if entry["type"] == "missing" and str(entry["loc"][-1]).startswith("file"):
        return f"{entry['msg']}: no complete part of this name; check name and last boundary"
    return str(entry["msg"])


FORM = "multipart/form-data"


def add_handlers(app: FastAPI) -> None:
    """Makes an application answer every error with a problem."""

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
    """Returns the methods that a path's routes support; empty for the page's files."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]

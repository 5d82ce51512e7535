"""What each route needs: the one place where that is declared.

A new route gets one line in `ROUTES`; tests/service/edge/test_scopes.py fails without it.
"""

import re
from functools import lru_cache

SCOPES = ("enrol", "verify", "identify", "administer", "read")
"""What a token may be allowed: to enrol and add recordings; to verify or compare; to search among
all; to rename, delete and hear; to list speakers, events and figures."""

OPEN = "open"
"""Needs no token."""

ANY = "any"
"""Needs a token, whatever its scopes."""

ROUTES = {
    "GET /health/live": OPEN,
    "GET /health/ready": OPEN,
    "GET /metrics": "read",
    "GET /v1/info": OPEN,
    "GET /v1/events": "read",
    "POST /v1/quality": ANY,
    "POST /v1/compare": "verify",
    "POST /v1/embed": "enrol",
    "POST /v1/identify": "identify",
    "POST /v1/challenges": ANY,
    "POST /v1/speakers": "enrol",
    "GET /v1/speakers": "read",
    "GET /v1/speakers/{name}": "read",
    "PATCH /v1/speakers/{name}": "administer",
    "DELETE /v1/speakers/{name}": "administer",
    "POST /v1/speakers/{name}/verify": "verify",
    "POST /v1/speakers/{name}/recordings": "enrol",
    "PUT /v1/speakers/{name}/recordings": "enrol",
    "DELETE /v1/speakers/{name}/recordings/{recording_id}": "administer",
    "GET /v1/speakers/{name}/recordings/{recording_id}/audio": "administer",
    "POST /v1/enrolments": "enrol",
    "GET /v1/enrolments/{enrolment_id}": "enrol",
    "DELETE /v1/enrolments/{enrolment_id}": "enrol",
    "POST /v1/enrolments/{enrolment_id}/recordings": "enrol",
    "PATCH /v1/enrolments/{enrolment_id}/recordings/{number}": "enrol",
    "DELETE /v1/enrolments/{enrolment_id}/recordings/{number}": "enrol",
    "POST /v1/enrolments/{enrolment_id}/finish": "enrol",
    "POST /v1/calibrations/recordings": "administer",
    "POST /v1/calibrations": "administer",
    "POST /v1/bulk_enrolments": "enrol",
    "POST /v1/diarizations": "identify",
    "GET /v1/diarizations": "identify",
    "GET /v1/diarizations/{job_id}": "identify",
    "GET /v1/diarizations/{job_id}/rttm": "identify",
    "DELETE /v1/diarizations/{job_id}": "identify",
    "POST /v1/diarizations/{job_id}/speakers/{label}/enrol": "enrol",
    "WEBSOCKET /v1/stream": "identify",
    "GET /voiceprint/docs": OPEN,
    "GET /voiceprint/redoc": OPEN,
    "GET /voiceprint/openapi.json": OPEN,
    "GET /voiceprint/health": ANY,
    "POST /voiceprint/register": "enrol",
    "POST /voiceprint/identify": "identify",
    "DELETE /voiceprint/{speaker_id:path}": "administer",
}
"""Method and template of a path -> its scope, `OPEN` or `ANY`. HEAD needs what GET needs; a
WebSocket's method is WEBSOCKET. Of two templates that fit a path the first one counts."""


def needed_scope(method: str, path: str) -> str | None:
    """Returns what a request needs; None for a path or a method that the API does not have."""
    method = "GET" if method == "HEAD" else method
    for pattern, need in _patterns(method):
        if pattern.fullmatch(path):
            return need
    return None


@lru_cache(maxsize=16)
def _patterns(method: str) -> list[tuple[re.Pattern[str], str]]:
    """Returns the patterns of a method's paths."""
    rows = ([*entry.split(" ", 1), need] for entry, need in ROUTES.items())
    return [(_pattern(template), need) for verb, template, need in rows if verb == method]


def _pattern(template: str) -> re.Pattern[str]:
    """Returns the pattern of a path; `{name:path}` may hold slashes."""
    text = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
    return re.compile(re.sub(r"\\{\w+:path\\}", ".+", text))

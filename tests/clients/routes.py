"""Which routes of the service a client has called."""

import re
from typing import Any

import httpx

from tests.support.service_client import TOKEN

JOBS = ("/v1/diarizations",)
"""What the paths begin with that need the real network, and are called by a test of their own."""


def documented_routes(url: str, left_out: tuple[str, ...] = JOBS) -> set[tuple[str, str]]:
    """Returns `(METHOD, path)` of all of /v1 in the OpenAPI document."""
    paths: dict[str, Any] = _get(f"{url}/openapi.json").json()["paths"]
    routes = {(m.upper(), path) for path, methods in paths.items() for m in methods}
    return {
        (m, path) for m, path in routes if path.startswith("/v1/") and not path.startswith(left_out)
    }


def called_routes(url: str) -> set[tuple[str, str]]:
    """Returns `(METHOD, path)` of what was answered with success."""
    lines = _get(f"{url}/metrics").text
    labels = r'voiceprint_requests_total\{method="(\w+)",route="([^"]+)",status="2\d\d"'
    return set(re.findall(labels, lines))


def _get(url: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.get(url, headers=headers, timeout=30).raise_for_status()

"""Metrics and a log line for every request, security headers and an id for every answer."""

import re
import time
import uuid
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.answers.problems import Problem, problem_response
from service.edge.pages import CLASSIC_PAGES
from service.edge.security import security_headers
from service.logs import log_event, log_failure
from service.metrics import Metrics

QUIET_ROUTES = {"/health/live", "/health/ready", "/metrics", "/static"}
"""Routes that machines poll every few seconds; successful requests are not logged."""

API_PREFIXES = ("/v1/", "/voiceprint/", "/health/", "/metrics", "/problems/", "/openapi.json")


class Observation:
    """The outermost ASGI middleware: every request and answer passes through it."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, templates: Callable[[], Iterable[str]]
    ) -> None:
        """Wraps an application.

        Args:
            app: The application to observe.
            metrics: Counts the requests.
            templates: Returns the path templates of the API, for example /v1/speakers/{name}.
        """
        self.app = app
        self.metrics = metrics
        self._templates = templates
        self._patterns: list[tuple[re.Pattern[str], str]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on; an unexpected error becomes a 500 without details."""
        if scope["type"] == "websocket":
            await self._watch_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = uuid.uuid4().hex
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message.get("headers", ())}
                added = [pair for pair in _headers(scope["path"]) if pair[0] not in present]
                added.append((b"x-request-id", request_id.encode()))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send_observed)
        except Exception as error:
            log_failure("unexpected error", error, request_id=request_id, route=self._route(scope))
            if status:
                raise
            problem = Problem("internal", f"see the service's log for request {request_id}")
            await problem_response(problem, scope["path"])(scope, receive, send_observed)
        finally:
            self.metrics.in_flight.dec()
            self._note(scope, status, time.perf_counter() - start, request_id)

    async def _watch_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a WebSocket on; its one log line comes when it ends, with the code it ended by."""
        start = time.perf_counter()
        request_id = uuid.uuid4().hex
        code = 0

        async def receive_observed() -> Message:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = code or message.get("code", 0)
            return message

        async def send_observed(message: Message) -> None:
            nonlocal code
            if message["type"] == "websocket.http.response.start":
                code = message["status"]
                message["headers"] = [*message.get("headers", ()), *API_HEADERS]
            elif message["type"] == "websocket.close":
                code = code or message.get("code", 1000)
            await send(message)

        try:
            await self.app(scope, receive_observed, send_observed)
        except Exception as error:
            # A client that vanished while it was being answered is no error of the service.
            if not code:
                log_failure("unexpected error", error, request_id=request_id, route=scope["path"])
        finally:
            log_event(
                "stream",
                route=self._route(scope),
                status=code,
                ms=round((time.perf_counter() - start) * 1000, 1),
                actor=scope.get("state", {}).get("actor"),
                client=scope["client"][0] if scope.get("client") else None,
                request_id=request_id,
            )

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        """Counts and logs an answered request."""
        route = self._route(scope)
        self.metrics.observe_request(scope["method"], route, status, seconds)
        if route in QUIET_ROUTES and status < 400:
            return
        log_event(
            "request",
            method=scope["method"][:20],
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            actor=scope.get("state", {}).get("actor"),
            client=scope["client"][0] if scope.get("client") else None,
            request_id=request_id,
        )

    def _route(self, scope: Scope) -> str:
        """Returns the template of the path: speakers' names stay out of logs and metrics."""
        path = getattr(scope.get("route"), "path", None)
        if isinstance(path, str):
            return path or "/"
        if scope["path"].startswith("/static/"):
            return "/static"
        # The gate refused the request before routing.
        if self._patterns is None:
            self._patterns = [
                (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))), template)
                for template in self._templates()
            ]
        found = (name for pattern, name in self._patterns if pattern.fullmatch(scope["path"]))
        return next(found, "other")


def _headers(path: str) -> list[tuple[bytes, bytes]]:
    """Returns the headers of every answer on a path, encoded."""
    if path.startswith(API_PREFIXES) and path not in CLASSIC_PAGES:
        return API_HEADERS
    return _encoded(security_headers(path, is_page=True))


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Returns headers in ASGI's format."""
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


API_HEADERS = _encoded(security_headers("/v1/", is_page=False))
"""The API's headers, always the same."""

"""The gate before all routes: origin, token, rate and body are checked before a route sees them.

The body is read here, in memory and within its limits: unauthenticated uploads are never read, and
incomplete requests take no place in the queue.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import parse_qs

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.answers.problems import (
    CLASSIC_PREFIX,
    Problem,
    problem_response,
    retry_later,
    too_large,
)
from service.edge.counters import Counter
from service.edge.encodings import check_encodings
from service.edge.limits import FAILED_TOKENS_A_MINUTE, RateLimiter
from service.edge.scopes import ANY, OPEN, needed_scope
from service.edge.token_file import Grant
from service.edge.tokens import LOCAL, Tokens
from service.settings import LOOPBACK, Settings

PROTECTED_PREFIXES = ("/v1/", "/voiceprint/", "/metrics")
GROUP_HEADER = "voiceprint-group"
"""In which group a request acts whose token reaches all of them."""

HEALTH_PATH = "/voiceprint/health"
"""The only path with its token in the query, as ?key=."""

STREAMED = {("POST", "/v1/diarizations")}
"""What reads its body itself, with limits of its own: an hour of sound does not fit the memory."""

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

DRAIN_S = 2.0
"""Seconds for which the rest of a refused upload is read and dropped: a client cannot read the
answer while it is still sending."""

ALLOWED_HOSTS = LOOPBACK | {"[::1]"}


class Gate:
    """ASGI middleware that admits or refuses requests, and passes on body and token."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        tokens: Tokens,
        check_room: Callable[[], None],
        counter: Counter,
    ) -> None:
        """Wraps an application; `check_room` raises Problem if no recording can be accepted now."""
        self.app = app
        self.settings = settings
        self.tokens = tokens
        self.check_room = check_room
        self.rates = RateLimiter("rate", settings.rate_limit, counter)
        self.classic_rates = RateLimiter("classic", settings.classic_rate_limit, counter)
        self.failures = RateLimiter("failed", FAILED_TOKENS_A_MINUTE, counter)
        self.group_rates = {
            name: RateLimiter("group", limits.rate_limit, counter)
            for name, limits in settings.groups.items()
            if limits.rate_limit is not None
        }
        self._num_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers with a problem."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["type"] == "websocket":
            await self._pass_socket(scope, headers, receive, send)
            return
        held = 0
        is_finished = "content-length" not in headers and "transfer-encoding" not in headers

        has_begun = "expect" not in headers

        async def receive_noted() -> Message:
            nonlocal is_finished, has_begun
            has_begun = True
            message = await receive()
            is_finished = not message.get("more_body", False)
            return message

        async def send_read(message: Message) -> None:
            # A client cannot read an answer while it is still sending.
            if message["type"] == "http.response.start" and has_begun and not is_finished:
                await _drain(receive)
            await send(message)

        try:
            try:
                _check_framing(headers)
                self._check_origin(scope["method"], headers)
                await self._admit(scope, headers)
                if (scope["method"], scope["path"]) in STREAMED:
                    check_encodings(scope, Headers(raw=[]), ())
                    await self.app(scope, receive_noted, send_read)
                    return
                if headers.get("content-type", "").lower().startswith("multipart/"):
                    self.check_room()
                chunks = deque() if is_finished else await self._read_body(headers, receive_noted)
                held = sum(map(len, chunks))
                if scope["path"].startswith(PROTECTED_PREFIXES):
                    check_encodings(scope, headers, chunks)
            except Problem as problem:
                if has_begun and not is_finished:
                    await _drain(receive)
                await problem_response(problem, scope["path"])(scope, receive, send)
                return
            await self.app(scope, _replay(chunks, receive), send)
        finally:
            self._num_held -= held

    async def _pass_socket(
        self, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None:
        """Passes a WebSocket on, or refuses it with a problem before it opens.

        Browsers send any page's handshake, and cannot add a token to it: the origin is always
        checked, and the route asks for the token that the first frame brings, by `admit` in the
        state.
        """
        need = needed_scope("WEBSOCKET", scope["path"])
        address = scope["client"][0] if scope.get("client") else "unknown"

        async def admit(presented: str | None, group: str | None = None) -> Grant:
            grant = await self._grant_of(presented, address)
            if grant is None:
                raise Problem("unauthorized", "no valid token was sent; send it as token")
            self._check_scope(grant, need)
            return self._in_group(grant, group)

        try:
            self._check_origin("WEBSOCKET", headers)
            if need is None:
                raise Problem("not-found", "no such path; /docs lists them")
            presented = _bearer(headers)
            state = scope.setdefault("state", {})
            state["admit"], state["token"] = admit, presented
            grant = await admit(presented) if presented or not self.tokens.are_required else None
            state["grant"], state["actor"] = grant, grant and grant.name
            await self.rates.check(f"token {grant.name}" if grant else f"address {address}")
        except Problem as problem:
            await problem_response(problem, scope["path"])(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check_origin(self, method: str, headers: Headers) -> None:
        """Keeps other web pages in this machine's browser from using the service.

        Without a token, the loopback address is the only guard: any page could send forms here, or
        reach the service through its own domain name that resolves to 127.0.0.1.
        """
        host = headers.get("host", "")
        if not self.tokens.are_required and _host_name(host) not in ALLOWED_HOSTS:
            raise Problem(
                "bad-host",
                "without tokens the service answers only as localhost",
                received=host[:200],
                expected="localhost or 127.0.0.1",
            )
        origin = headers.get("origin")
        if method in SAFE_METHODS or origin is None or origin == self.settings.cors_origin:
            return
        if origin.partition("://")[2] != host:
            raise Problem(
                "cross-origin",
                "this page may not call the service; --cors_origin would allow it",
                received=origin[:200],
            )

    async def _admit(self, scope: Scope, headers: Headers) -> None:
        """Checks token, scope and rate.

        Puts into the state what the token allows as `grant`, and its name as `actor`; both None
        without one.
        """
        path: str = scope["path"]
        address = scope["client"][0] if scope.get("client") else "unknown"
        need = needed_scope(scope["method"], path)
        grant = await self._find_grant(scope, headers, address, need)
        if grant is not None:
            grant = self._in_group(grant, headers.get(GROUP_HEADER))
        state = scope.setdefault("state", {})
        state["grant"], state["actor"] = grant, grant and grant.name
        is_free = scope["method"] == "OPTIONS" or not path.startswith(PROTECTED_PREFIXES)
        # Unauthenticated uploads are read on no path: they would use up the memory for others.
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if grant is None and (has_body or not (is_free or need == OPEN)):
            raise Problem(
                "unauthorized",
                "no valid token was sent; send Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="voiceprint"'},
            )
        if is_free:
            return
        rates = self.classic_rates if path.startswith(CLASSIC_PREFIX) else self.rates
        await rates.check(f"token {grant.name}" if grant else f"address {address}")
        if grant is not None:
            if grant.group in self.group_rates:
                await self.group_rates[grant.group].check(grant.group)
            self._check_scope(grant, need)

    async def _find_grant(
        self, scope: Scope, headers: Headers, address: str, need: str | None
    ) -> Grant | None:
        """Returns what the presented token allows, None without a valid one."""
        presented = _bearer(headers)
        if scope["path"] == HEALTH_PATH and not presented:
            query = parse_qs(scope["query_string"].decode("latin-1"))
            presented = query.get("key", [""])[0]
        try:
            return await self._grant_of(presented, address)
        except Problem as problem:
            if need == OPEN and problem.code == "unauthorized":
                return None
            raise

    async def _grant_of(self, presented: str | None, address: str) -> Grant | None:
        """Returns what a token allows, None if it is not valid.

        Raises:
            Problem: 401 if it has expired, 429 after many wrong ones from an address.
        """
        if not self.tokens.are_required:
            return LOCAL
        if not presented:
            return None
        grant = self.tokens.find(presented.strip())
        if grant is None:
            # Only failures count: wrong tokens from an address don't block valid ones from it.
            await self.failures.check(address)
        return grant

    def _in_group(self, grant: Grant, wanted: str | None) -> Grant:
        """Returns what a token allows in the group that a request wants to act in.

        Raises:
            Problem: 404, if it does not reach the group, or there is none.
        """
        if wanted in (None, grant.group):
            return grant
        if not (grant.reaches_all and wanted in self.tokens.groups | self.settings.groups.keys()):
            raise Problem(
                "unknown-group",
                f"the token {grant.name} reaches no such group",
                received=str(wanted)[:50],
            )
        return replace(grant, group=wanted)

    def _check_scope(self, grant: Grant, need: str | None) -> None:
        """Raises Problem if a token does not allow what a route needs."""
        if need in (None, OPEN, ANY) or need in grant.scopes:
            return
        self.tokens.note_refusal(grant, f"lacks {need}")
        scopes = ", ".join(sorted(grant.scopes))
        raise Problem(
            "missing-scope",
            f"the token {grant.name} lacks the scope {need}; it has {scopes}",
            headers={
                "WWW-Authenticate": f'Bearer realm="voiceprint", error="insufficient_scope", '
                f'scope="{need}"'
            },
            scope=need,
        )

    async def _read_body(self, headers: Headers, receive: Receive) -> deque[bytes]:
        """Reads a whole body within the limits on size, total memory and time."""
        chunks: deque[bytes] = deque()
        declared = headers.get("content-length", "")
        limit = self.settings.max_upload_bytes
        if declared.isdigit() and int(declared) > limit:
            raise too_large(int(declared), limit)
        size = 0
        try:
            # One timer for all pieces: asyncio.wait_for would start a task for each.
            with anyio.fail_after(self.settings.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem("bad-request", "the client went away")
                    chunk: bytes = message.get("body", b"")
                    size += len(chunk)
                    self._num_held += len(chunk)
                    if size > limit:
                        raise too_large(size, limit)
                    if self._num_held > self.settings.max_bodies_bytes:
                        raise retry_later("busy", "too many uploads at a time", 2)
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return chunks
        except BaseException as error:
            self._num_held -= size
            if isinstance(error, TimeoutError):
                raise Problem(
                    "slow-client",
                    f"{size} bytes arrived in {self.settings.body_timeout_s:g} s",
                    headers={"Connection": "close"},
                ) from error
            raise


def _bearer(headers: Headers) -> str:
    """Returns the token of the Authorization header, or ""."""
    scheme, _, presented = headers.get("authorization", "").partition(" ")
    return presented if scheme.lower() == "bearer" else ""


def _check_framing(headers: Headers) -> None:
    """Refuses a request that says its length in two ways, as smuggled ones do (RFC 9112, 6.1)."""
    if "content-length" in headers and "transfer-encoding" in headers:
        raise Problem(
            "bad-request",
            "received Content-Length and Transfer-Encoding, expected one of them",
            headers={"Connection": "close"},
        )


def _host_name(host: str) -> str:
    """Returns a Host header without its port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.lower()


def _replay(chunks: deque[bytes], receive: Receive) -> Receive:
    """Returns a receive function that replays a body and releases its memory."""
    is_replayed = False

    async def replay() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        chunk = chunks.popleft() if chunks else b""
        is_replayed = not chunks
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    return replay


async def _drain(receive: Receive) -> None:
    """Reads and drops the rest of a refused upload, for a short time."""
    deadline = time.monotonic() + DRAIN_S
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except asyncio.TimeoutError:
            return
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return

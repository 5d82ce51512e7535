"""The server: uvicorn with limits on connections, its own signals, and one line at the end."""

import asyncio
import contextlib
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.logs import log_event
from service.settings import ServiceError, Settings
from utils.messages import translate


def _answer(status: bytes, text: bytes) -> bytes:
    """Returns a whole response that ends the connection."""
    head = b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    return head % status + b"content-length: %d\r\n\r\n%b" % (len(text), text)


SLOW_ANSWER = _answer(b"408 Request Timeout", b"the headers did not arrive in time\n")
FULL_ANSWER = _answer(b"503 Service Unavailable\r\nretry-after: 5", b"too many connections\n")

MAX_OPEN_FILES = 10_240
"""Open files for the process, the most that macOS grants. Every connection is one: idle clients
alone can exhaust the usual limits of 256 or 1,024."""

MAX_MESSAGE_BYTES = 1 << 20
"""Longest message of a WebSocket; the stream's own limit is lower, and closes with a reason."""

RESERVED_FILES = 150
"""Open files kept for the database, libraries and ffmpeg."""

STOPPING_ANSWER = _answer(
    b"503 Service Unavailable\r\nretry-after: 5", b"the service is stopping\n"
)

FIRST_REQUEST_S = 1.0
"""Seconds that a new connection has for its first request when the service stops."""

LAST_UPLOAD_S = 5.0
"""Seconds that an upload may still take to arrive when the service stops."""

FULL_NOTE_S = 60.0
"""Seconds between two log lines about refused connections."""


def bind_socket(settings: Settings) -> socket.socket:
    """Binds the port first, since loading a model may take seconds.

    Raises:
        ServiceError: If the address is in use or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named: asyncio sends small answers at once on such sockets only.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ServiceError(
            f"cannot listen on {settings.host} port {settings.port} ({reason}); "
            "stop the other program or choose another --port"
        ) from error
    return bound


def run_server(
    app: FastAPI,
    settings: Settings,
    bound: socket.socket,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None] = lambda: None,
) -> int:
    """Serves until Ctrl-C or SIGTERM, then finishes the accepted requests.

    Returns:
        The number of the signal that stopped it, or 0.
    """
    max_connections, backlog = allow_connections()
    config = uvicorn.Config(
        app,
        http=make_protocol(settings.header_timeout_s, max_connections),
        ws=StreamProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=backlog,
        timeout_graceful_shutdown=int(settings.stop_timeout_s),
    )
    tell = log_event if settings.json_logs else print_to_stderr
    server = Server(config, on_ready, on_stop, settings.drain_s, tell)
    server.run(sockets=[bound])
    return server.signal_number


class StreamProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which takes a refused handshake for a forgotten one."""

    async def send(self, message: Any) -> None:
        """Sends a message; a refusal that is whole completes the handshake."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True


def print_to_stderr(note: str) -> None:
    """Prints a line below the ^C of the terminal."""
    print(f"\n{note}", file=sys.stderr, flush=True)


class Server(uvicorn.Server):
    """uvicorn's server, which prints a line when stopped instead of dying by the signal.

    Attributes:
        signal_number: The signal that stopped it, or 0.
    """

    signal_number = 0

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None] = lambda: None,
        drain_s: float = 0.0,
        tell: Callable[[str], None] = print_to_stderr,
    ) -> None:
        super().__init__(config)
        self._tell = tell
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._drain_s = drain_s
        self._stop_at = math.inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops after the accepted requests; a second signal stops at once.

        SIGTERM comes from systemd, Docker or Kubernetes: load balancers are given time to notice
        that the service is no longer ready.
        """
        if self.signal_number:
            self.force_exit = self.should_exit = True
            return
        self.signal_number = sig
        self._on_stop()
        num_open = len(self.server_state.tasks)
        self._tell(translate(f"Stopping: finishing {num_open} requests."))
        self._stop_at = time.monotonic() + (self._drain_s if sig == signal.SIGTERM else 0)

    async def on_tick(self, counter: int) -> bool:
        """Tells, ten times a second, whether it is time to stop."""
        self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the port, and finishes what was accepted."""
        # Connections that the system has accepted would be reset: they are taken first. In the
        # second of these rounds of the event loop all are that were there in the first one.
        for _ in range(2):
            await asyncio.sleep(0)
        await super().shutdown(sockets)


def allow_connections() -> tuple[int, int]:
    """Raises the limit on open files as far as possible, and divides the files up.

    The process must accept a connection before it can refuse it, so two full backlogs are kept
    free beside the allowed connections.

    Returns:
        Connections at a time, and how many the system queues until the process accepts them.
    """
    num_files = MAX_OPEN_FILES
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < MAX_OPEN_FILES:
            num_files = MAX_OPEN_FILES if hard < 0 else min(hard, MAX_OPEN_FILES)
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (num_files, hard))
            except (OSError, ValueError):
                num_files = soft
    backlog = num_files // 8
    num_left = num_files - 2 * backlog
    return max(num_left - RESERVED_FILES, num_left // 4), backlog


def make_protocol(header_timeout_s: float, max_connections: int) -> type[H11Protocol]:
    """Returns uvicorn's HTTP protocol with limits on connections and on the time of each.

    uvicorn waits forever for a client that sends nothing, half a header, or less than the whole
    body of a request that has been answered: a few thousand of those would use up all connections
    and the database's open files (tests/service/edge/test_server.py attacks with each).
    """
    noted_at = -FULL_NOTE_S

    def note_full() -> None:
        nonlocal noted_at
        if time.monotonic() >= noted_at + FULL_NOTE_S:
            noted_at = time.monotonic()
            log_event("connections refused", level=logging.WARNING, limit=max_connections)

    class PunctualProtocol(H11Protocol):
        """Closes connections whose request does not begin, or does not end, in time."""

        _timer: asyncio.TimerHandle | None = None
        _is_upgraded = False
        _is_last = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                self._close_with(FULL_ANSWER)
                note_full()
            else:
                self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_last and self.cycle is not None:
                self.cycle.keep_alive = False
            self._watch()

        def shutdown(self) -> None:
            """Ends the connection when the service stops: after its request, if one is due."""
            if self.cycle is not None or self._is_upgraded:
                super().shutdown()
                self.loop.call_later(LAST_UPLOAD_S, self._close_half)
            else:
                # It is new: its first request may be under way.
                self._is_last = True
                self.loop.call_later(FIRST_REQUEST_S, self._close_unused)

        def _close_unused(self) -> None:
            if self.cycle is None and not self._is_upgraded:
                self._close_with(b"")

        def _close_half(self) -> None:
            """Gives up an upload that does not arrive: it has not been accepted."""
            is_due = self.cycle is not None and not self.cycle.response_complete
            if is_due and not self._is_upgraded and self.conn.their_state is h11.SEND_BODY:
                self._close_with(b"" if self.cycle.response_started else STOPPING_ANSWER)

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            # From here on the connection is another protocol's, which has limits of its own.
            self._is_upgraded = True
            super().handle_websocket_upgrade(event)

        def _watch(self) -> None:
            """Starts the time of a client that owes something, ends that of one that does not."""
            if not self._client_owes():
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
            elif self._timer is None and self.timeout_keep_alive_task is None:
                self._timer = self.loop.call_later(header_timeout_s, self._give_up)

        def _client_owes(self) -> bool:
            """Whether the server waits for a request, or for the rest of an answered one."""
            if self._is_upgraded:
                return False
            is_answered = self.cycle is None or self.cycle.response_complete
            state = self.conn.their_state
            return state is h11.IDLE or (state is h11.SEND_BODY and is_answered)

        def _give_up(self) -> None:
            self._timer = None
            if self._client_owes():
                self._close_with(SLOW_ANSWER if self.conn.their_state is h11.IDLE else b"")

        def _close_with(self, answer: bytes) -> None:
            if not self.transport.is_closing():
                self.transport.write(answer)
                self.transport.close()

    return PunctualProtocol

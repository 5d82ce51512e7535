"""The server: uvicorn with time limits for headers, its own signals, and one line at the end."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import httptools
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.logs import log_event
from service.settings import ServiceError, Settings

SLOW_BODY = b"the headers did not arrive in time\n"
SLOW_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(SLOW_BODY), SLOW_BODY)
)

FULL_BODY = b"too many connections\n"
FULL_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"retry-after: 5\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    % (len(FULL_BODY), FULL_BODY)
)

MAX_OPEN_FILES = 10_240
"""Open files that the process asks for, the most that macOS grants. Every connection is one: the
usual limits of 256 or 1,024 are reached by clients that only connect and wait."""

RESERVED_FILES = 150
"""Open files beside the connections: those of the database, of libraries and of ffmpeg."""

FULL_NOTE_S = 60.0
"""Seconds between two lines in the log about refused connections."""

MAX_HEADER_BYTES = 65_536
"""Bytes of a request before its body; browsers send a few thousand."""

BACKLOG = 2048
"""Connections that the system holds until the process takes them."""


def bind_socket(settings: Settings) -> socket.socket:
    """Takes the port, before the seconds that loading a model may need.

    Raises:
        ServiceError: If the address is not of this machine or is in use.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
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
    app: FastAPI, settings: Settings, bound: socket.socket, on_ready: Callable[[], None]
) -> int:
    """Serves until Ctrl-C or SIGTERM, and finishes what was accepted.

    Args:
        app: The application.
        settings: Time limits.
        bound: The port.
        on_ready: Called once when connections are accepted.

    Returns:
        The signal that ended it, or 0.
    """
    config = uvicorn.Config(
        app,
        http=make_protocol(settings.header_timeout_s, allow_connections()),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=int(settings.stop_timeout_s),
    )
    server = Server(config, on_ready)
    server.run(sockets=[bound])
    return server.signal_number


class Server(uvicorn.Server):
    """uvicorn's server, which ends with a line instead of a signal.

    Attributes:
        signal_number: What ended it, or 0.
    """

    signal_number = 0

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles Ctrl-C and SIGTERM while the server runs."""
        signals = [signal.SIGINT, signal.SIGTERM]
        before = {number: signal.signal(number, self.stop) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Ends the service after what was accepted; a second signal ends it at once."""
        if self.should_exit:
            self.force_exit = True
        else:
            num_open = len(self.server_state.tasks)
            print(f"\nStopping: finishing {num_open} requests.", file=sys.stderr, flush=True)
        self.should_exit = True
        self.signal_number = number


class Corked:
    """A transport that joins the pieces of an answer: one call of the system instead of two."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keeps a piece until the running step of the event loop is over."""
        if data:
            if not self._pieces:
                asyncio.get_running_loop().call_soon(self._flush)
            self._pieces.append(data)

    def close(self) -> None:
        """Sends what was kept, and closes the connection."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def allow_connections() -> int:
    """Raises the limit of open files as far as it goes; returns how many may be connections."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return MAX_OPEN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    num_files = most if soft == resource.RLIM_INFINITY else max(soft, most)
    return max(num_files - RESERVED_FILES, num_files // 2)


def make_protocol(header_timeout_s: float, max_connections: int) -> type[HttpToolsProtocol]:
    """Returns uvicorn's HTTP protocol with limits on connections, and on the headers of each.

    uvicorn waits for ever for a client that has connected and sends nothing, or half a header, and
    keeps whatever it sends: some thousands of those would leave no connection for anybody else, no
    open file for the database, and one that sends fast enough no memory.
    """
    noted_at = -FULL_NOTE_S

    def note_full() -> None:
        nonlocal noted_at
        if time.monotonic() >= noted_at + FULL_NOTE_S:
            noted_at = time.monotonic()
            log_event("connections refused", level=logging.WARNING, limit=max_connections)

    class PunctualProtocol(HttpToolsProtocol):
        """Closes connections whose request does not begin in time, or has no end of headers."""

        _header_timer: asyncio.TimerHandle | None = None
        _awaits_headers = True
        _header_bytes = 0
        _num_messages = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(Corked(transport))  # type: ignore[arg-type]
            if len(self.connections) > max_connections:
                self.transport.write(FULL_ANSWER)
                self.transport.close()
                note_full()
            self._expect_headers()

        def data_received(self, data: bytes) -> None:
            num_messages = self._num_messages
            self._parse(data)
            if not self._awaits_headers or self.transport.is_closing():
                self._cancel()
                return
            if self._num_messages == num_messages:
                self._header_bytes += len(data)
                if self._header_bytes > MAX_HEADER_BYTES:
                    self.send_400_response("The headers are too long.")
            if self._is_idle() and self.timeout_keep_alive_task is None:
                self._expect_headers()

        def _parse(self, data: bytes) -> None:
            """Takes a request apart; offers to change the protocol are passed over.

            HttpClient of Java makes one with every first request, and the parser would stop there.
            """
            self._unset_keepalive_if_required()
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                method = self.parser.get_method()
                if method == b"CONNECT":
                    self.send_400_response("There is nothing to connect to.")
                    return
                lines = [b"%b %b HTTP/%b" % (method, self.url, self._version())]
                lines += [b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"]
                self.parser = httptools.HttpRequestParser(self)
                # As uvicorn sets its own: what follows "Connection: close" is dropped, no error.
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self._parse(b"\r\n".join(lines) + b"\r\n\r\n" + data[stopped.args[0] :])
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")

        def _version(self) -> bytes:
            version: str = self.parser.get_http_version()
            return version.encode()

        def on_headers_complete(self) -> None:
            if self.parser.should_upgrade():
                return
            self._awaits_headers, self._header_bytes = False, 0
            self._cancel()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            if self.parser.should_upgrade():
                return
            self._awaits_headers = True
            self._num_messages += 1
            super().on_message_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel()
            super().connection_lost(exc)

        def _is_idle(self) -> bool:
            """Tells whether the client owes a request, and nobody owes it an answer."""
            return self._awaits_headers and (self.cycle is None or self.cycle.response_complete)

        def _expect_headers(self) -> None:
            if self._header_timer is None:
                self._header_timer = self.loop.call_later(header_timeout_s, self._give_up)

        def _cancel(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _give_up(self) -> None:
            self._header_timer = None
            if not self.transport.is_closing() and self._is_idle():
                self.transport.write(SLOW_ANSWER)
                self.transport.close()

    return PunctualProtocol

"""One live stream: what its client may send, and how fast."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, TypeVar

from fastapi import WebSocket
from pydantic import BaseModel, ConfigDict, ValidationError

from service.answers.problems import Problem, problem_document
from service.encoding.pool import EncodingPool
from service.live.session import BYTES_PER_S, BYTES_PER_SAMPLE, LiveSession
from service.settings import Settings

T = TypeVar("T")

MAX_FRAME_BYTES = 65_536
"""Longest frame of samples: 2 s."""

MAX_TEXT_BYTES = 4096
"""Longest frame of text."""

JOINED_BYTES = BYTES_PER_S
"""Most bytes that are heard at once."""

BUSY_WAIT_S = 0.2
"""Seconds after which a full pool is asked again."""

RECHECK_S = 30.0
"""Seconds after which the token is looked at again: it may have been revoked."""


class Options(BaseModel):
    """The first frame of a client."""

    model_config = ConfigDict(extra="forbid")
    token: str | None = None
    group: str | None = None
    sample_rate: Literal[16000] = 16000


class Command(BaseModel):
    """A later frame of text: to enrol an unknown speaker, or to end the stream."""

    model_config = ConfigDict(extra="forbid")
    enrol: int | None = None
    name: str = ""
    if_exists: Literal["error", "add"] = "error"
    end: bool = False


class Talk:
    """Hears a client, and tells it who is speaking."""

    def __init__(
        self,
        socket: WebSocket,
        session: LiveSession,
        pool: EncodingPool,
        settings: Settings,
        note: Callable[[list[dict[str, Any]]], Awaitable[None]],
        enrol: Callable[[LiveSession, Command], Awaitable[str]],
        recheck: Callable[[], Awaitable[object]],
    ) -> None:
        """Prepares a stream that has been admitted.

        Args:
            socket: The connection.
            session: What follows the speakers.
            pool: Where the work is done.
            settings: The limits.
            note: Writes down events before the client hears of them.
            enrol: Enrols an unknown speaker and returns the name.
            recheck: Raises Problem when the token is no longer valid.
        """
        self._socket, self._session, self._pool = socket, session, pool
        self._settings, self._note, self._enrol = settings, note, enrol
        self._recheck = recheck
        self._waiting: asyncio.Queue[bytes | Command | None] = asyncio.Queue()
        self._num_waiting = 0
        self._num_bytes = 0
        self._opened_at = time.monotonic()
        self._first_at = self._latest_at = self._opened_at

    async def run(self) -> bool:
        """Runs until the client ends it; returns whether it is still there.

        Raises:
            Problem: If the client breaks a rule, or the service cannot keep up.
        """
        reader = asyncio.create_task(self._read())
        worker = asyncio.create_task(self._work())
        try:
            await asyncio.wait({reader, worker}, return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                worker.result()
            is_there = await reader
            if is_there:
                self._waiting.put_nowait(None)
                await worker
            return is_there
        finally:
            reader.cancel()
            worker.cancel()
            await asyncio.wait({reader, worker})
            for task in (reader, worker):
                if not task.cancelled():
                    task.exception()  # looked at, so that asyncio does not complain

    async def _read(self) -> bool:
        """Takes frames until the client ends the stream (True) or goes away (False)."""
        checked_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now - checked_at > RECHECK_S:
                await self._recheck()
                checked_at = now
            message = await self._receive(now)
            if message["type"] == "websocket.disconnect":
                return False
            if message.get("bytes") is not None:
                self._take(message["bytes"])
                continue
            command = read_text(message["text"], Command)
            if command.end:
                return True
            if command.enrol is None:
                raise Problem("bad-field", "received neither enrol nor end")
            self._waiting.put_nowait(command)

    async def _receive(self, now: float) -> Any:
        """Waits for the next frame, as long as the client may be silent and the stream may last."""
        settings = self._settings
        silent_s = self._latest_at + settings.stream_idle_s - now
        left_s = self._opened_at + settings.stream_max_s - now
        try:
            return await asyncio.wait_for(self._socket.receive(), max(min(silent_s, left_s), 0))
        except (asyncio.TimeoutError, TimeoutError) as error:
            if left_s <= silent_s:
                raise self._too_long() from error
            raise Problem(
                "slow-client", f"no samples arrived for {settings.stream_idle_s:g} s"
            ) from error

    def _take(self, data: bytes) -> None:
        """Takes a frame of samples."""
        if len(data) > MAX_FRAME_BYTES:
            raise Problem(
                "too-large", f"a frame of {len(data)} bytes, expected at most {MAX_FRAME_BYTES}"
            )
        if len(data) % BYTES_PER_SAMPLE:
            raise Problem(
                "bad-field", f"a frame of {len(data)} bytes, expected whole 16-bit samples"
            )
        now = time.monotonic()
        if self._num_bytes == 0:
            self._first_at = now
        self._latest_at = now
        self._num_bytes += len(data)
        self._num_waiting += len(data)
        sent_s, most_s = self._num_bytes / BYTES_PER_S, self._settings.stream_ahead_s
        if sent_s > self._settings.stream_max_s:
            raise self._too_long()
        if sent_s - (now - self._first_at) > most_s:
            raise Problem(
                "too-fast", f"more than {most_s:g} s ahead of real time; send samples as they come"
            )
        if self._num_waiting / BYTES_PER_S > most_s:
            raise Problem("busy", f"the service is more than {most_s:g} s behind; try again later")
        self._waiting.put_nowait(data)

    def _too_long(self) -> Problem:
        most_s = self._settings.stream_max_s
        return Problem("too-long", f"longer than {most_s:g} s; open another stream")

    async def _work(self) -> None:
        """Works on what was taken, in its order."""
        while True:
            item = await self._waiting.get()
            if isinstance(item, Command):
                await self._obey(item)
                continue
            if item is None:
                await self._tell(await self._in_pool(self._session.finish))
                return
            data, after = self._join(item)
            events = await self._in_pool(partial(self._session.hear, data))
            self._num_waiting -= len(data)
            await self._tell(events)
            if after is not None:
                await self._obey(after)

    def _join(self, data: bytes) -> tuple[bytes, Command | None]:
        """Joins a frame with those that wait behind it; returns the command that ends them."""
        pieces, size = [data], len(data)
        while size < JOINED_BYTES and not self._waiting.empty():
            item = self._waiting.get_nowait()
            if isinstance(item, Command):
                return b"".join(pieces), item
            if item is None:
                self._waiting.put_nowait(None)
                break
            pieces.append(item)
            size += len(item)
        return b"".join(pieces), None

    async def _in_pool(self, work: Callable[[], T]) -> T:
        """Does work in the pool, as soon as it has room."""
        while True:
            try:
                (future,) = self._pool.submit([work], are_recordings=False)
            except Problem:
                await asyncio.sleep(BUSY_WAIT_S)
                continue
            return await asyncio.wrap_future(future)

    async def _tell(self, events: list[dict[str, Any]]) -> None:
        """Sends events, after they were noted."""
        if events:
            await self._note(events)
        for event in events:
            await self._socket.send_json(event)

    async def _obey(self, command: Command) -> None:
        """Enrols a speaker; what hinders it ends no stream."""
        try:
            name = await self._enrol(self._session, command)
        except Problem as problem:
            await self._socket.send_json({"event": "error", **problem_document(problem)})
            return
        await self._socket.send_json({"event": "enrolled", "number": command.enrol, "name": name})


Frame = TypeVar("Frame", bound=BaseModel)


def read_text(text: str, kind: type[Frame]) -> Frame:
    """Reads a frame of text.

    Raises:
        Problem: 400, 413 or 422 if it is too long, no JSON, or not of this kind.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise Problem("too-large", f"a text of {len(text)} characters, expected {MAX_TEXT_BYTES}")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise Problem("bad-json", "the text is not JSON; samples go into binary frames") from error
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the text"
        raise Problem("bad-field", f"{field[:50]}: {first['msg']}") from error

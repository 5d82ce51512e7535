"""Reads the form of a long recording as it arrives: the sound into a spool, the fields into memory.

Frameworks would put a long upload into a readable temporary file.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.requests import ClientDisconnect, Request

from service.answers.problems import Problem, retry_later, too_large
from service.diarization.spool import Spool

FORM = "multipart/form-data"

WRITTEN_BYTES = 1 << 20
"""Bytes that are collected before they are written, in a thread."""

MAX_FIELDS = 1000
MAX_FIELD_BYTES = 1 << 16

LEAST_RATE = 32_000
"""Bytes a second that must arrive on average: as fast as 16 kHz sound is spoken."""

LOOK_S = 0.5
"""Seconds after which a silent client is looked at again, and whether the service is stopping."""

STOPPING_RETRY_S = 60
"""Seconds after which a client may try again where the service is stopping."""


class UploadForm:
    """What a form holds.

    Attributes:
        spool: The recording.
        file_name: What the client calls it.
        fields: Texts by the name of the field, in order.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.spool: Spool | None = None
        self.file_name = ""
        self.fields: dict[str, list[str]] = {}

    def close(self) -> None:
        """Frees the recording."""
        if self.spool is not None:
            self.spool.close()


async def read_form(
    request: Request,
    max_bytes: int,
    patience_s: float,
    is_stopping: Callable[[], bool] = lambda: False,
) -> UploadForm:
    """Reads a form with one recording, `file`.

    Args:
        request: Its body has not been read.
        max_bytes: Most bytes of the body.
        patience_s: Seconds that the client may be behind `LEAST_RATE`.
        is_stopping: Whether the service waits for nothing but its last answers.

    Raises:
        Problem: 400, 408, 413, 415 or 422, if it is something else, too large or too slow; 503 if
            the service is stopping; 507 if the disk is full. Nothing of it is left then.
    """
    reader = _FormReader(_boundary(request))
    try:
        async for chunk in _chunks(request, max_bytes, patience_s, is_stopping):
            reader.feed(chunk)
            if len(reader.sound) >= WRITTEN_BYTES:
                await reader.store()
        reader.finish()
        await reader.store()
        if reader.form.spool is None:
            raise Problem(
                "bad-field",
                "file: no complete part of this name; check name and last boundary",
                errors=[{"field": "body.file", "message": "Field required"}],
            )
    except BaseException:
        reader.form.close()
        raise
    return reader.form


def _boundary(request: Request) -> bytes:
    """Returns what parts the form."""
    content = Message()
    content["content-type"] = request.headers.get("content-type", "")
    if content.get_content_type() != FORM:
        shown = request.headers.get("content-type", "")[:100] or "no content type"
        raise Problem("wrong-type", "the body is not a form", received=shown, expected=FORM)
    boundary = content.get_boundary()
    if not boundary:
        raise Problem("bad-request", "the form has no boundary")
    return boundary.encode("latin-1", "replace")


async def _chunks(
    request: Request, max_bytes: int, patience_s: float, is_stopping: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yields the body within its limits on size and time."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large(int(declared), max_bytes)
    size, start = 0, time.monotonic()
    stream = request.stream()
    while True:
        late_at = start + patience_s + size / LEAST_RATE
        coming = asyncio.ensure_future(anext(stream))
        try:
            while not coming.done():
                left_s = late_at - time.monotonic()
                if is_stopping():
                    raise retry_later("stopping", "the service is stopping", STOPPING_RETRY_S)
                if left_s <= 0:
                    raise _too_slow(size, time.monotonic() - start)
                await asyncio.wait({coming}, timeout=min(left_s, LOOK_S))
            chunk = coming.result()
        except StopAsyncIteration:
            return
        except ClientDisconnect as error:
            raise Problem("bad-request", "the client went away") from error
        finally:
            coming.cancel()
        size += len(chunk)
        if size > max_bytes:
            raise too_large(size, max_bytes)
        yield chunk


def _too_slow(size: int, seconds: float) -> Problem:
    """Returns the problem of a client that sends too slowly."""
    return Problem(
        "slow-client",
        f"{size} bytes arrived in {seconds:.0f} s, expected {LEAST_RATE} a second",
        headers={"Connection": "close"},
    )


class _FormReader:
    """Hears the events of a form's parser.

    Attributes:
        form: What came so far.
        sound: Bytes of the recording that are not written yet.
    """

    def __init__(self, boundary: bytes) -> None:
        self.form = UploadForm()
        self.sound = bytearray()
        self._parser = MultipartParser(boundary, self._callbacks())
        self._header: list[bytes] = [b"", b""]
        self._disposition = Message()
        self._name = ""
        self._text: bytearray | None = None
        self._num_fields = 0
        self._is_whole = False

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes.

        Raises:
            Problem: 400 if they are no form, 422 if a field cannot be used.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem("bad-request", f"the form cannot be read ({error})") from error

    def finish(self) -> None:
        """Drops a recording whose part has no end."""
        if not self._is_whole and self.form.spool is not None:
            self.form.close()
            self.form.spool = None

    async def store(self) -> None:
        """Writes what was collected of the recording."""
        data = bytes(self.sound)
        self.sound.clear()
        if data and self.form.spool is not None:
            await asyncio.to_thread(self.form.spool.write, data)

    def _callbacks(self) -> Any:
        """Returns what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add_header(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition, self._text = Message(), None
        self._num_fields += 1
        if self._num_fields > MAX_FIELDS:
            raise Problem("bad-request", f"more than {MAX_FIELDS} fields")

    def _add_header(self, place: int, data: bytes) -> None:
        self._header[place] += data

    def _end_header(self) -> None:
        name, value = self._header
        self._header = [b"", b""]
        if name.strip().lower() == b"content-disposition":
            self._disposition["content-disposition"] = _decode(value, "a field's header")

    def _end_headers(self) -> None:
        content = self._disposition
        self._name = str(content.get_param("name", "", "content-disposition"))
        file_name = content.get_param("filename", None, "content-disposition")
        if self._name != "file":
            self._text = bytearray()
            return
        if file_name is None:
            raise Problem(
                "bad-field",
                "file: received a text, expected a recording: the part has no filename; add "
                "filename=a.wav",
            )
        if self.form.spool is not None:
            raise Problem("bad-field", "file: received two recordings, expected one")
        self.form.spool, self.form.file_name = Spool(), collapse_rfc2231_value(file_name)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._text is None:
            self.sound += data[start:end]
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise Problem("bad-field", f"{self._name[:50]}: longer than {MAX_FIELD_BYTES} bytes")

    def _end(self) -> None:
        if self._text is None:
            self._is_whole = True
        else:
            text = _decode(bytes(self._text), "a field of the form")
            self.form.fields.setdefault(self._name, []).append(text)


def _decode(data: bytes, what: str) -> str:
    """Returns bytes as text."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = f"byte 0x{data[error.start]:02x} at {error.start}"
        detail = f"{what} is not UTF-8; send it as UTF-8"
        raise Problem("bad-field", detail, received=shown, expected="UTF-8") from error

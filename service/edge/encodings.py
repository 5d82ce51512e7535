"""Texts of a request that are not UTF-8: refused before they become other texts.

Frameworks read such bytes as Latin-1 or put a replacement character there, and a name would be
stored or looked for that nobody sent.
"""

import re
from collections.abc import Iterable
from email.message import Message
from typing import Any
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.datastructures import Headers
from starlette.types import Scope

from service.answers.problems import Problem

MAX_TEXT_BYTES = 1 << 20
"""Longest text of a form that is looked at; the limits of the form refuse longer ones."""

FILE_NAME = re.compile(rb";\s*filename\*?\s*=", re.IGNORECASE)
"""What makes a part of a form a file."""

RECORDING_FIELD = re.compile(rb"""[;\s]name\s*=\s*"?file[12]?(?:["\s;]|$)""", re.IGNORECASE)
"""Fields of recordings: without a file's name the route says what is missing."""


def check_encodings(scope: Scope, headers: Headers, chunks: Iterable[bytes]) -> None:
    """Checks path, query, and the texts of the body: forms, names of files, JSON.

    Args:
        scope: The request.
        headers: Its headers.
        chunks: Its body.

    Raises:
        Problem: 422, naming the first text that is not UTF-8.
    """
    path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    _check("the path", unquote_to_bytes(path))
    _check("the query", unquote_to_bytes(scope.get("query_string", b"")))
    content = Message()
    content["content-type"] = headers.get("content-type", "")
    kind, boundary = content.get_content_type(), content.get_boundary()
    if kind == "multipart/form-data" and boundary:
        charset = str(content.get_param("charset") or "utf-8")
        _check_form(chunks, boundary.encode("latin-1", "replace"), charset)
    elif kind == "application/x-www-form-urlencoded":
        _check("the form", unquote_to_bytes(b"".join(chunks)))
    elif kind == "application/json":
        _check("the body", b"".join(chunks))


def _check_form(chunks: Iterable[bytes], boundary: bytes, charset: str) -> None:
    """Checks the headers of all parts, and the parts that are no files."""
    reader = _TextReader(charset)
    parser = MultipartParser(boundary, reader.callbacks())
    try:
        for chunk in chunks:
            parser.write(chunk)
    except FormParserError:
        return  # The route says what is wrong with the form.


class _TextReader:
    """Hears the events of a form's parser and checks its texts."""

    def __init__(self, charset: str) -> None:
        self._charset = charset
        self._header = b""
        self._text = b""
        self._is_file = False

    def callbacks(self) -> Any:
        """Returns what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_text,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._header, self._text, self._is_file = b"", b"", False

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _end_headers(self) -> None:
        self._is_file = any(p.search(self._header) for p in (FILE_NAME, RECORDING_FIELD))
        _check("the name of a field or file", self._header, self._charset)

    def _add_text(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file and len(self._text) < MAX_TEXT_BYTES:
            self._text += data[start:end]

    def _end(self) -> None:
        if not self._is_file:
            _check("a field of the form", self._text, self._charset)


def _check(what: str, data: bytes, charset: str = "utf-8") -> None:
    """Raises Problem if bytes are not text in the charset."""
    try:
        data.decode(charset)
    except (UnicodeDecodeError, LookupError) as error:
        shown = charset
        if isinstance(error, UnicodeDecodeError):
            shown = f"byte 0x{data[error.start]:02x} at {error.start}"
        detail = f"{what} is not UTF-8; send it as UTF-8"
        raise Problem("bad-field", detail, received=shown[:50], expected="UTF-8") from error

"""Logs: one line a request, as text or JSON, without voices, tokens, names or query strings."""

import atexit
import json
import logging
import os
import sys
import threading
import time
from datetime import datetime, timezone
from typing import Any, TextIO

LOGGER = "voiceprint"
"""Name of the logger of the service."""

FIELDS = "voiceprint_fields"
"""Attribute of a log record under which its further fields are."""

RELAY = """
import datetime, json, os, signal
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_IGN)
with open(0, encoding="utf-8", errors="replace") as lines:
    for line in lines:
        if line.strip():
            now = datetime.datetime.now(datetime.timezone.utc)
            at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            entry = {"time": at, "level": "warning", "message": line.rstrip(), "source": "stderr"}
            os.write(1, (json.dumps(entry, ensure_ascii=False) + chr(10)).encode())
"""
"""A process that makes JSON of what libraries of C and the interpreter itself write to stderr. It
ends with the last process that has the pipe, however that ends, so that no line is lost."""

RELAY_END_S = 1.0
"""Seconds that it gets for the last lines: in a container it is killed with the service."""


class TextFormatter(logging.Formatter):
    """`2026-11-23T01:02:03.456Z INFO message key=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as one line, and a traceback after it if there is one."""
        fields: dict[str, Any] = getattr(record, FIELDS, {})
        parts = [_time(record), record.levelname, _one_line(record.getMessage())]
        parts += [f"{key}={_one_line(str(value))}" for key, value in fields.items()]
        text = " ".join(parts)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record as one line of JSON."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure_logs(*, as_json: bool) -> None:
    """Sends the logs of the service and of uvicorn to stderr; as JSON, all else that goes there."""
    handler = logging.StreamHandler(_relay_stderr() if as_json else sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    for name, level in (
        (LOGGER, logging.INFO),
        ("uvicorn.error", logging.WARNING),
        ("asyncio", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    # Its lines hold query strings, and with them the key of the classic health route.
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False
    if as_json:
        # What the interpreter would print as many lines.
        threading.excepthook = lambda hook: _log_unexpected("a thread ended", hook.exc_value)
        sys.unraisablehook = lambda hook: _log_unexpected("ignored", hook.exc_value)


def _relay_stderr() -> TextIO:
    """Puts a process of `RELAY` behind file descriptor 2, and returns what stderr was before.

    On Windows, where that is not possible, stderr stays as it is.
    """
    if not hasattr(os, "posix_spawn"):
        return sys.stderr
    before = os.dup(2)
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_DUP2, reading, 0),
        (os.POSIX_SPAWN_DUP2, before, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    command = [sys.executable, "-I", "-S", "-c", RELAY]
    relay = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)

    def end() -> None:
        """Waits for the last lines."""
        sys.stderr.flush()
        os.dup2(before, 2)
        give_up = time.monotonic() + RELAY_END_S
        while os.waitpid(relay, os.WNOHANG)[0] == 0 and time.monotonic() < give_up:
            time.sleep(0.01)

    atexit.register(end)
    return os.fdopen(before, "w", encoding="utf-8", buffering=1, closefd=False)


def _log_unexpected(message: str, error: BaseException | None) -> None:
    """Writes an error that nobody caught."""
    if error is not None:
        log_failure(message, error)


def log_event(message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Writes a line."""
    logging.getLogger(LOGGER).log(level, message, extra={FIELDS: fields})


def log_failure(message: str, error: BaseException, **fields: Any) -> None:
    """Writes an unexpected error with its traceback."""
    logging.getLogger(LOGGER).error(message, exc_info=error, extra={FIELDS: fields})


def _time(record: logging.LogRecord) -> str:
    """Returns the time of a record, UTC."""
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    """Replaces what could forge another line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)

"""Logs: one line a request, as text or JSON, without voices, tokens, names or query strings."""

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

LOGGER = "voiceprint"
"""Name of the logger of the service."""

FIELDS = "voiceprint_fields"
"""Attribute of a log record under which its further fields are."""


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
    """Sends the logs of the service and of uvicorn to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    for name, level in ((LOGGER, logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    # Its lines hold query strings, and with them the key of the classic health route.
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False


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

"""Log lines on standard error, as JSON or as text, each with the id of the request that it belongs to."""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from serving.errors import printable

request_fields: ContextVar[dict[str, str]] = ContextVar("request_fields")
"""The request that this task handles: its ``request_id``, and its ``trace_id`` if the client sent one."""

STOPPING = "stopping: the service is no longer ready, and accepts requests for %g s more"
# A value of a field that needs no quotes.
_PLAIN_VALUE = re.compile(r'[^\s"=]+')
# Escapes everything that is not ASCII, such as the line separators of Unicode. Other types than JSON's become text.
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=str).encode


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger, message, the request's fields, and the fields of ``extra={"fields": ...}``."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).replace("\x7f", "\\u007f")


class TextLines(logging.Formatter):
    """Formats a record as a line of text that is easy to read.

    No text of a client can look like another line or another field: line breaks and other control characters are
    written as escapes, a value with a space is in quotes, and the lines of a traceback are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level and message, then ``name=value`` for each field."""
        words = [
            datetime.fromtimestamp(record.created).strftime("%H:%M:%S"),
            record.levelname.lower(),
            printable(record.getMessage()),
            *(f"{name}={_value(value)}" for name, value in _fields(record).items()),
        ]
        line = " ".join(words)
        if record.exc_info:
            traceback = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *(f"  {printable(text)}" for text in traceback)])
        return line


def _value(value: object) -> str:
    text = printable(str(value))
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {**request_fields.get({}), **getattr(record, "fields", {})}


def configure(level: str, form: str) -> None:
    """Send the logs of this process to standard error.

    Args:
        level: the lowest level of the service's own lines. Libraries log from ``warning`` on.
        form: ``json`` or ``text``; if it is empty, text on a terminal and JSON elsewhere.
    """
    handler = logging.StreamHandler()
    # There is no stream if standard error was closed.
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    form = form or ("text" if is_terminal else "json")
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("serving").setLevel(level.upper())

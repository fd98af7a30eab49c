"""Log lines on standard error, as JSON or as text, each with the id of the request that it belongs to."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec

request_fields: ContextVar[dict[str, str]] = ContextVar("request_fields")
"""The request that this task handles: its ``request_id``, and its ``trace_id`` if the caller sent one."""


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
        return msgspec.json.encode(line).decode()


class TextLines(logging.Formatter):
    """Formats a record as a line of text that is easy to read."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level and message, then ``name=value`` for each field."""
        words = [
            datetime.fromtimestamp(record.created).strftime("%H:%M:%S"),
            record.levelname.lower(),
            record.getMessage(),
            *(f"{name}={value}" for name, value in _fields(record).items()),
        ]
        return " ".join(words) + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {**request_fields.get({}), **getattr(record, "fields", {})}


def configure(level: str, form: str) -> None:
    """Send the logs of this process to standard error.

    Args:
        level: the lowest level of the service's own lines. Libraries log from ``warning`` on.
        form: ``json`` or ``text``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("serving").setLevel(level.upper())

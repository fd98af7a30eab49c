"""Structured logs: one JSON object a line on standard error, each with the request it belongs to."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec

# Of the request that is being answered: request_id, and trace_id if the caller sent one.
request_fields: ContextVar[dict[str, str]] = ContextVar("request_fields")


class JsonLines(logging.Formatter):
    """A record as a JSON object: time, level, logger, message, what the request is, and ``extra={"fields": ...}``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without line breaks."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **request_fields.get({}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextLines(logging.Formatter):
    """A record for a person's eyes."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, message, then name=value."""
        fields = {**request_fields.get({}), **getattr(record, "fields", {})}
        parts = [
            datetime.fromtimestamp(record.created).strftime("%H:%M:%S"),
            record.levelname.lower(),
            record.getMessage(),
            *(f"{name}={value}" for name, value in fields.items()),
        ]
        return " ".join(parts) + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


def configure(level: str, form: str) -> None:
    """Send the logs of this process to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("serving").setLevel(level.upper())

"""Replacements for two of uvicorn's objects, with which a connection behaves differently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Outgoing:
    """Replaces the transport for uvicorn's cycle. Its ``close`` lets the client read the response first.

    uvicorn writes the head and the body of a response one after the other. Here the head waits for the body, as the
    specification of ASGI asks, so that they arrive together. Some clients do not read a body that arrives later.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head:
            self._head, data = b"", self._head + data
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Write a head that has no body. Call this at the end of each response."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._close()


class Discarded:
    """Replaces uvicorn's cycle for a rejected request. The body of the request is dropped."""

    response_complete = True
    keep_alive = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()

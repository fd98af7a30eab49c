"""The lines of JSON that the supervisor and a worker send each other over a socket.

Each line is a list: the kind of the message and its values.

    worker to supervisor                       supervisor to worker
    failed        text, usage                  stop      signal
    ready         description                  change    number, load, unload or rollout, model
    report        snapshot                     changed   id, error or null
    change        id, load ..., model          peers     id, snapshot
    applied       number, error or null        sample    number, model
    peers         id                           gathered  id, disagreements
    disagreements id, model
    sampled       number, disagreements
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

# Longest line, in bytes. A snapshot of the metrics takes about 40 kB.
MAX_LINE = 1 << 26


def line(*message: object) -> bytes:
    """Return one message as a line."""
    return json.dumps(message).encode() + b"\n"


class Channel:
    """One end of the channel, in an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_LINE))

    def send(self, *message: object) -> None:
        """Send a message. It is lost if the other process has ended."""
        if not self._writer.transport.is_closing():
            self._writer.write(line(*message))

    def is_congested(self) -> bool:
        """Return whether the other process reads so slowly that messages wait in this one."""
        return self._writer.transport.get_write_buffer_size() > 0

    async def messages(self) -> AsyncIterator[list[Any]]:
        """Yield the messages of the other process until it ends."""
        with contextlib.suppress(ConnectionError):
            while text := await self._reader.readline():
                yield json.loads(text)

    def abort(self) -> None:
        """Close this end at once."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close this end when all messages are sent, or when the other process has ended."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

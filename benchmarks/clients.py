"""Clients that misbehave: they read nothing, never finish, are slow, or disconnect. benchmarks/attacks.py uses them.

Each client is a coroutine that takes requests from a :class:`Target` until the attack is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# Seconds to wait for a response.
PATIENCE = 20.0
# Seconds by which an attack may take longer, to send each of its requests once.
EXTENSION = 30.0

SMALL_BUFFER = 4096
# The start of a request that is kept if its response is wrong.
SHOWN_BYTES = 100
LINGER_RESET = struct.pack("ii", 1, 0)


@dataclass
class Outcome:
    """What the service did under an attack."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Responses by status. "closed": the connection was closed without one. "none": there was none in time."""
    failures: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Each request with a wrong response: its name, the status of the response, and the start of the request."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By the name of a request: the longest time from its last byte to the last byte of its response, in seconds."""


@dataclass
class Target:
    """The service under attack: where it is, what to send, and until when."""

    port: int
    requests: Iterator[tuple[str, bytes]]
    seconds: float = math.inf
    least: int = 0
    """Number of requests to send even after the end of the time, for at most ``EXTENSION`` seconds more."""
    allowed: frozenset[str] = frozenset()
    """The statuses that responses may have. If empty, every status is allowed that is no fault of the service."""
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    def take(self) -> Iterator[tuple[str, bytes]]:
        """Yield requests until the time is over or there are no more."""
        while self.left() > (-EXTENSION if self.least > 0 else 0) and (request := next(self.requests, None)):
            self.least -= 1
            yield request

    def left(self) -> float:
        return self._end - time.monotonic()

    async def wait_for_end(self) -> None:
        await asyncio.sleep(max(0.0, self.left()))

    def until_end(self) -> asyncio.Timeout:
        return asyncio.timeout(max(0.001, self.left()))

    async def pause(self) -> None:
        """Wait a moment before the next connection, because most attacks are not about the number of connections."""
        await asyncio.sleep(min(0.1, max(0.0, self.left())))

    def note(self, name: str, status: str, seconds: float, content: bytes) -> None:
        outcome = self.outcome
        outcome.statuses[status] += 1
        outcome.seconds[name] = max(seconds, outcome.seconds.get(name, 0.0))
        if status == "none" or (status not in self.allowed if self.allowed else is_fault(status)):
            outcome.failures.append((name, status, content[:SHOWN_BYTES]))

    @contextlib.asynccontextmanager
    async def connection(self, buffer: int | None = None) -> AsyncIterator[Streams]:
        """Open a connection, with a receive buffer of ``buffer`` bytes. It ends with a reset."""
        connection = socket.socket()
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
            streams = await asyncio.open_connection(sock=connection, limit=buffer or 1 << 16)
        except BaseException:
            connection.close()
            raise
        # drain() waits until the system has taken every byte.
        streams[1].transport.set_write_buffer_limits(0)
        try:
            yield streams
        finally:
            streams[1].transport.abort()


Client = Callable[[Target], Coroutine[Any, Any, None]]


def is_fault(status: str) -> bool:
    """Return whether a status means a fault of the service: a 5xx, except for those that say what is wrong.

    These are "not implemented" and "version not supported", "busy", "too late" and "disk full".
    """
    return status.startswith("5") and status not in ("501", "505", "503", "504", "507")


async def read_response(reader: asyncio.StreamReader) -> tuple[str, bytes, bool]:
    """Return status and body of the next response, and whether the connection stays open. No response is "closed"."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            return await read_response(reader)
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        body = await reader.readexactly(int(fields.get(b"content-length", 0)))
    except (ConnectionError, asyncio.IncompleteReadError):
        return "closed", b"", False
    except (asyncio.LimitOverrunError, ValueError):
        return "not HTTP", b"", False
    return head[9:12].decode("latin-1"), body, fields.get(b"connection") != b"close"


async def send_and_read(target: Target, streams: Streams, name: str, content: bytes, *, end: bool = False) -> bool:
    """Send a request, read its response and note both. Return whether the connection stays open.

    Args:
        end: close the sending side before the response is read.
    """
    reader, writer = streams
    sent = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            # A service that responds early closes the connection while the request is sent. Its response can be read
            # all the same.
            with contextlib.suppress(ConnectionError):
                writer.write(content)
                if end:
                    writer.write_eof()
                await writer.drain()
            sent = time.monotonic()
            status, _, stays_open = await read_response(reader)
    except TimeoutError:
        status, stays_open = "none", False
    target.note(name, status, time.monotonic() - sent, content)
    return stays_open


# Clients


async def patient(target: Target) -> None:
    """Send requests over one connection and read the responses."""
    requests = target.take()
    request = next(requests, None)
    while request:
        try:
            async with target.connection() as streams:
                stays_open = True
                while request and stays_open:
                    stays_open = await send_and_read(target, streams, *request)
                    request = next(requests, None)
        except OSError:
            if request:
                target.note(request[0], "closed", 0.0, request[1])
            request = next(requests, None)


async def idle(target: Target) -> None:
    """Send nothing."""
    await target.wait_for_end()


async def half_closed(target: Target) -> None:
    """Send a request over a new connection, close the sending side, and read the response."""
    for name, content in target.take():
        try:
            async with target.connection() as streams:
                await send_and_read(target, streams, name, content, end=True)
        except OSError:
            target.note(name, "closed", 0.0, content)


async def deaf(target: Target) -> None:
    """Send the head of a request over a new connection, then its body, and read only after that, like urllib."""
    for name, content in target.take():
        head, end, body = content.partition(b"\r\n\r\n")
        try:
            async with target.connection() as streams:
                transport = cast(asyncio.Transport, streams[1].transport)
                transport.pause_reading()
                transport.write(head + end)
                await asyncio.sleep(0.02)
                transport.write(body)
                await asyncio.wait_for(streams[1].drain(), PATIENCE)
                transport.resume_reading()
                await send_and_read(target, streams, name, b"")
        except OSError:
            target.note(name, "closed", 0.0, content)


async def silent(target: Target) -> None:
    """Send requests, one after the other, and read nothing."""
    requests = target.take()
    for _, content in requests:
        with contextlib.suppress(OSError):
            async with target.until_end(), target.connection(SMALL_BUFFER) as (_, writer):
                writer.write(content)
                for _, more in requests:
                    await writer.drain()
                    writer.write(more)
        await target.pause()


async def slow_reader(target: Target) -> None:
    """Send a request and read its response at 20 kB a second."""
    for _, content in target.take():
        with contextlib.suppress(OSError):
            async with target.until_end(), target.connection(SMALL_BUFFER) as (reader, writer):
                writer.write(content)
                while await reader.read(1024):
                    await asyncio.sleep(0.05)
        await target.pause()


async def unfinished(target: Target) -> None:
    """Send a request except its last bytes, and wait. Begin again if the connection is closed."""
    for _, content in target.take():
        with contextlib.suppress(OSError):
            async with target.until_end(), target.connection() as (reader, writer):
                writer.write(content[:-10])
                await writer.drain()
                while await reader.read(65536):
                    pass
        await target.pause()


async def slow_sender(target: Target) -> None:
    """Send a request one byte at a time, without an end."""
    for _, content in target.take():
        with contextlib.suppress(OSError):
            async with target.until_end(), target.connection() as (_, writer):
                for i in range(len(content)):
                    writer.write(content[i : i + 1])
                    await writer.drain()
                    await asyncio.sleep(0.2)
        await target.pause()


async def resetting(target: Target) -> None:
    """Send a request over a new connection and reset the connection at once."""
    for number, (_, content) in enumerate(target.take()):
        with contextlib.suppress(OSError):
            async with target.connection() as (_, writer):
                # One connection of three sends nothing, one sends a part, and one sends a whole request.
                writer.write(content[: (0, len(content) // 2, len(content))[number % 3]])
                await writer.drain()


async def crowd(target: Target) -> None:
    """Open 300 connections at once, send a request over each, and read the responses. Do it again every second."""

    async def one(name: str, content: bytes) -> None:
        try:
            async with target.connection() as streams:
                await send_and_read(target, streams, name, content)
        except OSError:
            target.note(name, "closed", 0.0, content)

    while target.left() > 0:
        requests = [request for request, _ in zip(target.take(), range(300), strict=False)]
        await asyncio.gather(*(one(*request) for request in requests))
        await asyncio.sleep(1)


async def smuggler(target: Target) -> None:
    """Send a head, and its body in a second packet. There must be one response, and nothing after it."""
    for name, content in target.take():
        head, _, body = content.partition(b"\r\n\r\n")
        try:
            async with target.connection() as streams:
                streams[1].write(head + b"\r\n\r\n")
                await asyncio.sleep(0.02)
                if await send_and_read(target, streams, name, body):
                    with contextlib.suppress(TimeoutError):
                        if await asyncio.wait_for(streams[0].read(100), 0.1):
                            target.outcome.failures.append((name, "a second response", content[:SHOWN_BYTES]))
        except OSError:
            target.note(name, "closed", 0.0, content)


async def pipelining(target: Target) -> None:
    """Send a request 60 times in one packet with the start of another one, then its rest, and read 61 responses."""
    for name, content in target.take():
        try:
            async with target.connection() as streams:
                streams[1].write(content * 60 + content[:40])
                await asyncio.sleep(0.02)
                if await send_and_read(target, streams, name, content[40:]):
                    for _ in range(60):
                        await send_and_read(target, streams, name, b"")
        except OSError:
            target.note(name, "closed", 0.0, content)


async def run(client: Client, count: int, target: Target) -> Outcome:
    """Run ``count`` clients until the attack is over, and return what the service did."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(client(target))
    # The event loop closes the last connections in its next turn.
    await asyncio.sleep(0)
    return target.outcome

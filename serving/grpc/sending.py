"""Bound how long clients may leave the responses of their calls unread, and how many.

A response leaves the service as its client reads it: HTTP/2 lets a client stop that for a single call. gRPC has no
limit of time for this, and cannot end a call whose response has begun. So the connection of such a client is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import stat
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import grpc

from serving.errors import ServiceError
from serving.grpc.status import code_of, detail_of
from serving.inference.admission import Held
from serving.inference.threads import INLINE_BYTES
from serving.telemetry.recorder import Recorder

# Seconds between two looks for unread responses.
LOOK_INTERVAL = 0.25
# A response that was left unread for this many seconds may end if there are too many.
PATIENCE = 1.0
# Unread responses of one worker.
MAX_UNREAD = 256


class Unread(NamedTuple):
    """A response that its client has not read yet."""

    since: float
    size: int
    peer: str
    """The address of the client, as gRPC writes it."""


class Sending:
    """The responses of one worker that their clients have not read yet.

    Args:
        seconds: the time that a client may take to read a response.
        held: counts the bytes of large responses.
        recorder: counts the connections that are closed.
    """

    def __init__(self, seconds: float, held: Held, recorder: Recorder) -> None:
        self._seconds, self._held, self._recorder = seconds, held, recorder
        # By call, in the order of their beginnings.
        self._unread: dict[Any, Unread] = {}
        self.port = 0
        """The port of the server."""

    def begin(self, context: Any, size: int = 0) -> None:
        """Count the response of a call, with ``size`` bytes, until its client has read it or the call has ended."""
        charged = size if size > INLINE_BYTES else 0
        self._held.bytes += charged
        self._unread[context] = Unread(asyncio.get_running_loop().time(), charged, context.peer())
        context.add_done_callback(self._end)

    async def rejection(self, context: Any, error: ServiceError) -> NoReturn:
        """End a call with the status of an error."""
        # The traceback would keep the call's message in memory until the client has read the status.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        await self.status(context, code_of(error), detail_of(error))

    async def status(self, context: Any, code: grpc.StatusCode, detail: str) -> NoReturn:
        """End a call with a status. This raises an exception that gRPC knows."""
        self.begin(context)
        try:
            await context.abort(code, detail)
        except grpc.aio.InternalError as error:
            # The call has ended already: the client has disconnected, or gRPC has rejected its message as too large.
            raise asyncio.CancelledError from error
        raise AssertionError("abort() always raises an exception")

    def _end(self, context: Any) -> None:
        self._held.bytes -= self._unread.pop(context).size

    async def look(self) -> None:
        """Close the connections of the clients that do not read their responses, regularly and for ever."""
        closed: set[str] = set()
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            late = self.late(asyncio.get_running_loop().time())
            # gRPC may end the calls of a closed connection only after the next look.
            closed &= late
            for peer in close(late - closed, self.port):
                closed.add(peer)
                self._recorder.closed("write_timeout")

    def late(self, now: float) -> set[str]:
        """Return the clients that have left a response unread for too long, or for PATIENCE if there are too many."""
        late: set[str] = set()
        if not self._unread or now - next(iter(self._unread.values())).since <= PATIENCE:
            return late
        counts, sizes = Counter[str](), Counter[str]()
        for unread in self._unread.values():
            counts[unread.peer] += 1
            sizes[unread.peer] += unread.size
        count, freed = len(self._unread), 0
        for unread in self._unread.values():
            is_too_much = count > MAX_UNREAD or (unread.size > 0 and self._held.is_full(freed))
            waits_for = now - unread.since
            if waits_for <= PATIENCE:
                break
            if unread.peer not in late and (is_too_much or waits_for > self._seconds):
                late.add(unread.peer)
                count -= counts[unread.peer]
                freed += sizes[unread.peer]
        return late


def close(peers: set[str], port: int) -> set[str]:
    """Close the connections between clients and the own ``port``. gRPC then cancels their calls.

    gRPC has the sockets and gives none away, so this looks through the open files of the process.

    Returns:
        The clients whose connections were open.
    """
    wanted = {address_of(peer): peer for peer in peers}
    if not wanted:
        return set()
    closed = {_shut_down(int(path.name), port, wanted) for path in Path("/dev/fd").iterdir()}
    return {peer for peer in closed if peer}


def _shut_down(descriptor: int, port: int, wanted: dict[tuple[str, int], str]) -> str | None:
    """Close a connection if it is one of ``wanted``, and return its client."""
    with contextlib.suppress(OSError):
        # gRPC may close the descriptor at any time, and its number may then belong to another file. A copy stays.
        copy = os.dup(descriptor)
        try:
            if not stat.S_ISSOCK(os.fstat(copy).st_mode):
                return None
            with socket.socket(fileno=os.dup(copy)) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6):
                    return None
                host, remote_port = connection.getpeername()[:2]
                client = wanted.get((_plain(host), remote_port))
                if client and connection.getsockname()[1] == port:
                    connection.shutdown(socket.SHUT_RDWR)
                    return client
        finally:
            os.close(copy)
    return None


def address_of(peer: str) -> tuple[str, int]:
    """Return host and port of a client that gRPC calls ``ipv4:127.0.0.1:5000`` or ``ipv6:%5B::1%5D:5000``."""
    host, _, port = urllib.parse.unquote(peer).partition(":")[2].rpartition(":")
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """Return an address in one form: without a scope, and not as IPv4 inside IPv6."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)

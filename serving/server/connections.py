"""The open connections of one worker: which of them wait for their clients, and why the server closed others."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from uvicorn.server import ServerState

from serving.server.account import Account
from serving.server.rejection import RejectedError, too_many_bytes, too_many_connections
from serving.server.turns import Turns
from serving.telemetry.recorder import Recorder

# Seconds between two checks of all connections.
SWEEP_INTERVAL = 0.25
# If more predictions than this are rejected within REJECTION_SECONDS, the connections of the further ones must pause. A
# rejection takes about 25 us, so as many as this take a quarter of the time.
FREE_REJECTIONS, REJECTION_SECONDS = 1000, 0.1
# A connection that has waited this many seconds for its client may be closed if its place is needed.
PATIENCE = 1.0

log = logging.getLogger("serving.connections")


class Connection(Protocol):
    """The part of a connection that this file uses."""

    account: Account

    def waits_since(self) -> float:
        """Return the event loop's time at which the wait for the client began; infinity if there is no wait."""

    def check(self, now: float) -> None:
        """End the connection if its client took too long."""

    def evict(self, rejection: RejectedError) -> None:
        """End the connection because its place is needed."""


class Connections(ServerState):
    """uvicorn's state of a server, which also limits and counts the connections."""

    def __init__(self) -> None:
        super().__init__()
        self._recorder: Recorder | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._ended: Counter[tuple[str, str]] = Counter()
        self._idle = _Longest(lambda connection: True)
        self._holders = _Longest(lambda connection: connection.account.charged > 0)
        self._rejections, self._counted_until = 0, 0.0
        self.turns = Turns()

    # Time

    def start(self, recorder: Recorder) -> None:
        """Check all connections regularly from now on, and count in ``recorder`` those that the server closes."""
        self._recorder = recorder
        self._look()

    def stop(self) -> None:
        """Stop the regular checks. Log what is not logged yet."""
        self._log()
        if self._sweep:
            self._sweep.cancel()

    def _look(self) -> None:
        """End the connections whose clients took too long. One timer for all costs less than one timer each."""
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(SWEEP_INTERVAL, self._look)
        now = loop.time()
        for connection in self._all():
            connection.check(now)
        self._log()

    # Room

    def make_room(self) -> bool:
        """End the connection that has waited longest for its client, and return whether there was one."""
        return self._idle.evict(self._all(), too_many_connections())

    def make_room_for_bytes(self) -> bool:
        """End the connection that has waited longest of those that hold bytes, and return whether there was one."""
        return self._holders.evict(self._all(), too_many_bytes())

    def _all(self) -> list[Connection]:
        return list(self.connections)  # type: ignore[arg-type]

    # Rejections

    def has_too_many_rejections(self) -> bool:
        """Count a rejected prediction, and return whether there are too many at the moment."""
        now = asyncio.get_running_loop().time()
        if now >= self._counted_until:
            self._rejections, self._counted_until = 0, now + REJECTION_SECONDS
        self._rejections += 1
        return self._rejections > FREE_REJECTIONS

    # Reasons

    def ended(self, reason: str, detail: str = "") -> None:
        """Count that the server closed a connection. It is logged at the next check, with one line per reason."""
        if self._recorder:
            self._recorder.closed(reason)
        self._ended[reason, detail] += 1

    def _log(self) -> None:
        for (reason, detail), count in self._ended.items():
            fields = {"reason": reason, "count": count, **({"detail": detail} if detail else {})}
            log.warning("closed connections", extra={"fields": fields})
        self._ended.clear()


class _Longest:
    """Finds connections that have waited long for their clients. Each search takes time, so it is done rarely."""

    def __init__(self, suits: Callable[[Connection], bool]) -> None:
        self._suits = suits
        self._found: deque[tuple[float, Connection]] = deque()
        self._next_search = 0.0

    def evict(self, connections: list[Connection], rejection: RejectedError) -> bool:
        now = asyncio.get_running_loop().time()
        if now >= self._next_search:
            self._next_search = now + SWEEP_INTERVAL
            self._found.clear()
            waiting = [(connection.waits_since(), connection) for connection in connections if self._suits(connection)]
            long = [(since, connection) for since, connection in waiting if since <= now - PATIENCE]
            self._found.extend(sorted(long, key=lambda pair: pair[0]))
        while self._found:
            since, connection = self._found.popleft()
            if connection.waits_since() == since and self._suits(connection):
                connection.evict(rejection)
                return True
        return False

"""Divide the time for reading among connections whose requests arrive in many pieces.

A request may arrive in a million chunks or TLS records of one byte, and so may hundreds of others at the same time. If
each connection parsed or decrypted at once what it has received, the event loop would do nothing else for seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Protocol

# Seconds for which all connections together read before the event loop does its other work, and for which one
# connection reads before the next one does.
TURN, SLICE = 0.01, 0.001


class Waiting(Protocol):
    """The part of a connection that this file uses."""

    def read_on(self) -> None:
        """Parse or decrypt for about ``SLICE``, and wait for another turn if bytes are left."""

    def hold_back(self) -> None:
        """Read nothing more until the next turn."""


class Turns:
    """The connections that wait to read on in what they have received."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Waiting, None] = OrderedDict()
        self._is_scheduled = False

    def add(self, connection: Waiting) -> None:
        """Let ``connection`` take a turn soon, after those that wait already."""
        self._waiting.setdefault(connection)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        end = time.perf_counter() + TURN
        try:
            for _ in range(len(self._waiting)):
                connection, _ = self._waiting.popitem(last=False)
                connection.read_on()
                if time.perf_counter() > end:
                    break
        finally:
            for waiting in self._waiting:
                waiting.hold_back()
            self._schedule()

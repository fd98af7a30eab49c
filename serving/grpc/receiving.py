"""Receive the message of a call, and bound how many messages may be on their way.

gRPC keeps the received part of a message where the service cannot count it. So only so many calls may wait for the rest
of their messages, and the one that has waited longest ends first.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from serving.errors import DeadlineExceededError, InputError, OverloadedError

# A call that has waited this many seconds for its message may end if too many others wait too.
PATIENCE = 1.0
# This many times the limit of calls may wait at once, those beyond the limit for PATIENCE only.
MOST = 4
# Seconds that a call may wait for its message while the service stops.
LAST_SECONDS = 1.0
# Seconds after the end of the messages in which gRPC says that the client has cancelled the call.
CANCELLATION_SECONDS = 0.1


class Receiving:
    """The calls of one worker that wait for their messages.

    Args:
        limit: the calls that may wait for long. Beyond it, each new call ends the one that has waited longest.
        seconds: the time that a client may take to send a message.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        # In the order of their beginnings.
        self._waiting: dict[asyncio.Timeout, float] = {}

    async def message(self, context: Any) -> bytes:
        """Return the message of a call.

        Raises:
            OverloadedError: too many calls wait for their messages.
            DeadlineExceededError: the client took too long, or the call has ended because others needed its place.
            InputError: the client has sent no message, or one over the limit. gRPC tells the client which.
        """
        now, count = asyncio.get_running_loop().time(), len(self._waiting)
        has_place = count < self._limit or self._end_longest(now)
        if not has_place and count >= MOST * self._limit:
            raise OverloadedError
        try:
            async with asyncio.timeout(self._seconds if has_place else PATIENCE) as timeout:
                self._waiting[timeout] = now
                try:
                    message = await context.read()
                finally:
                    self._waiting.pop(timeout, None)
        except TimeoutError as error:
            raise DeadlineExceededError("the request did not arrive in time; send it faster, or send less") from error
        if message is grpc.aio.EOF:
            # A message may also be missing because the client has cancelled the call. Then gRPC cancels this task soon.
            await asyncio.sleep(CANCELLATION_SECONDS)
            raise InputError("the call has no message")
        content: bytes = message
        return content

    def stop(self) -> None:
        """Let no call wait longer than ``LAST_SECONDS`` from now on, because the service stops."""
        self._seconds = min(self._seconds, LAST_SECONDS)
        end = asyncio.get_running_loop().time() + self._seconds
        for timeout in self._waiting:
            timeout.reschedule(min(end, timeout.when() or end))

    def _end_longest(self, now: float) -> bool:
        """End the call that has waited longest if it has waited too long, and return whether it has."""
        timeout, since = next(iter(self._waiting.items()))
        if now - since < PATIENCE:
            return False
        del self._waiting[timeout]
        timeout.reschedule(now)
        return True

"""Receive the messages of calls, and bound how many messages may be on their way.

gRPC keeps the received part of a message where the service cannot count it. So the number of calls that wait for the
rest of their messages is limited. A message that comes together with its call needs only a turn of the event loop. So
a new call always gets a place for a moment.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from serving.errors import DeadlineExceededError, InputError, InputTooLargeError, OverloadedError
from serving.settings import Settings

# A call that has waited this many seconds for its message may end if too many others wait too.
PATIENCE = 1.0
# If these places are taken, this many further calls may wait for this many seconds. If those places are taken too, each
# new call ends the oldest of them.
MAX_NEW, GLANCE = 64, 0.05
# Seconds that a call may wait for its message while the service stops.
LAST_SECONDS = 1.0
# Seconds after the end of the messages in which gRPC says that the client has cancelled the call.
CANCELLATION_SECONDS = 0.1
# The largest message of all methods except ModelInfer.
MAX_SMALL = 65_536


def limit_of(settings: Settings, max_large: int) -> int:
    """Return how many calls may wait for long: as many messages as the service may hold, and as large requests."""
    return max(1, min(max_large, settings.max_held // settings.max_body))


class Receiving:
    """The calls of one worker that wait for their messages.

    Args:
        limit: the calls that may wait for long. Beyond it, each new call ends the one that has waited longest if it has
            waited for PATIENCE. Else as many again may wait for PATIENCE.
        seconds: the time that a client may take to send a message.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        # When each call began, the oldest first.
        self._long: dict[asyncio.Timeout, float] = {}
        self._short: dict[asyncio.Timeout, float] = {}
        self._new: dict[asyncio.Timeout, float] = {}

    async def message(self, context: Any) -> bytes:
        """Return the message of a call.

        Raises:
            DeadlineExceededError: the client took too long.
            OverloadedError: the call has ended because others needed its place.
            InputError: the client has sent no message, or one over the limit. gRPC tells the client which.
        """
        message = await self.next(context)
        if message is None:
            # A message may also be missing because the client has cancelled the call. Then gRPC cancels this task soon.
            await asyncio.sleep(CANCELLATION_SECONDS)
            raise InputError("the call has no message")
        return message

    async def small(self, context: Any) -> bytes:
        """Return the message of a call like :meth:`message`, which has at most ``MAX_SMALL`` bytes."""
        return _checked(await self.message(context))

    async def next_small(self, context: Any) -> bytes | None:
        """Return the next message of a stream, which has at most ``MAX_SMALL`` bytes, or None at its end."""
        message = await self.next(context)
        return message if message is None else _checked(message)

    async def next(self, context: Any) -> bytes | None:
        """Return the next message of a stream, or None at its end.

        Raises:
            DeadlineExceededError: the client took too long.
            OverloadedError: the call has ended because others needed its place.
        """
        now = asyncio.get_running_loop().time()
        places, seconds = self._place(now)
        is_ended = False
        try:
            async with asyncio.timeout(seconds) as timeout:
                places[timeout] = now
                try:
                    message = await context.read()
                finally:
                    is_ended = places.pop(timeout, None) is None
        except TimeoutError as error:
            if is_ended or places is not self._long:
                raise OverloadedError from error
            raise DeadlineExceededError("the request did not arrive in time; send it faster, or send less") from error
        if message is grpc.aio.EOF:
            return None
        content: bytes = message
        return content

    def stop(self) -> None:
        """Let no call wait longer than ``LAST_SECONDS`` from now on, because the service stops."""
        self._seconds = min(self._seconds, LAST_SECONDS)
        end = asyncio.get_running_loop().time() + self._seconds
        for timeout in (*self._long, *self._short):
            _end_by(timeout, end)

    def _place(self, now: float) -> tuple[dict[asyncio.Timeout, float], float]:
        """Return where a new call waits, and for how many seconds."""
        if len(self._long) < self._limit or _end_oldest(self._long, now - PATIENCE):
            return self._long, self._seconds
        if len(self._short) < self._limit:
            return self._short, min(self._seconds, PATIENCE)
        if len(self._new) >= MAX_NEW:
            _end_oldest(self._new, now)
        return self._new, GLANCE


def _end_oldest(waiting: dict[asyncio.Timeout, float], latest: float) -> bool:
    """End the call that has waited longest if it began before ``latest`` or then, and return whether it did."""
    timeout, since = next(iter(waiting.items()))
    if since > latest:
        return False
    del waiting[timeout]
    _end_by(timeout, since)
    return True


def _end_by(timeout: asyncio.Timeout, end: float) -> None:
    """Let a timeout end by a time. One that has ended cannot be changed, and may be here until its task runs."""
    if not timeout.expired():
        timeout.reschedule(min(end, timeout.when() or end))


def _checked(message: bytes) -> bytes:
    if len(message) > MAX_SMALL:
        raise InputTooLargeError(f"the message has {len(message)} bytes: must have at most {MAX_SMALL}")
    return message

"""The bytes that one connection holds for its client, and the time for which the client has not read its responses."""

from __future__ import annotations

import asyncio

from serving.inference.admission import Held

# A connection may hold this many bytes without being charged, so that small requests are never rejected because other
# connections hold many bytes.
FREE_BYTES = 16_384
# Seconds after which the bytes of a request that has ended are out of memory. Until then, the application may not have
# noticed the end, and the event loop may read more from many other connections.
LEAVING_SECONDS = 0.1


class Account:
    """Adds the bytes of one connection to the sum of the worker."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._unread = 0
        self._unread_since = 0.0
        self.charged = 0
        """Bytes charged; 0 if the connection holds few."""

    def charge(self, size: int) -> bool:
        """Charge ``size`` bytes instead of those charged before. Return whether that makes the sum too large."""
        size = size if size > FREE_BYTES else 0
        grows = size > self.charged
        self._held.bytes += size - self.charged
        self.charged = size
        return grows and self._held.is_full()

    def free(self, loop: asyncio.AbstractEventLoop) -> None:
        """Charge nothing, because the requests have ended. The sum counts their bytes until they are out of memory."""
        size = self.charged
        self.charge(0)
        if size:
            self._held.leaving += size
            loop.call_later(LEAVING_SECONDS, self._held.forget, size)

    def is_over(self) -> bool:
        """Return whether the sum is too large and this connection adds to it."""
        return self.charged > 0 and self._held.is_full()

    def unread_for(self, unread: int, now: float) -> float:
        """Return for how many seconds the client has read nothing of its ``unread`` bytes. Call this repeatedly."""
        if not unread or not 0 < self._unread <= unread:
            self._unread_since = now
        self._unread = unread
        return now - self._unread_since

"""What one connection holds for its client: bytes in memory, and responses that the client does not read."""

from __future__ import annotations

from serving.inference.admission import Held

# A connection may hold this many bytes without being charged, so that small requests are never rejected for others.
FREE_BYTES = 16_384


class Account:
    """Charges the bytes of one connection to all those that the worker holds."""

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

    def is_over(self) -> bool:
        """Return whether the sum is too large and this connection adds to it."""
        return self.charged > 0 and self._held.is_full()

    def unread_for(self, unread: int, now: float) -> float:
        """Return for how many seconds the client has not taken a byte of its ``unread`` bytes. Call this repeatedly."""
        if not unread or not 0 < self._unread <= unread:
            self._unread_since = now
        self._unread = unread
        return now - self._unread_since

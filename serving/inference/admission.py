"""Admission: how many predictions one worker may have in flight, and how many bytes it may hold for its clients.

A prediction beyond the limit is rejected with OverloadedError, which api/problems.py maps to status 429. The server
checks the limit before it reads a request's body, so that a rejected request costs little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import OverloadedError
from serving.inference.threads import INLINE_BYTES

PREDICT_ROUTE = "/predict"
FEEDBACK_ROUTE = "/feedback"
INFER_ROUTE = "/v2/models/{name}/infer"
INFER_VERSION_ROUTE = "/v2/models/{name}/versions/{version}/infer"

_LIMITED_PATH = re.compile(r"(/predict|/feedback)|/v2/models/[^/]+(/versions/[^/]+)?/infer")


def limited_route(path: str) -> str | None:
    """Return the route that ``path`` belongs to if the limit applies to it, otherwise None."""
    match = _LIMITED_PATH.fullmatch(path)
    if match is None:
        return None
    return match[1] or (INFER_ROUTE if match[2] is None else INFER_VERSION_ROUTE)


class Admission:
    """Counts the predictions in flight in one worker.

    A prediction is in flight from the arrival of its whole request until its response is computed. How long the client
    takes to read the response does not matter. Large requests take a hundred times as long as small ones, so they may
    take only half of the places.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight = 0
        self._large = 0

    @property
    def max_large(self) -> int:
        """The largest number of large requests."""
        return (self._limit + 1) // 2

    @property
    def is_busy(self) -> bool:
        """Whether there is no place for some requests: for all of them, or for the large ones."""
        return self._in_flight >= self._limit or self._large >= self.max_large

    def is_full(self, size: int = 0) -> bool:
        """Return whether there is no place for a request with a body of ``size`` bytes."""
        return self._in_flight >= self._limit or (size > INLINE_BYTES and self._large >= self.max_large)

    def rejects(self, path: str, size: int = 0) -> bool:
        """Return whether a request to ``path`` with a body of ``size`` bytes would be rejected."""
        return self.is_full(size) and limited_route(path) is not None

    def enter(self, size: int = 0) -> bool:
        """Count a prediction with a body of ``size`` bytes and return True, or return False if it has no place."""
        if self.is_full(size):
            return False
        self._in_flight += 1
        self._large += size > INLINE_BYTES
        return True

    def leave(self, size: int = 0) -> None:
        """Stop counting a prediction that :meth:`enter` counted with the same ``size``."""
        self._in_flight -= 1
        self._large -= size > INLINE_BYTES


class Held:
    """Counts the bytes that one worker holds for its clients: requests without a response, and unread responses."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bytes = 0
        self.leaving = 0
        """Bytes of requests that have ended, which are still in memory for a moment."""

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count ``size`` bytes inside the ``with`` statement if they are many.

        Raises:
            OverloadedError: there are more bytes than the limit.
        """
        counted = size if size > INLINE_BYTES else 0
        self.bytes += counted
        try:
            if counted and self.is_full():
                raise OverloadedError
            yield
        finally:
            self.bytes -= counted

    def is_full(self, freed: int = 0) -> bool:
        """Return whether there are more bytes than the limit, also when ``freed`` of them are free."""
        return self.bytes + self.leaving - freed > self._limit

    def needs_room(self) -> bool:
        """Return whether the open requests alone hold more bytes than the limit, so that one of them must end."""
        return self.bytes > self._limit

    def forget(self, size: int) -> None:
        """Stop counting ``size`` bytes of requests that have ended."""
        self.leaving -= size

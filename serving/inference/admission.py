"""Admission: how many predictions one worker may have in flight, and how many bytes it may hold for its clients.

A prediction beyond the limit is rejected with OverloadedError, which api/problems.py maps to status 429. The server
checks the limit before it reads a request's body, so that a rejected request costs little.
"""

from __future__ import annotations

import re

PREDICT_ROUTE = "/predict"
INFER_ROUTE = "/v2/models/{name}/infer"
INFER_VERSION_ROUTE = "/v2/models/{name}/versions/{version}/infer"

_LIMITED_PATH = re.compile(r"/predict|(/v2/models/[^/]+(/versions/[^/]+)?/infer)")


def limited_route(path: str) -> str | None:
    """Return the route that ``path`` belongs to if the limit applies to it, otherwise None."""
    match = _LIMITED_PATH.fullmatch(path)
    if match is None:
        return None
    if match[1] is None:
        return PREDICT_ROUTE
    return INFER_ROUTE if match[2] is None else INFER_VERSION_ROUTE


class Admission:
    """Counts the predictions in flight in one worker.

    A prediction is in flight from the arrival of its whole request until its response is computed. How long the client
    takes to read the response does not matter.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight = 0

    def is_full(self) -> bool:
        """Return whether the limit is reached."""
        return self._in_flight >= self._limit

    def rejects(self, path: str) -> bool:
        """Return whether a request to ``path`` would be rejected."""
        return self.is_full() and limited_route(path) is not None

    def enter(self) -> bool:
        """Count a prediction and return True, or return False if the limit is reached."""
        if self.is_full():
            return False
        self._in_flight += 1
        return True

    def leave(self) -> None:
        """Stop counting a prediction that :meth:`enter` counted."""
        self._in_flight -= 1


class Held:
    """Counts the bytes that one worker holds for its clients: requests that are not answered, and unread responses."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bytes = 0

    def is_full(self) -> bool:
        """Return whether there are more bytes than the limit."""
        return self.bytes > self._limit

"""The RequestContext of one request over HTTP, and how handlers read its body and its query."""

from __future__ import annotations

import difflib
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from litestar import Request

from serving.errors import InputError, InputTooLargeError, quoted
from serving.inference.admission import limited_route
from serving.service.call import Call

AnyRequest = Request[Any, Any, Any]

# The key of the ASGI scope that holds the RequestContext.
SCOPE_KEY = "mnist.context"

# Limits of a query, in bytes and in parameters. The routes know five parameters.
MAX_QUERY = 4096
MAX_QUERY_PARAMETERS = 64
# Characters of an unknown parameter that are compared with the known ones.
MAX_NAME = 40


@dataclass(slots=True, eq=False)
class RequestContext(Call):
    """What the service keeps about one request, in addition to its ASGI scope."""

    def arrived(self, method: str, path: str, size: int) -> None:
        """Set the time of arrival of the whole request. Count a prediction, or reject it if the limit is reached.

        Args:
            size: bytes of the body.
        """
        self.arrival = time.monotonic()
        self.is_complete, self.size = True, size
        if method == "POST" and limited_route(path):
            self.enter()

    def media_type(self) -> str:
        """Return the Content-Type in lower case and without its parameters; empty if the client has named none."""
        return (self.header(b"content-type") or "").partition(";")[0].strip().lower()

    def encoding(self) -> str:
        """Return the Content-Encoding in lower case; empty if the body is not compressed."""
        encoding = (self.header(b"content-encoding") or "").strip().lower()
        return "" if encoding == "identity" else encoding


def context_of(request: AnyRequest) -> RequestContext:
    """Return the context of ``request``."""
    return cast("RequestContext", request.scope[SCOPE_KEY])  # type: ignore[literal-required]


async def read_body(request: AnyRequest, limit: int) -> bytes:
    """Return the whole body of ``request``. Litestar's ``request.body()`` takes three times as long.

    Raises:
        InputTooLargeError: the body has more than ``limit`` bytes, by its Content-Length or by count.
        InputError: the client disconnected.
    """
    context = context_of(request)
    if int(context.header(b"content-length") or 0) > limit:
        raise InputTooLargeError(_over_limit(limit))
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise InputError("the client disconnected before its request was complete")
        chunks.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise InputTooLargeError(_over_limit(limit))
        more = message["more_body"]
    return b"".join(chunks)


def query_of(request: AnyRequest, known: Sequence[str]) -> dict[str, str]:
    """Return the parameters of the query by name. Of a name that is given twice, the first one counts.

    Litestar's ``request.query_params`` keeps the last thousand queries in a cache, however long they are.

    Args:
        known: the names that the query may have. With a misspelt one, a default would be used in its place.

    Raises:
        InputError: the query is too long, has too many parameters, or has an unknown one.
    """
    query = request.scope["query_string"]
    if not query:
        return {}
    if len(query) > MAX_QUERY:
        raise InputError(f"the query has {len(query)} bytes: must have at most {MAX_QUERY}")
    try:
        pairs = urllib.parse.parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_PARAMETERS
        )
    except ValueError as error:
        raise InputError(f"the query has too many parameters: must be at most {MAX_QUERY_PARAMETERS}") from error
    for name, _ in pairs:
        if name not in known:
            raise InputError(_unknown(name, known))
    return dict(reversed(pairs))


def _unknown(name: str, known: Sequence[str]) -> str:
    similar = difflib.get_close_matches(name[:MAX_NAME].lower(), known, n=1)
    hint = f"did you mean {similar[0]}? " if similar else ""
    return f"parameter {quoted(name)}: unknown; {hint}choose from {', '.join(known)}"


def _over_limit(limit: int) -> str:
    return f"the body is over the limit of {limit} bytes; send less"

"""A request's parts and its answer, without what the framework's own way to them costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from litestar import Request
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.handlers import HTTPRouteHandler
from litestar.types import AnyCallable, Receive, Scope, Send

from serving.errors import InputError

AnyRequest = Request[Any, Any, Any]


def header(request: AnyRequest, name: bytes) -> str | None:
    """A header of the request; of several with one name the last. ``request.headers`` takes ten times as long."""
    headers: dict[bytes, bytes] | None = request.scope.get("mnist.headers")  # type: ignore[assignment]
    if headers is None:
        headers = dict(request.scope["headers"])
        request.scope["mnist.headers"] = headers  # type: ignore[typeddict-unknown-key]
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


async def read_body(request: AnyRequest, limit: int) -> bytes:
    """The whole body. ``request.body()`` takes three times as long.

    Raises:
        RequestEntityTooLarge: it has more than ``limit`` bytes, as Content-Length tells or as they arrive.
        InputError: the client left.
    """
    if int(header(request, b"content-length") or 0) > limit:
        raise RequestEntityTooLarge
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise InputError("the client left before its request was whole")
        chunks.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise RequestEntityTooLarge
        more = message["more_body"]
    return b"".join(chunks)


class prediction(HTTPRouteHandler):  # noqa: N801 - a decorator
    """A route for POST whose function takes the request and nothing else.

    The framework would look up and check its argument by name and type for each request, which takes half as long
    as a small model. What is to run before the function is spared that, and may answer in its place: here it is
    the function itself.
    """

    def __init__(self, path: str | list[str], **options: Any) -> None:
        super().__init__(path, http_method="POST", status_code=200, tags=["prediction"], **options)

    def __call__(self, fn: AnyCallable) -> Self:
        """Decorate ``fn``."""
        super().__call__(fn)
        self.before_request = fn
        return self


@dataclass(frozen=True)
class Response:
    """An answer as it goes out, without the framework's own way there, which costs as much as the model."""

    body: bytes
    headers: list[tuple[bytes, bytes]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        length = (b"content-length", b"%d" % len(self.body))
        await send({"type": "http.response.start", "status": 200, "headers": [*self.headers, length]})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})

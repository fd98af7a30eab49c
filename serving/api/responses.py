"""A response that is sent in one piece, through ASGI or as bytes for the socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

from litestar.types import Receive, Scope, Send

JSON = (b"content-type", b"application/json")
# For a document that may change at any time, and that may need a key: no cache may use it without asking the service.
CHECK_AGAIN = (b"cache-control", b"private, no-cache")


@dataclass(frozen=True)
class Response:
    """A status, headers and a whole body. Litestar needs as long as the model to send its own response classes."""

    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    status: int = 200

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers, with the length of the body among them."""
        if self.status == HTTPStatus.NOT_MODIFIED:
            # With 304, a Content-Length would be that of the body that the client has already.
            return self.headers
        return [*self.headers, (b"content-length", b"%d" % len(self.body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response as an ASGI application does."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers()})
        body = b"" if scope.get("method") == "HEAD" else self.body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def to_asgi_response(self, *_: object, **__: object) -> Response:
        """Return the response itself. Litestar calls this on what an exception handler returns."""
        return self

    def to_http(self, *more_headers: tuple[bytes, bytes]) -> bytes:
        """Return the response as the bytes of HTTP/1.1."""
        lines = [b"HTTP/1.1 %d %s" % (self.status, HTTPStatus(self.status).phrase.encode())]
        lines += [b"%s: %s" % header for header in (*self.all_headers(), *more_headers)]
        return b"\r\n".join([*lines, b"", self.body])

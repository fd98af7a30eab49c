"""Requests that the server rejects before the application has received them, and the responses."""

from __future__ import annotations

from collections.abc import Iterable

from serving.api.middleware import rejected
from serving.errors import SEND_LESS, quoted
from serving.service.service import Service
from serving.settings import Settings


class RejectedError(Exception):
    """The request that is being read is rejected, and its connection ends. Raised in a callback, it stops the parser.

    Args:
        reason: one of CLOSE_REASONS in serving/telemetry/metrics.py.
    """

    def __init__(self, reason: str, status: int, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.status, self.detail = reason, status, detail

    def to_http(
        self, service: Service, url: bytes, headers: list[tuple[bytes, bytes]], more: Iterable[tuple[bytes, bytes]]
    ) -> bytes:
        """Return the whole response, for the part of the request that is known."""
        response = rejected(service, path_of(url), headers, self.status, self.detail)
        return response.to_http(*more, (b"connection", b"close"))


def path_of(url: bytes) -> str:
    """Return the path of the target of a request that the application does not receive."""
    return url.partition(b"?")[0].decode("latin-1")


def malformed(detail: object) -> RejectedError:
    return RejectedError("malformed", 400, f"this is not a request that HTTP/1.1 allows here: {detail}")


def incomplete() -> RejectedError:
    return RejectedError("incomplete", 400, "the client closed the connection before its request was complete")


def unknown_version(version: str) -> RejectedError:
    return RejectedError("malformed", 505, f"HTTP/{version}: send the request as HTTP/1.1")


def unknown_transfer_encoding(encoding: bytes) -> RejectedError:
    detail = (
        f"Transfer-Encoding {quoted(encoding.decode('latin-1'))}: must be chunked; "
        "to compress a body, use Content-Encoding, which the routes below /v2 accept"
    )
    return RejectedError("malformed", 501, detail)


def head_too_large(settings: Settings) -> RejectedError:
    detail = f"the request line and headers, or the trailers, are over {settings.max_head} bytes, the limit; send less"
    return RejectedError("head_too_large", 431, detail)


def body_too_large(settings: Settings) -> RejectedError:
    detail = f"the body is over the limit of {settings.max_body} bytes; {SEND_LESS}"
    return RejectedError("body_too_large", 413, detail)


def too_slow(settings: Settings) -> RejectedError:
    detail = f"the request was not complete after {settings.request_timeout} s; send it faster, or send less"
    return RejectedError("request_timeout", 408, detail)


def too_many_connections() -> RejectedError:
    return RejectedError("too_many_connections", 503, "too many connections are open; try again in a moment")


def too_many_bytes() -> RejectedError:
    detail = "unfinished requests and unread responses take too much memory; try again in a moment"
    return RejectedError("too_many_bytes", 429, detail)

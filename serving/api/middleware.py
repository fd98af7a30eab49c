"""Around every request: its id, its time, its place in the metrics, and the headers that every answer has."""

from __future__ import annotations

import logging
import random
import re
import time

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from serving.api.page import PAGES
from serving.api.problems import failure
from serving.errors import OverloadedError
from serving.inference.service import Service
from serving.telemetry.logs import request_fields

log = logging.getLogger("serving.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
# version-trace-parent-flags, https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

# Of an answer that is data, whatever a browser may take it for.
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
# Of a page: everything comes from the service itself; pictures also from the page's own canvas.
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    b"media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_SECURITY = [
    *SECURITY[:-1],
    (b"content-security-policy", PAGE_POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
]


REFUSAL = b"".join(
    [
        b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: %s\r\ncontent-length: %d\r\nretry-after: 1\r\n",
        *(b"%s: %s\r\n" % header for header in SECURITY),
        b"x-request-id: %s\r\n%s\r\n%s",
    ]
)


def observed(app: ASGIApp, service: Service) -> ASGIApp:
    """Wrap ``app``, refusals of its router included, which no middleware of a route sees."""
    metrics, access_log = service.metrics, service.settings.access_log

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.WEBSOCKET:
            await app(scope, receive, send)
            return
        started = time.perf_counter()
        # Where the handlers find it; the framework's own state takes a lock for each look.
        scope["mnist.service"] = service  # type: ignore[typeddict-unknown-key]
        fields, request_id = identify(scope["headers"])
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # While draining: the client's next request goes to a connection that will still be there.
                closing = [(b"connection", b"close")] if service.draining else []
                security = PAGE_SECURITY if scope.get("path_template") in PAGES else SECURITY
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), *security, *closing]
            await send(message)

        token = request_fields.set(fields)
        metrics.in_flight += 1
        try:
            if "mnist.refused" in scope:
                await refuse(scope, send_with_headers)
            else:
                await app(scope, receive, send_with_headers)
        finally:
            service.gate.left(scope)  # type: ignore[arg-type]
            metrics.in_flight -= 1
            seconds = time.perf_counter() - started
            # The path as it was declared: what a caller writes into it makes no new series.
            route = "unmatched" if status in (404, 405) else scope.get("path_template") or "unmatched"
            metrics.request(route, scope["method"], status, seconds)
            if access_log:
                line = {"method": scope["method"], "path": scope["path"], "status": status}
                log.info("request", extra={"fields": {**line, "milliseconds": round(seconds * 1000, 3)}})
            request_fields.reset(token)

    return answer


async def refuse(scope: Scope, send: Send) -> None:
    """429 without the rest of the application."""
    body, kind = failure(scope["path"], 429, str(OverloadedError()))
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body)), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def refusal(service: Service, scope: HTTPScope, header: bytes = b"") -> bytes:
    """The same as bytes for the socket: under overload what is refused must cost next to nothing.

    Args:
        header: one more, its line break with it.
    """
    _, request_id = identify(scope["headers"])
    body, kind = failure(scope["path"], 429, str(OverloadedError()))
    route = "/predict" if scope["path"].startswith("/predict") else "/v2/models/{name}/infer"
    service.metrics.request(route, scope["method"], 429, 0.0)
    if service.settings.access_log:
        line = {"method": scope["method"], "path": scope["path"], "status": 429, "request_id": request_id.decode()}
        log.info("request", extra={"fields": line})
    return REFUSAL % (kind.encode(), len(body), request_id, header, body)


def identify(headers: object) -> tuple[dict[str, str], bytes]:
    """What to log of a request, and its id: the caller's, the trace's, or a new one."""
    request_id, trace = b"", b""
    for name, value in headers:  # type: ignore[attr-defined]
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            request_id = value
        elif name == b"traceparent" and (found := TRACEPARENT.fullmatch(value)):
            trace = found[1]
    # Unique is enough here: the system's own randomness would take a tenth of what the model does.
    request_id = request_id or trace or b"%016x" % random.getrandbits(64)
    fields = {"request_id": request_id.decode()}
    if trace:
        fields["trace_id"] = trace.decode()
    return fields, request_id

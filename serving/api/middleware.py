"""Give every request an ID, time it, count it, log it, and add headers to its response."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from serving.api.card import CARD_ROUTE
from serving.api.context import SCOPE_KEY, RequestContext
from serving.api.cors import cors_config, cors_headers, is_foreign_preflight
from serving.api.page import PAGES
from serving.api.problems import RETRY_STATUSES, not_found, problem, problem_of, with_head
from serving.api.responses import Response
from serving.api.spans import request_note
from serving.api.targets import MAX_PATH, Hosts, is_canonical
from serving.errors import MisdirectedError, OverloadedError
from serving.inference.admission import limited_route
from serving.service.call import Call, Headers, identify
from serving.service.service import Service
from serving.telemetry.logs import request_fields

log = logging.getLogger("serving.access")

# For responses that hold data: a browser must not treat them as a page or a script.
DATA_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
# For pages: a browser loads files from this service only. Pictures may also come from the page's own canvas.
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    b"media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_SECURITY = [
    *DATA_SECURITY[:-1],
    (b"content-security-policy", PAGE_POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
]

# The routes whose responses are pages.
PAGE_ROUTES = {*PAGES, CARD_ROUTE}


def observed(app: ASGIApp, service: Service) -> ASGIApp:
    """Return ``app`` wrapped so that every request is identified, timed and counted.

    Litestar's own middleware would miss errors of the router, such as 404.
    """
    recorder, tracer, access_log = service.recorder, service.tracer, service.settings.access_log
    hosts, cors = Hosts(service.settings), cors_config(service.settings.cors_origins)

    def responder(scope: HTTPScope, context: RequestContext) -> ASGIApp:
        """Return what responds to a request: the application, or an error response before it."""
        path, headers = scope["path"], scope["headers"]
        if context.is_rejected:
            return too_many_in_flight(service, path, headers)
        try:
            hosts.check(headers, scope["server"])
        except MisdirectedError as error:
            return problem_of(error, path)
        if is_foreign_preflight(cors, scope["method"], headers):
            # Litestar would respond with plain text instead of a problem document.
            return problem(
                path, 403, "this origin may not call the service; the operator can allow it with --cors-origins"
            )
        if is_canonical(scope["raw_path"]):
            return app
        return with_cors(service, not_found(path, context.header(b"accept") or ""), headers)

    def record(scope: HTTPScope, context: RequestContext, template: str | None, status: int, started: float) -> None:
        """Count, trace and log a request that has ended."""
        seconds = time.perf_counter() - started
        # The declared route, so that made-up paths create no new series in the metrics.
        route = "unmatched" if status in (404, 405) else template or "unmatched"
        recorder.request(route, scope["method"], status, seconds)
        if tracer and (trace := context.trace):
            tracer.end(request_note(context, trace, scope, route, status, started, seconds))
            recorder.exemplar(route, status, seconds, trace.trace_id, trace.span_id)
        if access_log:
            log_access(scope["method"], scope["path"], status, milliseconds=round(seconds * 1000, 3))

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.WEBSOCKET:
            await app(scope, receive, send)
            return
        started = time.perf_counter()
        context = context_in(scope, service)
        fields, request_id, context.trace = identify(scope["headers"], tracer, scope["path"])
        context.request_id = fields["request_id"]
        status = 0  # The response has not begun.
        # Litestar's routes know GET only. The response to HEAD has the same headers and no body.
        is_head = scope["method"] == "HEAD"
        inner = cast("HTTPScope", {**scope, "method": "GET"}) if is_head else scope

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # The response is computed. A client that reads it slowly must not keep other predictions out.
                context.finished()
                # While the service drains, the client must send its next request on another connection. This one ends.
                # It also ends if the response does not wait for the rest of the request.
                closing = [(b"connection", b"close")] if service.draining or not context.is_complete else []
                security = PAGE_SECURITY if inner.get("path_template") in PAGE_ROUTES else DATA_SECURITY
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), *security, *closing]
                if scope["method"] == "OPTIONS":
                    message["headers"] = [_with_head(*header) for header in message["headers"]]
            elif is_head and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        token = request_fields.set(fields)
        recorder.in_flight += 1
        try:
            await responder(scope, context)(inner, receive, send_with_headers)
        except asyncio.CancelledError:
            # Only the end of --grace cancels requests. uvicorn ends the connection of a response that has begun.
            if not status:
                await stopped(service, scope["path"], scope["headers"])(inner, receive, send_with_headers)
        finally:
            context.finished()
            context.compare()
            recorder.in_flight -= 1
            record(scope, context, inner.get("path_template"), status or 500, started)
            request_fields.reset(token)

    return respond


def _with_head(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return a header of Litestar's response to OPTIONS. ``Allow`` gets HEAD wherever it has GET."""
    return (name, with_head(value.decode()).encode()) if name == b"allow" else (name, value)


def context_in(scope: object, service: Service) -> RequestContext:
    """Return the context that the server put into ``scope``, or a new one if there is no server, as in tests."""
    values = cast("dict[str, RequestContext]", scope)
    if SCOPE_KEY not in values:
        values[SCOPE_KEY] = RequestContext(service, cast("Scope", scope)["headers"])
    return values[SCOPE_KEY]


def too_many_in_flight(service: Service, path: str, headers: Headers) -> Response:
    """Return the 429 response for a prediction."""
    return with_cors(service, problem_of(OverloadedError(), path), headers)


def stopped(service: Service, path: str, headers: Headers) -> Response:
    """Return the 503 response for a request that the service has no time left for."""
    detail = "the service has stopped before it could respond; send the request again"
    return with_cors(service, problem(path, 503, detail, {"Retry-After": "1"}), headers)


def with_cors(service: Service, response: Response, headers: Headers) -> Response:
    """Return ``response`` with the CORS headers that the application would add for a request with ``headers``."""
    cors = cors_config(service.settings.cors_origins)
    return Response(response.body, [*response.headers, *cors_headers(cors, headers)], response.status)


def overloaded(service: Service, scope: HTTPScope) -> Response:
    """Return the 429 response for a prediction that never reaches the application. Count and log it like any other."""
    path, method, route = scope["path"], scope["method"], limited_route(scope["path"]) or "unmatched"
    _, request_id, trace = identify(scope["headers"], service.tracer, path)
    response = _with_id(too_many_in_flight(service, path, scope["headers"]), request_id)
    service.recorder.request(route, method, 429, 0.0)
    if service.tracer and trace:
        call = Call(service, scope["headers"], request_id=request_id.decode())
        service.tracer.end(request_note(call, trace, scope, route, 429, time.perf_counter(), 0.0))
    if service.settings.access_log:
        log_access(method, path, 429, request_id=request_id.decode())
    return response


def rejected(service: Service, path: str, headers: Headers, status: int, detail: str) -> Response:
    """Return the response for a request that the server itself rejects, perhaps before all its headers are known."""
    response = problem(path, status, detail, {"Retry-After": "1"} if status in RETRY_STATUSES else None)
    _, request_id, _ = identify(headers)
    return _with_id(with_cors(service, response, headers), request_id)


def _with_id(response: Response, request_id: bytes) -> Response:
    """Return ``response`` with the ID of its request and the security headers."""
    more = [(b"x-request-id", request_id), *DATA_SECURITY]
    return Response(response.body, [*response.headers, *more], response.status)


def log_access(method: str, path: str, status: int, **more: object) -> None:
    """Write the line of the access log for one request."""
    log.info("request", extra={"fields": {"method": method, "path": path[:MAX_PATH], "status": status, **more}})

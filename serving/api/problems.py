"""Map exceptions to error responses: problem documents (RFC 9457), under /v2 errors of the inference protocol."""

from __future__ import annotations

import errno
import html
import logging
from http import HTTPStatus
from typing import Any

import msgspec
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from serving.api.context import AnyRequest
from serving.api.responses import Response
from serving.errors import (
    DeadlineExceededError,
    ForbiddenError,
    InputError,
    InputTooLargeError,
    MisdirectedError,
    ModelNotFoundError,
    ModelUnavailableError,
    NoKeyError,
    OverloadedError,
    RolloutError,
    ServiceError,
    StorageFullError,
    UnsupportedInputError,
    first_line,
    shortened,
)

PROBLEM_TYPE = "application/problem+json"

STATUSES: dict[type[ServiceError], int] = {
    InputError: 400,
    NoKeyError: 401,
    ForbiddenError: 403,
    ModelNotFoundError: 404,
    InputTooLargeError: 413,
    UnsupportedInputError: 415,
    MisdirectedError: 421,
    OverloadedError: 429,
    ModelUnavailableError: 503,
    RolloutError: 503,
    DeadlineExceededError: 504,
    StorageFullError: 507,
}
"""The status of each exception; a subclass that is not listed has the status of its base."""

# The client may send the same request again after a second.
RETRY_STATUSES = (429, 503)

# The headers of the responses with these statuses.
HEADERS = {401: {"WWW-Authenticate": "Bearer"}, **{status: {"Retry-After": "1"} for status in RETRY_STATUSES}}

HEADER_MEANINGS = {
    "WWW-Authenticate": "How to send a key.",
    "Retry-After": "Seconds after which the same request may be sent again.",
}

# Any route may respond so: to a wrong Host, and at a fault of the service.
ANYWHERE = (421, 500)

# The system's errors when a disk, a quota or a file is full.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

MAX_SHOWN_PATH = 200
NOT_FOUND = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Not found</title>
</head>
<body>
<h1>There is nothing here</h1>
<p>This service has no page at <code>{path}</code>.</p>
<p><a href="{start}">Draw a digit</a>, or read <a href="{start}docs">how programs use the service</a>.</p>
</body>
</html>
"""

log = logging.getLogger("serving")


class Problem(msgspec.Struct):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class ProtocolError(msgspec.Struct):
    """An error in the format of the inference protocol."""

    error: str


def problem(path: str, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return the error response for a request to ``path``. ``detail`` says what is wrong and what is expected."""
    detail = shortened(detail)
    if _is_protocol(path):
        body, kind = msgspec.json.encode(ProtocolError(detail)), "application/json"
    else:
        body = msgspec.json.encode(Problem("about:blank", HTTPStatus(status).phrase, status, detail))
        kind = PROBLEM_TYPE
    more = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in (headers or {}).items()]
    return Response(body, [(b"content-type", kind.encode()), *more], status)


def _is_protocol(path: str) -> bool:
    """Return whether a path belongs to the Open Inference Protocol, which has its own form of errors."""
    return path == "/v2" or path.startswith("/v2/")


def problem_of(error: ServiceError, path: str) -> Response:
    """Return the error response for an exception of the service."""
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return problem(path, status, str(error), HEADERS.get(status))


def documented(*statuses: int, form: type = Problem) -> dict[int, ResponseSpec]:
    """Return the error responses of a route, for its OpenAPI entry. Every route may also have those of ``ANYWHERE``."""
    kind = PROBLEM_TYPE if form is Problem else "application/json"
    return {
        status: ResponseSpec(form, description=HTTPStatus(status).phrase, media_type=kind, generate_examples=False)
        for status in sorted({*statuses, *ANYWHERE})
    }


def not_found(path: str, accept: str) -> Response:
    """Return the response for a path at which there is nothing: a page, if ``Accept`` is that of a browser."""
    if "text/html" not in accept.lower() or _is_protocol(path):
        return problem(path, 404, f"there is nothing at {path}; /schema lists the routes", {"Vary": "Accept"})
    # A proxy may serve the whole service below a path of its own, so the links are relative.
    page = NOT_FOUND.format(path=html.escape(path[:MAX_SHOWN_PATH]), start="../" * (path.count("/") - 1) or "./")
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"vary", b"Accept")]
    return Response(page.encode("utf-8", "replace"), headers, 404)


def on_service_error(request: AnyRequest, error: ServiceError) -> ASGIApp:
    full = full_disk_of(error)
    return on_full_disk(request, full) if full else problem_of(error, request.scope["path"])


def on_http_exception(request: AnyRequest, error: HTTPException) -> ASGIApp:
    detail = error.detail or HTTPStatus(error.status_code).description
    return problem(request.scope["path"], error.status_code, detail, dict(error.headers or {}))


def on_not_found(request: AnyRequest, _: NotFoundException) -> ASGIApp:
    return not_found(request.scope["path"], request.headers.get("accept", ""))


def on_method_not_allowed(request: AnyRequest, error: MethodNotAllowedException) -> ASGIApp:
    # Litestar writes the name of the header in upper or in lower case.
    allow = with_head({name.title(): value for name, value in (error.headers or {}).items()}["Allow"])
    path, method = request.scope["path"], request.method
    # The middleware turns HEAD into GET.
    wrong = "GET and HEAD" if method == "GET" else method
    return problem(path, 405, f"{path} does not allow {wrong}; use {allow}", {"Allow": allow})


def with_head(allow: str) -> str:
    """Return the value of an ``Allow`` header, in alphabetical order, with HEAD wherever there is GET."""
    methods = {method.strip() for method in allow.split(",")}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def on_exception(request: AnyRequest, error: Exception) -> ASGIApp:
    """Respond to a fault of the service. The log has the details; the client does not get them."""
    if full := full_disk_of(error):
        return on_full_disk(request, full)
    log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return problem(request.scope["path"], 500, "the service failed on this request; its log gives the reason")


def full_disk_of(error: BaseException | None) -> OSError | None:
    """Return the error of a full disk that is the reason of ``error``, perhaps through other exceptions."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def on_full_disk(request: AnyRequest, error: OSError) -> ASGIApp:
    # No traceback: the code has no fault, and the log may be on the same disk.
    log.error("%s %s failed: a disk is full: %s", request.method, request.scope["path"], first_line(error))
    return problem(request.scope["path"], 507, "a disk of the service is full; its operator must free some space")


HANDLERS: Any = {
    ServiceError: on_service_error,
    NotFoundException: on_not_found,
    MethodNotAllowedException: on_method_not_allowed,
    HTTPException: on_http_exception,
    Exception: on_exception,
}

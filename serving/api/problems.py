"""Failures: RFC 9457 problem documents, and under /v2 the inference protocol's own form."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi.datastructures import ResponseSpec

from serving.api.http import AnyRequest
from serving.errors import (
    DeadlineExceededError,
    InputError,
    InputTooLargeError,
    ModelNotFoundError,
    ModelUnavailableError,
    OverloadedError,
    ServiceError,
    UnsupportedInputError,
)

PROBLEM = "application/problem+json"

# The HTTP status of each exception, and the statuses after which a client may try again soon.
STATUS: dict[type[Exception], int] = {
    InputError: 400,
    InputTooLargeError: 413,
    UnsupportedInputError: 415,
    ModelNotFoundError: 404,
    ModelUnavailableError: 503,
    OverloadedError: 429,
    DeadlineExceededError: 504,
}
RETRY = (429, 503)

log = logging.getLogger("serving")


class Problem(msgspec.Struct):
    """A problem document."""

    type: str
    title: str
    status: int
    detail: str


class ProtocolError(msgspec.Struct):
    """The inference protocol's form of a failure."""

    error: str


def failure(path: str, status: int, detail: str) -> tuple[bytes, str]:
    """Body and media type of a failure in the form of its path."""
    if path == "/v2" or path.startswith("/v2/"):
        return msgspec.json.encode(ProtocolError(detail)), "application/json"
    return msgspec.json.encode(Problem("about:blank", HTTPStatus(status).phrase, status, detail)), PROBLEM


def refusal(request: AnyRequest, status: int, detail: str, headers: dict[str, str] | None = None) -> Response[bytes]:
    """A failure as an answer; ``detail`` says what was wrong and what would be right."""
    body, kind = failure(request.scope["path"], status, detail)
    return Response(body, status_code=status, media_type=kind, headers=headers)


def documented(*statuses: int, form: type = Problem) -> dict[int, ResponseSpec]:
    """The failures of an operation, for its OpenAPI entry."""
    kind = PROBLEM if form is Problem else "application/json"
    return {
        status: ResponseSpec(form, description=HTTPStatus(status).phrase, media_type=kind, generate_examples=False)
        for status in statuses
    }


def on_http_exception(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """A refusal, ours or the framework's."""
    detail = error.detail or HTTPStatus(error.status_code).description
    return refusal(request, error.status_code, detail, dict(error.headers or {}))


def on_not_found(request: AnyRequest, _: NotFoundException) -> Response[bytes]:
    """No such path."""
    return refusal(request, 404, f"there is nothing at {request.scope['path']}; /schema tells what there is")


def on_method_not_allowed(request: AnyRequest, error: MethodNotAllowedException) -> Response[bytes]:
    """The path is right, the method is not."""
    # The framework writes the name of the header in both cases.
    allow = {name.title(): value for name, value in (error.headers or {}).items()}["Allow"]
    detail = f"{request.method} is not offered at {request.scope['path']}; offered: {allow}"
    return refusal(request, 405, detail, {"Allow": allow})


def on_body_too_large(request: AnyRequest, _: RequestEntityTooLarge) -> Response[bytes]:
    """The body was refused by its Content-Length, or while it arrived."""
    limit = request.app.state.service.settings.max_body
    return refusal(request, 413, f"the body is over the limit of {limit} bytes")


def on_service_error(request: AnyRequest, error: ServiceError) -> Response[bytes]:
    """An exception of our own."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    return refusal(request, status, str(error), {"Retry-After": "1"} if status in RETRY else None)


def on_exception(request: AnyRequest, error: Exception) -> Response[bytes]:
    """A fault of ours: told in the log, not to the caller."""
    log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return refusal(request, 500, "The server failed on this request; its log says why.")


HANDLERS: Any = {
    RequestEntityTooLarge: on_body_too_large,
    NotFoundException: on_not_found,
    MethodNotAllowedException: on_method_not_allowed,
    **dict.fromkeys(STATUS, on_service_error),
    HTTPException: on_http_exception,
    Exception: on_exception,
}

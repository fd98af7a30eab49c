"""Failures as RFC 9457 problem documents."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

PROBLEM = "application/problem+json"

log = logging.getLogger("serving")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response[bytes]:
    """A problem document; ``detail`` says what was wrong and what would be right."""
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(msgspec.json.encode(document), status_code=status, media_type=PROBLEM, headers=headers)


def on_http_exception(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """A refusal, ours or the framework's."""
    detail = error.detail or HTTPStatus(error.status_code).description
    return problem(error.status_code, detail, dict(error.headers or {}))


def on_not_found(request: Request[Any, Any, Any], _: NotFoundException) -> Response[bytes]:
    """No such path."""
    return problem(404, f"there is nothing at {request.url.path}; /schema tells what there is")


def on_method_not_allowed(request: Request[Any, Any, Any], error: MethodNotAllowedException) -> Response[bytes]:
    """The path is right, the method is not."""
    headers = dict(error.headers or {})
    detail = f"{request.method} is not offered at {request.url.path}; offered: {headers.get('Allow', 'see /schema')}"
    return problem(405, detail, headers)


def on_body_too_large(request: Request[Any, Any, Any], _: RequestEntityTooLarge) -> Response[bytes]:
    """The body was refused by its Content-Length, or while it arrived."""
    return problem(413, f"the body is over the limit of {request.app.state.settings.max_body} bytes")


def on_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours: told in the log, not to the caller."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, "The server failed on this request; its log says why.")

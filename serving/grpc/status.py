"""Map exceptions to status codes of gRPC, and those to the statuses of HTTP under which the metrics count them."""

from __future__ import annotations

import grpc

from serving.errors import (
    DeadlineExceededError,
    ForbiddenError,
    InputError,
    ModelNotFoundError,
    ModelUnavailableError,
    NoKeyError,
    OverloadedError,
    RolloutError,
    ServiceError,
    shortened,
)

CODES: dict[type[ServiceError], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    NoKeyError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ModelUnavailableError: grpc.StatusCode.UNAVAILABLE,
    RolloutError: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The code of each exception; a subclass that is not listed has the code of its base."""

HTTP_STATUSES: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    # The status that proxies use for a client that has disconnected.
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


def code_of(error: ServiceError) -> grpc.StatusCode:
    """Return the status code for an exception of the service."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.INTERNAL)


def detail_of(error: ServiceError) -> str:
    """Return the text for the client."""
    return shortened(str(error))

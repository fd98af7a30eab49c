"""The decorator for handlers of predictions."""

from __future__ import annotations

from typing import Any, Self

from litestar.handlers import HTTPRouteHandler
from litestar.types import AnyCallable


class prediction(HTTPRouteHandler):  # noqa: N801 (a decorator)
    """A POST route. Its function takes the request as its only argument.

    For an ordinary function, Litestar finds and checks the arguments by name and type at every request. That takes half
    as long as running a small model. Litestar has a hook ``before_request``, which gets the request without any checks
    and may return the response. This decorator therefore uses the function as its own hook.
    """

    def __init__(self, path: str | list[str], **options: Any) -> None:
        super().__init__(path, http_method="POST", status_code=200, tags=["prediction"], **options)

    def __call__(self, fn: AnyCallable) -> Self:
        super().__call__(fn)
        self.before_request = fn
        return self

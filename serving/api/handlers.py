"""The decorator for the handlers of predictions."""

from __future__ import annotations

from typing import Any, Self

from litestar.handlers import HTTPRouteHandler
from litestar.types import AnyCallable


class prediction(HTTPRouteHandler):  # noqa: N801 (a decorator)
    """A POST route whose function takes the request and nothing else.

    Litestar would look up and check the function's arguments by name and type for each request, which takes half as
    long as a small model. It skips this for ``before_request``, which may also answer in place of the function. Here
    the function itself is its ``before_request``.
    """

    def __init__(self, path: str | list[str], **options: Any) -> None:
        super().__init__(path, http_method="POST", status_code=200, tags=["prediction"], **options)

    def __call__(self, fn: AnyCallable) -> Self:
        super().__call__(fn)
        self.before_request = fn
        return self

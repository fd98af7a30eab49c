"""What Prometheus reads, and the page that shows the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.response import File

from serving.metrics import CONTENT_TYPE
from serving.service import service_of

WEB = Path(__file__).parent.parent / "web"


@get("/docs", include_in_schema=False)
async def docs() -> File:
    """The OpenAPI document as a page, its script from here."""
    return File(WEB / "docs.html", content_disposition_type="inline", media_type="text/html")


@get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics in Prometheus' text form",
    tags=["operations"],
    media_type="text/plain",
)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The metrics of all workers together."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE)

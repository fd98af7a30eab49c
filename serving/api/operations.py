"""GET /metrics: what Prometheus reads."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get

from serving.inference.service import service_of
from serving.telemetry.metrics import CONTENT_TYPE


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

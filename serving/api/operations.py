"""GET /metrics, which Prometheus scrapes."""

from __future__ import annotations

from litestar import get
from litestar.types import ASGIApp

from serving.api.context import AnyRequest, context_of
from serving.api.responses import Response
from serving.telemetry.metrics import CONTENT_TYPE


@get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics in the text format of Prometheus",
    tags=["operations"],
    media_type="text/plain",
)
async def metrics(request: AnyRequest) -> ASGIApp:
    """Respond with the metrics of all workers together."""
    return Response(context_of(request).service.metrics.text(), [(b"content-type", CONTENT_TYPE.encode())])

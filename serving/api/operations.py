"""GET /metrics: the metrics for Prometheus."""

from __future__ import annotations

from litestar import get
from litestar.types import ASGIApp

from serving.api.context import AnyRequest, context_of
from serving.api.responses import Response
from serving.telemetry.metrics import CONTENT_TYPE


@get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics in Prometheus' text format",
    tags=["operations"],
    media_type="text/plain",
)
async def metrics(request: AnyRequest) -> ASGIApp:
    """Return the metrics of all workers together."""
    service = context_of(request).service
    snapshots = await service.peers.snapshots()
    text = await service.report(lambda: service.recorder.text(snapshots))
    return Response(text, [(b"content-type", CONTENT_TYPE.encode())])

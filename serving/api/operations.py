"""GET /metrics: the metrics for Prometheus."""

from __future__ import annotations

import contextlib

from litestar import get
from litestar.types import ASGIApp

from serving.api.context import AnyRequest, context_of
from serving.api.problems import documented
from serving.api.responses import Response
from serving.telemetry.metrics import CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE

OPENMETRICS, PLAIN = "application/openmetrics-text", "text/plain"
NOT_KEPT = [(b"cache-control", b"no-store"), (b"vary", b"accept")]


@get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics in Prometheus' text format, or as OpenMetrics",
    response_description="The metrics of all workers together.",
    tags=["operations"],
    media_type="text/plain",
    responses=documented(),
)
async def metrics(request: AnyRequest) -> ASGIApp:
    """Return the metrics of all workers together. OpenMetrics, if the client asks for it, also has exemplars."""
    context = context_of(request)
    service = context.service
    snapshots = await service.peers.snapshots()
    write, kind = service.recorder.text, CONTENT_TYPE
    if prefers_openmetrics(context.header(b"accept") or ""):
        write, kind = service.recorder.openmetrics, OPENMETRICS_CONTENT_TYPE
    text = await service.report(lambda: write(snapshots))
    return Response(text, [(b"content-type", kind.encode()), *NOT_KEPT])


def prefers_openmetrics(accept: str) -> bool:
    """Return whether a client with this ``Accept`` header asks for OpenMetrics, at least as much as for plain text."""
    best = {OPENMETRICS: 0.0, PLAIN: 0.0}
    for kind in accept.split(","):
        name, *parameters = (part.strip().lower() for part in kind.split(";"))
        given = dict(part.partition("=")[::2] for part in parameters)
        if name not in best or (name == OPENMETRICS and given.get("version", "1.0.0") != "1.0.0"):
            continue
        with contextlib.suppress(ValueError):
            best[name] = max(best[name], float(given.get("q", 1)))
    return best[OPENMETRICS] > 0 and best[OPENMETRICS] >= best[PLAIN]

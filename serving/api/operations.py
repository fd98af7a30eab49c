"""Whether the service lives and is ready."""

from __future__ import annotations

from litestar import get


@get("/v2/health/live", operation_id="live", summary="The process answers", tags=["operations"])
async def live() -> dict[str, bool]:
    """For a liveness probe: never touches a model."""
    return {"live": True}


@get("/v2/health/ready", operation_id="ready", summary="Predictions are answered", tags=["operations"])
async def ready() -> dict[str, bool]:
    """For a readiness probe. The application only exists with a verified model, so an answer means ready."""
    return {"ready": True}

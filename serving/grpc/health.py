"""grpc.health.v1: whether the service can predict, for probes and load balancers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving.grpc.messages import SERVICE
from serving.grpc.methods import is_ready
from serving.open_inference import models
from serving.service.service import Service

NAME: str = health.SERVICE_NAME

# Seconds between two looks for the clients that watch.
LOOK_INTERVAL = 0.25
# Clients of one worker that may watch. A watch lasts as long as its client wants.
MAX_WATCHES = 100


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """The health of the whole server, with the empty name, and of the inference service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._watches = 0
        self._stopping = asyncio.Event()

    def _status(self, name: str) -> Any:
        """Return whether the default model is loaded and the service is not about to stop. None: an unknown name."""
        if name not in ("", SERVICE):
            return None
        ready = is_ready(lambda: models.check_ready(self._service))
        return health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 (the name of the method)
        """Respond with the health now."""
        status = self._status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:200]!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """Respond with the health now and whenever it changes, until the service stops."""
        if self._watches >= MAX_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many clients watch the health; use Check")
        self._watches += 1
        try:
            last = None
            while not self._stopping.is_set():
                status = self._status(request.service) or health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                if status != last:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                last = status
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), LOOK_INTERVAL)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the service is about to stop")
        finally:
            self._watches -= 1

    def stop(self) -> None:
        """End the watches."""
        self._stopping.set()

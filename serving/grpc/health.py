"""grpc.health.v1: whether the service can predict, for probes and load balancers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from serving.grpc.messages import SERVICE
from serving.grpc.methods import is_ready
from serving.open_inference import models
from serving.service.service import Service

NAME: str = health.SERVICE_NAME

# Seconds between two looks for clients that watch the health.
LOOK_INTERVAL = 0.25
# Clients of one worker that may watch. A watch lasts as long as its client wants.
MAX_WATCHES = 100


class Health(health.aio.HealthServicer):  # type: ignore[misc]
    """The health of the whole server, with the empty name, and of the inference service."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self._watches = 0

    async def look(self) -> None:
        """Set the health to whether the default model is loaded and the service is not about to stop."""
        ready = is_ready(lambda: models.check_ready(self._service))
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self.set(name, status)

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 (the name of the method)
        await self.look()
        return await super().Check(request, context)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        if self._watches >= MAX_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many clients watch the health; use Check")
        self._watches += 1
        try:
            await self.look()
            await super().Watch(request, context)
        finally:
            self._watches -= 1

    @asynccontextmanager
    async def kept_up(self) -> AsyncIterator[None]:
        """Tell the clients that watch about changes, inside the ``async with`` statement."""

        async def repeat() -> None:
            while True:
                await asyncio.sleep(LOOK_INTERVAL)
                if self._watches:
                    await self.look()

        looking = asyncio.create_task(repeat())
        try:
            yield
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

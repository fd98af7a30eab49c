"""grpc.health.v1: whether the service can predict, for probes and load balancers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from serving.grpc.guard import guarded
from serving.grpc.messages import SERVICE, parsed
from serving.grpc.methods import is_ready
from serving.grpc.receiving import Receiving
from serving.grpc.sending import Sending
from serving.open_inference import models
from serving.service.service import Service

NAME: str = health.SERVICE_NAME

# Seconds between two looks for the clients that watch.
LOOK_INTERVAL = 0.25
# Clients of one worker that may watch. A watch lasts as long as its client wants.
MAX_WATCHES = 100


class Health:
    """The health of the whole server, with the empty name, and of the inference service."""

    def __init__(self, service: Service, receiving: Receiving, sending: Sending) -> None:
        self._service, self._receiving, self._sending = service, receiving, sending
        self._watches = 0
        self._stopping = asyncio.Event()

    def handlers(self) -> dict[str, Any]:
        """Return the handler of each method for gRPC. Each reads the message itself, like those of the protocol."""
        return {
            "Check": grpc.stream_unary_rpc_method_handler(guarded(self._check, self._sending)),
            "Watch": grpc.stream_stream_rpc_method_handler(guarded(self._watch, self._sending)),
        }

    async def _name(self, context: Any) -> str:
        """Return the name of the service that a client asks for."""
        name: str = parsed(health_pb2.HealthCheckRequest, await self._receiving.small(context)).service
        return name

    def _status(self, name: str) -> Any:
        """Return whether the default model is loaded and the service is not about to stop. None: an unknown name."""
        if name not in ("", SERVICE):
            return None
        ready = is_ready(lambda: models.check_ready(self._service))
        return health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING

    async def _check(self, context: Any) -> bytes:
        """Respond with the health now."""
        name = await self._name(context)
        status = self._status(name)
        if status is None:
            await self._sending.status(context, grpc.StatusCode.NOT_FOUND, f"there is no service {name[:200]!r}")
        return response(status)

    async def _watch(self, context: Any) -> None:
        """Respond with the health now and whenever it changes, until the service stops."""
        if self._watches >= MAX_WATCHES:
            await self._sending.status(
                context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too many clients watch the health; use Check"
            )
        self._watches += 1
        try:
            name, last = await self._name(context), None
            while not self._stopping.is_set():
                status = self._status(name) or health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                if status != last:
                    await context.write(response(status))
                last = status
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), LOOK_INTERVAL)
            await self._sending.status(context, grpc.StatusCode.UNAVAILABLE, "the service is about to stop")
        finally:
            self._watches -= 1

    def stop(self) -> None:
        """End the watches."""
        self._stopping.set()


def response(status: Any) -> bytes:
    content: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return content

"""Reflection: describe the methods and messages to tools such as grpcurl."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving.grpc import health
from serving.grpc.guard import guarded
from serving.grpc.messages import POOL, SERVICE, parsed
from serving.grpc.receiving import Receiving
from serving.grpc.sending import Sending

NAME: str = reflection.SERVICE_NAME


class Reflection:
    """Responds to one question after another. Between them, a client waits like one that sends no message."""

    def __init__(self, receiving: Receiving, sending: Sending) -> None:
        self._receiving, self._sending = receiving, sending
        for module in (health_pb2, reflection_pb2):
            POOL.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        self._servicer = reflection.aio.ReflectionServicer((SERVICE, health.NAME, NAME), POOL)

    def handlers(self) -> dict[str, Any]:
        """Return the handler of each method for gRPC."""
        handler = grpc.stream_stream_rpc_method_handler(guarded(self._respond, self._sending))
        return {"ServerReflectionInfo": handler}

    async def _respond(self, context: Any) -> None:
        async for response in self._servicer.ServerReflectionInfo(self._questions(context), context):
            await context.write(response.SerializeToString())

    async def _questions(self, context: Any) -> AsyncIterator[Any]:
        while (message := await self._receiving.next_small(context)) is not None:
            yield parsed(reflection_pb2.ServerReflectionRequest, message)

"""A gRPC server in this process, and a client of it."""

from __future__ import annotations

import contextlib
import os

import pytest

if not os.environ.get("CI"):
    pytest.importorskip("grpc", reason="needs the extra grpc")

import grpc
import numpy as np

from serving.api.app import create_service
from serving.grpc.messages import REQUESTS, RESPONSES, SERVICE
from serving.grpc.server import GrpcServer
from serving.settings import Settings


@contextlib.asynccontextmanager
async def door(**settings):
    """Serve over gRPC with these settings. Yield a client and the Service."""
    service = create_service(Settings(grpc_port=0, **settings), ())
    server = GrpcServer(service)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Client(channel, server), service
    finally:
        await server.stop()


class Client:
    """Calls methods by name. The fields of the request are keyword arguments."""

    def __init__(self, channel, server=None):
        self.channel, self.server = channel, server

    def call(self, method, metadata=None, timeout=30, **fields):
        """Return the call. For grpc.aio it must be awaited, for a channel without asyncio it is the response."""
        stub = self.channel.unary_unary(
            f"/{SERVICE}/{method}", REQUESTS[method].SerializeToString, RESPONSES[method].FromString
        )
        return stub(REQUESTS[method](**fields), metadata=metadata, timeout=timeout)


def infer_request(images, *, typed=False, **more):
    """Return the fields of a request for uint8 ``images [N, 28, 28]``."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape}
    if typed:
        return {"model_name": "mnist", "inputs": [tensor | {"contents": {"uint_contents": images.ravel()}}], **more}
    return {"model_name": "mnist", "inputs": [tensor], "raw_input_contents": [images.tobytes()], **more}


def random_images(count):
    return np.random.default_rng(7).integers(0, 256, (count, 28, 28), np.uint8)

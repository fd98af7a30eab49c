"""The gRPC server: health, reflection, several workers, the end of the service, and how it starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.grpc.door import Client, door, infer_request, random_images  # first: skips without gRPC

import grpc  # isort: skip
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from serving.grpc.messages import SERVICE
from serving.grpc.server import MAX_STREAMS
from tests.support import ROOT, started, until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_follows_the_default_model_and_the_drain():
    async def test():
        async with door() as (client, service):
            stub = health_pb2_grpc.HealthStub(client.channel)

            async def status(name):
                return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status

            watch = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            assert [await status(name) for name in ("", SERVICE)] == [SERVING] * 2
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await status("letters")
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND
            service.apply("unload", "mnist")
            assert await status("") == NOT_SERVING
            assert (await watch.read()).status == NOT_SERVING
            service.apply("load", "mnist")
            assert (await watch.read()).status == SERVING
            service.draining = True
            assert (await watch.read()).status == NOT_SERVING
            assert not (await client.call("ServerReady")).ready
            watch.cancel()

    asyncio.run(asyncio.wait_for(test(), 30))


@pytest.fixture(scope="module")
def workers():
    with started("--grpc-port", 0, "--workers", 2, "--drain", 3) as (addresses, process):
        yield addresses, process


def test_reflection_describes_the_methods(workers):
    with grpc.insecure_channel(workers[0]["grpc"]) as channel:
        found = ProtoReflectionDescriptorDatabase(channel)
        assert set(found.get_services()) == {
            *(SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"),
        }
        file = found.FindFileContainingSymbol(SERVICE)
        assert "ModelInfer" in [method.name for method in file.service[0].method]
        assert found.FindFileContainingSymbol("grpc.health.v1.Health").package == "grpc.health.v1"


def listeners(port):
    """Return how many sockets of this machine listen on a port."""
    lines = [line for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
    return sum(bool(re.search(rf":{port:04X} \S+ 0A ", line)) for line in lines)


def test_workers_share_the_port_and_finish_their_calls_at_the_end(workers):
    """The last test of these workers."""
    addresses, process = workers
    until(lambda: listeners(int(addresses["grpc"].rpartition(":")[2])) == 2)
    with grpc.insecure_channel(addresses["grpc"]) as channel:
        client = Client(channel)
        assert client.call("ServerReady").ready
        process.send_signal(signal.SIGTERM)
        until(lambda: not client.call("ServerReady").ready)
        # Not ready, but it still responds.
        assert client.call("ModelInfer", **infer_request(random_images(1))).outputs
    assert process.wait(30) == 0


def test_second_service_on_the_port_is_one_line(run):
    with started("--grpc-port", 0) as (addresses, _):
        port = addresses["grpc"].rpartition(":")[2]
        done = run("mnist-serve", "--port", 0, "--grpc-port", port)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "another port with --grpc-port or MNIST_GRPC_PORT" in done.stderr


def test_missing_package_is_one_line(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'grpc_health' else find(name, *a)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = run("mnist-serve", "--port", 0, "--grpc-port", 0, env=environment)
    assert done.returncode == 2
    assert "pip install grpcio grpcio-health-checking grpcio-reflection" in done.stderr


def test_without_the_port_nothing_of_grpc_is_loaded():
    program = (
        "import sys; from serving.api.app import create_app; from serving.server.run import make_server; "
        "from serving.settings import Settings; settings = Settings(); make_server(settings, create_app(settings)); "
        "print(*(name for name in sys.modules if '.' not in name))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"grpc", "google", "grpc_health", "grpc_reflection"} & set(done.stdout.split())


def test_stop_ends_watches_and_calls_that_never_send_their_message():
    async def test():
        async with door(request_timeout=600) as (client, _):
            watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            call = client.channel.stream_unary(f"/{SERVICE}/ModelInfer")()
            await call.wait_for_connection()
            await client.call("ServerLive")
            await client.server.stop()
            assert await watch.code() is grpc.StatusCode.UNAVAILABLE
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(asyncio.wait_for(test(), 15))


def test_limits_may_be_larger_than_grpc_can_count():
    async def test():
        limits = ("max_body", "max_head", "keep_alive", "write_timeout", "request_timeout")
        async with door(**dict.fromkeys(limits, 10**10)) as (client, _):
            assert (await client.call("ServerLive")).live

    asyncio.run(asyncio.wait_for(test(), 30))


def test_streams_and_connections_are_bounded():
    async def connect(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # The start of HTTP/2: a fixed text, and a frame with no settings.
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        return reader, writer

    async def test():
        async with door(max_connections=2) as (client, _):
            reader, writer = await connect(client.server.port)
            head = await reader.readexactly(9)
            settings = dict(struct.iter_unpack(">HI", await reader.readexactly(int.from_bytes(head[:3], "big"))))
            assert settings[3] == MAX_STREAMS
            others = [await connect(client.server.port) for _ in range(2)]
            assert await others[0][0].read(1)
            with contextlib.suppress(ConnectionError):
                assert await others[1][0].read(1) == b""
            for connection in (writer, *(writer for _, writer in others)):
                connection.close()

    asyncio.run(asyncio.wait_for(test(), 30))

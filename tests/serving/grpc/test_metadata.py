"""Clients that never acknowledge the settings of their connection, so that gRPC's limit of metadata does not hold."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from benchmarks import grpc_attacks
from benchmarks.grpc_attacks import END_HEADERS, END_STREAM, HEADERS, SERVICE, SETTINGS, frame, headers
from serving.grpc import server
from tests.serving.grpc.door import door, grpc
from tests.support import started

VERSION = tuple(map(int, grpc.__version__.split(".")[:2]))
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
# A header of 2000 bytes that enters HPACK's table, and the byte that repeats it.
LARGE, AGAIN = b"\x40\x01a\x7f\xd1\x0e" + b"b" * 2000, b"\xbe"


def call(stream, more=b""):
    return frame(HEADERS, END_HEADERS, stream, headers(f"{SERVICE}ServerLive") + more) + frame(
        0, END_STREAM, stream, bytes(5)
    )


async def connect(port, content):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HELLO + content)
    return reader, writer


@pytest.mark.parametrize(("count", "expected"), [(16, b"grpc-status\x010"), (17, b"must be at most 32768")])
def test_metadata_of_a_few_bytes_counts_with_its_real_size(count, expected):
    async def run():
        async with door() as (client, _):
            reader, writer = await connect(client.server.port, call(1, LARGE) + call(3, AGAIN * count))
            received = b""
            while expected not in received:
                piece = await reader.read(1000)
                assert piece, received
                received += piece
            writer.transport.abort()

    asyncio.run(run())


def test_connection_ends_if_the_client_does_not_acknowledge_the_settings(monkeypatch):
    monkeypatch.setattr(server, "SETTINGS_MILLISECONDS", 100)

    async def run():
        async with door() as (client, _):
            reader, writer = await connect(client.server.port, b"")
            await reader.read()
            writer.transport.abort()

    asyncio.run(run())


@pytest.mark.skipif(VERSION < (1, 84), reason="older grpcio has no such limit")
def test_headers_without_an_end_take_little_memory(monkeypatch):
    monkeypatch.setattr(grpc_attacks, "STAGGER", 0)
    with started("--grpc-port", 0) as (addresses, process):

        def largest():
            return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) * 1024

        before = largest()
        attack = grpc_attacks.GRPC_ATTACKS["gRPC: headers without an end"]
        asyncio.run(attack.run(int(addresses["grpc"].rpartition(":")[2]), b"", 1.5))
        assert largest() - before < 50_000_000


@pytest.mark.skipif(VERSION < (1, 82), reason="grpcio 1.80 and older have no such limit")
def test_calls_beyond_those_that_may_wait_are_rejected(monkeypatch):
    monkeypatch.setattr(server, "MAX_PENDING", 1)

    async def run():
        async with door() as (client, _):
            calls = [client.call("ServerLive") for _ in range(100)]
            return {await each.code() for each in calls}

    assert asyncio.run(run()) == {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}

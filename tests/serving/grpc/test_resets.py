"""Clients that begin calls and reset them without pause (HTTP/2 rapid reset)."""

from __future__ import annotations

import asyncio

from benchmarks.grpc_attacks import ACKNOWLEDGED, END_HEADERS, HEADERS, PING, RESET, SERVICE, SETTINGS, frame, headers
from tests.serving.grpc.door import door


def test_each_reset_is_answered_with_a_ping():
    """So gRPC reads no more from a connection that does nothing but reset calls."""

    async def run():
        async with door() as (client, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
            writer.write(frame(HEADERS, END_HEADERS, 1, headers(f"{SERVICE}ServerLive")) + frame(RESET, 0, 1, bytes(4)))
            async with asyncio.timeout(10):
                kind = None
                while kind != PING:
                    head = await reader.readexactly(9)
                    content, kind = await reader.readexactly(int.from_bytes(head[:3])), head[3]
                    if kind == SETTINGS and not head[4] & ACKNOWLEDGED:
                        writer.write(frame(SETTINGS, ACKNOWLEDGED, 0))
            assert len(content) == 8
            writer.transport.abort()

    asyncio.run(run())

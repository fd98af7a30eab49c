"""A client of HTTP/2 that sends what other clients never send: many requests that stay incomplete."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import BinaryIO

DATA, HEADERS, RESET, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def field(name: str, value: str) -> bytes:
    """Return a header field as HPACK's literal, without compression."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def headers(path: str) -> bytes:
    """Return the headers of a request, in HPACK's form."""
    pseudo = {":method": "POST", ":scheme": "http", ":authority": "digits", ":path": path}
    return b"".join(field(*each) for each in pseudo.items())


class Client:
    """One connection. Its streams have the numbers 1, 3, 5 and so on."""

    def __init__(self, connection: socket.socket, stream: BinaryIO) -> None:
        self.connection = connection
        self.stream = stream
        self.next = 1
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))

    def begin(self, path: str, number: int = 1) -> list[int]:
        """Begin requests whose bodies have not come yet, and return their streams."""
        streams, block = self._streams(number), headers(path)
        self.connection.sendall(b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in streams))
        return streams

    def reset(self, path: str, number: int) -> None:
        """Begin requests and reset each at once (HTTP/2 rapid reset)."""
        block, cancel = headers(path), struct.pack(">I", 8)
        frames = [
            frame(HEADERS, END_HEADERS, stream, block) + frame(RESET, 0, stream, cancel)
            for stream in self._streams(number)
        ]
        self.connection.sendall(b"".join(frames))

    def _streams(self, number: int) -> list[int]:
        streams = list(range(self.next, self.next + 2 * number, 2))
        self.next += 2 * number
        return streams

    def end(self, streams: list[int], body: bytes) -> None:
        """Send the bodies of these requests."""
        self.connection.sendall(b"".join(frame(DATA, END_STREAM, stream, body) for stream in streams))

    def responses(self, number: int) -> dict[int, bytes]:
        """Wait for the headers of this number of responses. Return them by stream, as HPACK's bytes."""
        found: dict[int, bytes] = {}
        while len(found) < number:
            head = self.stream.read(9)
            assert len(head) == 9, f"the connection ended after {len(found)} responses"
            content = self.stream.read(int.from_bytes(head[:3], "big"))
            if head[3] == HEADERS:
                found.setdefault(int.from_bytes(head[5:], "big"), content)
        return found


@contextlib.contextmanager
def connect(address: tuple[str, int]) -> Iterator[Client]:
    with socket.create_connection(address, timeout=30) as connection, connection.makefile("rb") as stream:
        yield Client(connection, stream)

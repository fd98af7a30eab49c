"""Give the bytes that one connection receives to the parser in pieces, and measure each request."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import httptools

from serving.server.rejection import (
    RejectedError,
    body_too_large,
    head_too_large,
    malformed,
    unknown_transfer_encoding,
    unknown_version,
)
from serving.settings import Settings

# Bytes that are parsed at a time. If they end a request, the following bytes wait for its response.
PIECE = 4096
# The versions of HTTP that the parser reads as HTTP/1.
VERSIONS = ("1.1", "1.0")
# What the parser calls the version as long as it has not read it.
UNREAD_VERSION = "0.0"
# A body in chunks may take this many times its own size. Only a client that sends chunks of one byte needs more.
MAX_CHUNK_OVERHEAD = 4


class EndedError(Exception):
    """The connection ends, so further bytes are not parsed. Raised in a callback, this stops the parser."""


class Callbacks(Protocol):
    """The object whose methods the parser calls, such as ``on_body``."""

    parser: httptools.HttpRequestParser
    url: bytes
    headers: list[tuple[bytes, bytes]]


class Intake:
    """Parses what a connection receives, and measures it.

    The parser reports a header only when it is whole, so the size of a head is also measured by pieces.
    """

    def __init__(self, callbacks: Callbacks, settings: Settings) -> None:
        self._callbacks = callbacks
        self._settings = settings
        self.rest = 0
        """Number of bytes that are not parsed yet."""
        self._parts: deque[memoryview] = deque()
        self.received = 0
        """Bytes of the request that is being read, without the piece in which it began."""
        self.body = 0
        """Bytes of the body of this request, without the sizes of its chunks."""
        self._declared: int | None = None
        """Bytes of this body by its Content-Length; None as long as nobody has looked. Most requests are one piece."""
        self._overhead = 0
        """Bytes since the last byte of this body: sizes of chunks, and trailers."""
        self._is_idle = True
        """Whether the next request to begin is the first one in its piece."""
        self._is_alone = True
        """Whether the last piece has bytes of this request only."""

    def begin(self) -> None:
        """Measure a new request from now on."""
        self._is_alone = self._is_idle
        self._is_idle = False
        self.received = self.body = self._overhead = 0
        self._declared = None

    def add(self, data: bytes) -> None:
        """Keep ``data`` to be parsed in pieces."""
        self._parts.append(memoryview(data))
        self.rest += len(data)

    def clear(self) -> None:
        """Drop the bytes that are not parsed yet."""
        self._parts.clear()
        self.rest = 0

    def next_piece(self, is_in_body: bool) -> memoryview:
        """Take the next piece of the rest. In a body of known length it may be long: no other request begins there."""
        size = PIECE
        if is_in_body:
            if self._declared is None:
                self._declared = int(dict(self._callbacks.headers).get(b"content-length", 0))
            size = max(PIECE, self._declared - self.body)
        part = self._parts.popleft()
        if len(part) > size:
            self._parts.appendleft(part[size:])
        piece = part[:size]
        self.rest -= len(piece)
        return piece

    def parse(self, data: bytes | memoryview, is_idle: bool) -> None:
        """Give ``data`` to the parser, which calls the callbacks.

        The parser stops after a head with ``Upgrade``, because another protocol may follow. This service ignores the
        header, so the same head is read again without it.

        Args:
            is_idle: whether no request has begun yet, or the last one is complete.

        Raises:
            RejectedError: the data is not HTTP/1.1, or a callback raised this error.
            EndedError: a callback raised this error.
        """
        self._is_idle, self._is_alone = is_idle, True
        pieces = [data]
        while pieces:
            piece = pieces.pop()
            try:
                self._callbacks.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                pieces += [memoryview(piece)[upgrade.args[0] :], self._head_without_upgrade()]
                self._callbacks.parser = new_parser(self._callbacks)
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, (RejectedError, EndedError)):
                    raise error.__context__ from None
                if (version := self._callbacks.parser.get_http_version()) not in (*VERSIONS, UNREAD_VERSION):
                    raise unknown_version(version) from None
                is_ours = isinstance(error, httptools.HttpParserCallbackError)
                raise malformed("its target cannot be parsed" if is_ours else error) from None

    def _head_without_upgrade(self) -> bytes:
        read = self._callbacks
        line = b"%s %s HTTP/%s" % (read.parser.get_method(), read.url, read.parser.get_http_version().encode())
        headers = [b"%s: %s" % header for header in read.headers if header[0] != b"upgrade"]
        return b"\r\n".join([line, *headers, b"", b""])

    def check_head(self) -> None:
        """Check the head that was just read. A head in a single piece is never too large.

        Raises:
            RejectedError: it is too large, or it asks for what this service does not do. The parser would drop the
                fragment of a target, and then ``/metrics#x`` would be another spelling of ``/metrics``.
        """
        read = self._callbacks
        if b"#" in read.url:
            raise malformed("its target has a fragment")
        if (version := read.parser.get_http_version()) not in VERSIONS:
            raise unknown_version(version)
        # A list may be divided among several headers of the same name. The parser looks at the last one only.
        encodings = [value for name, value in read.headers if name == b"transfer-encoding"]
        if encodings and (encoding := b", ".join(encodings)).strip().lower() != b"chunked":
            raise unknown_transfer_encoding(encoding)
        hosts = sum(name == b"host" for name, _ in read.headers)
        if hosts > 1 or (not hosts and version == "1.1"):
            raise malformed(f"it has {hosts} Host headers, and must have one")
        if self.received or self._settings.max_head < PIECE:
            size = len(read.url) + sum(len(name) + len(value) + 4 for name, value in read.headers)
            if size > self._settings.max_head:
                raise head_too_large(self._settings)
        if not read.url.startswith(b"/") and b"://" in read.url:
            # The host of an absolute target counts, not the header (RFC 9112, section 3.2.2).
            host = read.url.partition(b"://")[2].partition(b"/")[0]
            read.headers[:] = [header for header in read.headers if header[0] != b"host"] + [(b"host", host)]
        if encodings:
            # The parser adds the trailers after the body to this list. The application keeps the list without them: a
            # trailer would replace a header of the same name, which a proxy may have checked or removed.
            read.headers = list(read.headers)

    def check_rest(self, size: int, body: int) -> None:
        """Check a request that is not complete after a piece of ``size`` bytes, before which its body had ``body``.

        Raises:
            RejectedError: it is too large. The application cannot measure the sizes of chunks and trailers.
        """
        if self.body > body:
            self._overhead = 0
        elif self._is_alone:
            self._overhead += size
        if self._overhead > self._settings.max_head:
            raise head_too_large(self._settings)
        if self.received > self._settings.max_head + MAX_CHUNK_OVERHEAD * self._settings.max_body:
            raise body_too_large(self._settings)


def new_parser(callbacks: Callbacks) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(callbacks)
    # Accept bytes after a request with "connection: close", as uvicorn does. They get no response.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser

"""What one connection has received: it is given to the parser in pieces, and each request is measured."""

from __future__ import annotations

from typing import Protocol

import httptools

from serving.server.rejection import RejectedError, body_too_large, head_too_large, malformed
from serving.settings import Settings

# Bytes that are parsed at a time. The rest waits if the responses to the requests among them are due.
PIECE = 4096
# A body in chunks may take this many times its own size. Only a client that sends chunks of one byte needs more.
MAX_CHUNK_OVERHEAD = 4


class EndedError(Exception):
    """What follows is not parsed, because the connection ends. Raised in a callback, it stops the parser."""


class Callbacks(Protocol):
    """The object whose methods the parser calls, such as ``on_body``."""

    parser: httptools.HttpRequestParser
    url: bytes
    headers: list[tuple[bytes, bytes]]


class Intake:
    """Parses what a connection receives. The parser reports only whole headers, so heads are measured by pieces too."""

    def __init__(self, callbacks: Callbacks, settings: Settings) -> None:
        self._callbacks = callbacks
        self._settings = settings
        self.rest = memoryview(b"")
        """Bytes that are not parsed yet."""
        self.received = 0
        """Bytes of the request that is being read, without the piece in which it began."""
        self.body = 0
        """Bytes of its body, without the sizes of the chunks."""
        self._overhead = 0
        """Bytes since the last byte of its body: sizes of chunks, and trailers."""

        self._is_idle = True
        """Whether nothing else was in the piece before the next request."""
        self._is_alone = True
        """Whether the last piece has bytes of this request only."""

    def begin(self) -> None:
        """A new request begins."""
        self._is_alone = self._is_idle
        self._is_idle = False
        self.received = self.body = self._overhead = 0

    def add(self, data: bytes) -> None:
        """Keep ``data`` to be parsed in pieces."""
        self.rest = memoryview(bytes(self.rest) + data) if self.rest else memoryview(data)

    def clear(self) -> None:
        """Forget what is not parsed yet."""
        self.rest = memoryview(b"")

    def next_piece(self, is_in_body: bool) -> memoryview:
        """Take the next piece of the rest. A body of known length is one piece: no other request can begin in it."""
        size = PIECE
        if is_in_body:
            declared = dict(self._callbacks.headers).get(b"content-length", b"0")
            size = max(PIECE, int(declared) - self.body)
        piece, self.rest = self.rest[:size], self.rest[size:]
        return piece

    def parse(self, data: bytes | memoryview, is_idle: bool) -> None:
        """Give ``data`` to the parser, which calls the callbacks.

        Args:
            is_idle: whether no request has begun yet, or the last one is complete.

        The parser stops after a head with ``Upgrade``, because another protocol may follow. This service ignores the
        header, so the same head is read again without it.

        Raises:
            RejectedError, EndedError: the data is not HTTP/1.1, or a callback has raised this.
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
                is_ours = isinstance(error, httptools.HttpParserCallbackError)
                raise malformed("its target cannot be parsed" if is_ours else error) from None

    def _head_without_upgrade(self) -> bytes:
        read = self._callbacks
        line = b"%s %s HTTP/%s" % (read.parser.get_method(), read.url, read.parser.get_http_version().encode())
        headers = [b"%s: %s" % header for header in read.headers if header[0] != b"upgrade"]
        return b"\r\n".join([line, *headers, b"", b""])

    def check_head(self) -> None:
        """Check the size of the head that was just read. A head in a single piece is never too large.

        Raises:
            RejectedError: it is too large.
        """
        if self.received or self._settings.max_head < PIECE:
            read = self._callbacks
            size = len(read.url) + sum(len(name) + len(value) + 4 for name, value in read.headers)
            if size > self._settings.max_head:
                raise head_too_large(self._settings)

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
    # uvicorn's parser, too, reads requests after one with "connection: close". They are not answered.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser

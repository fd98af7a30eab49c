"""One connection: uvicorn's HTTP/1.1 protocol, with limits on the time and the memory that a client may take.

This is the only file that touches uvicorn's internals. A connection is in one of five states:

    state       what it waits for                  ends when                          timer
    IDLE        a request                          its first byte arrives: HEAD       request_timeout; after a response
                                                                                      keep_alive, which uvicorn keeps
    HEAD        the rest of the line and headers   they are complete: BODY, or        request_timeout
                                                   DISCARD if too many predictions
                                                   are in flight
    BODY        the rest of the body               it is complete: RESPONDING         request_timeout
    DISCARD     the rest of a rejected body        it is complete: 429, then IDLE     request_timeout
    RESPONDING  the application's response         it is sent: IDLE                   none

Nearly every request arrives whole. It passes through the states within one call of data_received and sets no timer. A
pipelined request arrives before the response to the previous request is sent. The state then changes from RESPONDING to
HEAD, and uvicorn queues the request.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Any, cast

from litestar.types import HTTPScope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.api.context import SCOPE_KEY, RequestContext, Service
from serving.api.middleware import overloaded

HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

# A body in chunks may take this many times its own size. Only a client that sends chunks of one byte needs more.
MAX_CHUNK_OVERHEAD = 4


class State(enum.Enum):
    """What a connection waits for; see the table above."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    DISCARD = enum.auto()
    RESPONDING = enum.auto()


class Protocol(HttpToolsProtocol):
    """A connection that limits the time of each request, and counts each prediction as soon as it has arrived.

    Predictions are counted here and not in the application. A busy event loop reads all requests from their sockets
    before the application starts on the first one, so the application would count the waiting requests too late.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._service: Service = self.config.loaded_app.state.service
        self._state = State.IDLE
        self._received = 0
        """Bytes of the request that is being read, chunks and trailers included."""
        self._timer: asyncio.TimerHandle | None = None

    # The transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._service.settings.max_connections:
            transport.abort()
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._state in (State.HEAD, State.BODY, State.DISCARD):
            self._received += len(data)
            self._check_size()
            self._start_timer()
        elif self._has_responded() and self.timeout_keep_alive_task is None:
            # Line breaks between two requests do not begin a request, but they stopped uvicorn's keep-alive timer.
            self._start_timer()

    # The parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._state = State.HEAD
        self._received = 0

    def on_headers_complete(self) -> None:
        if self._must_discard():
            self._state = State.DISCARD
            self.cycle = Discarded()  # type: ignore[assignment]
            if self.expect_100_continue:
                # The client waits for a response before it sends its body. After a 429 it may still send the body or
                # not, so the connection cannot be used again.
                self._reject((b"connection", b"close"))
                self.transport.close()
        else:
            self._state = State.BODY
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._stop_timer()
        if self._state is State.DISCARD:
            self._state = State.IDLE
            if not self.transport.is_closing():
                self._reject()
                self.on_response_complete()
                if not self.parser.should_keep_alive():
                    self.transport.close()
            return
        self._state = State.IDLE if self._has_responded() else State.RESPONDING
        # A pipelined request may never start, because the client may disconnect. _start_asgi_task counts it.
        if self._state is State.RESPONDING and not self.pipeline:
            context_of_cycle(self.cycle).arrived(self.scope["path"])

    # The application

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        context = RequestContext(self._service, cycle.scope["headers"])
        cast("dict[str, RequestContext]", cycle.scope)[SCOPE_KEY] = context
        if not cycle.more_body:
            context.arrived(cycle.scope["path"])
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if self._state is State.RESPONDING and not self.pipeline:
            self._state = State.IDLE
        super().on_response_complete()

    def _has_responded(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    # Bounds

    def _must_discard(self) -> bool:
        """Return whether to discard the new request.

        It must be a prediction beyond the limit, and this connection must have no other request in flight.
        """
        path = self.url.partition(b"?")[0].decode("latin-1")
        return self._has_responded() and self.parser.get_method() == b"POST" and self._service.admission.rejects(path)

    def _reject(self, *headers: tuple[bytes, bytes]) -> None:
        self.scope |= {"method": self.parser.get_method().decode("ascii"), "path": self.url.decode("latin-1")}
        self.transport.write(overloaded(self._service, cast("HTTPScope", self.scope)).to_http(*headers))

    def _check_size(self) -> None:
        """Close the connection if the request is too large. The application cannot measure chunks and trailers."""
        settings = self._service.settings
        limit = settings.max_head + (0 if self._state is State.HEAD else MAX_CHUNK_OVERHEAD * settings.max_body)
        if self._received > limit and not self.transport.is_closing():
            if self._state is State.HEAD:
                self.transport.write(HEAD_TOO_LARGE)
            self.transport.close()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._service.settings.request_timeout, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class Discarded:
    """Replaces uvicorn's cycle for a rejected request. The body of the request is dropped."""

    response_complete = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


def context_of_cycle(cycle: RequestResponseCycle) -> RequestContext:
    return cast("dict[str, RequestContext]", cycle.scope)[SCOPE_KEY]

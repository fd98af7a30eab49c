"""One connection: uvicorn's HTTP/1.1 protocol, which reads requests, starts the application and rejects requests.

Only this file and flow.py import uvicorn's internals. The class in limits.py extends the class in this file: it adds
the limits of time and memory. The states of a connection are in states.py.

Nearly every request passes through the states within one call of data_received. A pipelined request arrives before the
previous response is sent: the state changes from RESPONDING to HEAD, uvicorn queues it, and later bytes wait unparsed.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from litestar.types import HTTPScope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.api.context import SCOPE_KEY, RequestContext
from serving.api.middleware import context_in, overloaded
from serving.server.account import FREE_BYTES, Account
from serving.server.connections import Connections
from serving.server.flow import Flow
from serving.server.intake import PIECE, EndedError, Intake
from serving.server.rejection import RejectedError, incomplete, malformed, path_of
from serving.server.stand_ins import Discarded, Outgoing
from serving.server.states import PARTIAL, State
from serving.server.turns import SLICE
from serving.service.service import Service

# What a queued request takes in memory, in addition to its bytes.
QUEUED_BYTES = 2048
# A connection in the state ENDING is aborted after it has dropped twice the largest body and this many bytes.
MAX_DROPPED = 48_000_000

CLOSE = (b"connection", b"close")


class Protocol(HttpToolsProtocol):
    """A connection that limits the time and the bytes of each request, and counts each prediction when it arrives.

    Predictions are counted here and not in the application. A busy event loop reads all requests from their sockets
    before the application starts on the first one, so the application would count the waiting requests too late.
    """

    server_state: Connections
    flow: Flow

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._service: Service = self.config.loaded_app.state.service
        self._intake = Intake(self, self._service.settings)
        self.account = Account(self._service.held)
        self._state = State.IDLE
        self._since = self.loop.time()  # when the wait of the state began; 0 if the request began in this very piece
        self._queued = 0  # bytes of the requests whose responses are due
        self._dropped = 0
        self._last_response = b""  # the rejection that is sent after the responses that are due
        self._is_stopping = self._is_half_closed = False
        self._is_postponed = False  # the next request waits until the client has read the last response
        self._running: Any = Discarded()  # the request that the application works on; uvicorn's cycle is the newest one
        self._is_pausing = False  # after a rejected prediction

    # The transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.url, self.headers = b"/", []
        self.flow = Flow(transport)
        self._outgoing = Outgoing(transport, self._close)
        self._undecrypted_bytes = getattr(transport, "get_read_buffer_size", int)  # 0 without encryption
        transport.set_write_buffer_limits(FREE_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self.account.charge(0)
        self._running.disconnected = True
        super().connection_lost(exc)
        # Without these references, the memory is free at once and not only after a garbage collection.
        self.pipeline.clear()
        self._since = 0.0
        self.cycle = self._outgoing = self._intake = self._running = None  # type: ignore[assignment]

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether the connection stays open for responses: the client has closed only its own side."""
        self._is_half_closed = True
        if not self._intake.rest:
            self._end_input()
        return (bool(self._intake.rest) or not self._has_responded()) and not self.transport.is_closing()

    def _end_input(self) -> None:
        """Reject a request that is not complete when the client has closed its side, and all it sent is parsed."""
        if self._state is State.DISCARD:
            self._reject_prediction(CLOSE)
        elif self._state in PARTIAL:
            self._reject(incomplete())
        elif self._has_responded():
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.hold(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._charge()
            self.flow.hold(bool(self._intake.rest) or self._is_pausing)
            if self._is_postponed and not self.transport.is_closing():
                self._is_postponed = False
                self._continue()

    # Reading

    def data_received(self, data: bytes) -> None:
        intake = self._intake
        if self._state is State.ENDING:
            self._drop(len(data))
        elif len(data) <= PIECE and not intake.rest and bool(self.pipeline) == (self._state in PARTIAL):
            # If requests wait already, only the rest of the last one is parsed.
            self._parse(data)
        else:
            intake.add(data)
            self.server_state.turns.add(self)
        if self.account.charged or self._held_bytes() > FREE_BYTES:
            self._charge()

    def hold_back(self) -> None:
        """Read nothing more until the rest is parsed."""
        if not self.transport.is_closing():
            self.flow.hold(True)

    def read_on(self) -> None:
        """Parse what was received, until a response is due. After a while others get their turn."""
        if self.transport.is_closing():
            return
        end, intake = time.perf_counter() + SLICE, self._intake
        while intake.rest and self._state is not State.RESPONDING and not self.pipeline and not self._is_blocked():
            if self._state is State.ENDING:
                self._drop(intake.rest)
                intake.clear()
            else:
                self._parse(intake.next_piece(self._state in (State.BODY, State.DISCARD)))
            if time.perf_counter() > end and intake.rest:
                self.server_state.turns.add(self)
                break
        self.flow.hold(bool(intake.rest) or self._is_blocked())
        if self._is_half_closed and not intake.rest:
            self._end_input()

    def _is_blocked(self) -> bool:
        return self.flow.write_paused or self._is_pausing

    def _parse(self, data: bytes | memoryview) -> None:
        intake, body = self._intake, self._intake.body
        if self._state is not State.RESPONDING:
            intake.received += len(data)
        try:
            intake.parse(data, self._state is State.IDLE)
            if self._state in PARTIAL:
                intake.check_rest(len(data), body)
                if not self._since:
                    self._since = self.loop.time()
        except RejectedError as rejection:
            self._reject(rejection)
        except EndedError:
            pass

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > MAX_DROPPED + 2 * self._service.settings.max_body:
            self.transport.abort()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        if self._state is State.ENDING or self.transport.is_closing():
            raise EndedError
        super().on_message_begin()
        self._intake.begin()
        self._state, self._since = State.HEAD, 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        # The parser leaves the white space after a value, which is no part of it (RFC 9110, section 5.5).
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        self._intake.check_head()
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise malformed("CONNECT, because this service is not a proxy")
        elif self._must_discard():
            self._state = State.DISCARD
            self.cycle = Discarded()  # type: ignore[assignment]
            if self.expect_100_continue:
                # The client waits for a response before it sends its body. After a 429 it may still send the body or
                # not, so the connection cannot be used again.
                self._reject_prediction(CLOSE)
                self._end()
        else:
            self._state = State.BODY
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._intake.body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() or self._state is State.ENDING:
            return
        super().on_message_complete()
        if self._state is State.DISCARD:
            self._state, self._since = State.IDLE, self.loop.time()
            self._intake.begin()
            if self.parser.should_keep_alive() and not self._is_stopping:
                self._reject_prediction()
            else:
                self._reject_prediction(CLOSE)
                self._close()
            return
        self._queued += self._intake.received + QUEUED_BYTES
        size = self._intake.body
        self._intake.begin()
        self._state = State.RESPONDING
        # A pipelined request may never start, because the client may disconnect. _start_asgi_task counts it.
        if not self.pipeline:
            context = context_in(self.cycle.scope, self._service)
            context.arrived(self.scope["method"], self.scope["path"], size)

    # Responding

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        context = RequestContext(self._service, cycle.scope["headers"], is_complete=not cycle.more_body)
        cast("dict[str, RequestContext]", cycle.scope)[SCOPE_KEY] = context
        if context.is_complete:
            context.arrived(cycle.scope["method"], cycle.scope["path"], len(cycle.body))
        cycle.transport, self._running = cast("asyncio.Transport", self._outgoing), cycle
        if self._is_stopping and not self.pipeline:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._outgoing.flush()
        self.server_state.total_requests += 1
        if not self.pipeline:
            self._queued = 0
        if self._state is State.RESPONDING:
            self._since = self.loop.time()
            self._state = State.RESPONDING if self.pipeline else State.IDLE
        if self.account.charged or self.transport.get_write_buffer_size():
            self._charge()
        if self.transport.is_closing():
            return
        if self.flow.write_paused:
            self._is_postponed = True
        else:
            self._continue()

    def _continue(self) -> None:
        """Go on after a response: start the next request, parse further bytes, or end the connection."""
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_response:
            self.transport.write(self._last_response)
            self._end()
        elif self._is_half_closed and not self._intake.rest:
            self.transport.close()
        if self._intake.rest:
            self.read_on()
        self.flow.resume_reading()

    def _has_responded(self) -> bool:
        is_rejected = self._state is State.ENDING and not self._last_response
        return is_rejected or self.cycle is None or self.cycle.response_complete

    # Rejecting

    def _must_discard(self) -> bool:
        """Return whether the new request is a prediction beyond the limit, and no earlier response is due here."""
        admission = self._service.admission
        if not admission.is_busy or not self._has_responded() or self.parser.get_method() != b"POST":
            return False
        return admission.rejects(path_of(self.url), int(dict(self.headers).get(b"content-length", 0)))

    def _reject_prediction(self, *headers: tuple[bytes, bytes]) -> None:
        self.scope |= {"method": self.parser.get_method().decode("ascii"), "path": path_of(self.url)}
        response = overloaded(self._service, cast("HTTPScope", self.scope))
        self.transport.write(response.to_http(*self.server_state.default_headers, *headers))

    def _reject(self, rejection: RejectedError) -> None:
        """Reject the request that is being read, after the responses that are due, and end the connection."""
        if self._state is State.ENDING or self.transport.is_closing():
            return
        self.server_state.ended(rejection.reason)
        response = rejection.to_http(self._service, self.url, self.headers, self.server_state.default_headers)
        is_due = not self._has_responded()
        if self._state is State.BODY and self.pipeline:
            self.pipeline.popleft()  # The request itself, which waits for a response that is due.
        elif self._state is State.BODY:
            self._disconnect()  # The application has the request already, and no other response is due.
            is_due = False
        if is_due:
            self._state, self._last_response = State.ENDING, response
        else:
            self.transport.write(response)
            self._end()

    # Ending

    def _charge(self) -> None:
        """Charge the bytes of this connection to its account. The subclass also acts if the worker holds too many."""
        self.account.charge(self._held_bytes())

    def _held_bytes(self) -> int:
        received = self._intake.received if self._state in (State.HEAD, State.BODY) else 0
        unread = self._undecrypted_bytes() + self.transport.get_write_buffer_size()
        return received + self._queued + self._intake.rest + unread

    def _close(self) -> None:
        """End the connection. Its last response is written."""
        if self._state in (State.HEAD, State.BODY) or self._intake.rest:
            self._end()
        else:
            self.transport.close()

    def _end(self) -> None:
        """Close this side of the connection, and wait until the client closes the other side."""
        self._state, self._since = State.ENDING, self.loop.time()
        self._queued, self._last_response = 0, b""
        self._intake.clear()
        self.pipeline.clear()
        self.account.free(self.loop)
        if self._is_half_closed:
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.hold(False)

    def _abort(self, reason: str) -> None:
        self.server_state.ended(reason)
        self._disconnect()
        self.transport.abort()

    def _disconnect(self) -> None:
        """Tell the application that its response is no longer wanted."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            # Otherwise the application, when it starts, would write "100 Continue" after the last response.
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()

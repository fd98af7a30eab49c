"""The limits of a connection: how long it waits for its client, and how many bytes it holds for its client."""

from __future__ import annotations

import asyncio
import math

from serving.api.middleware import context_in
from serving.server.descriptors import EXTRA_CONNECTIONS
from serving.server.protocol import CLOSE, Protocol
from serving.server.rejection import RejectedError, too_many_bytes, too_many_connections, too_slow
from serving.server.states import PARTIAL, State

# Seconds for sending the first request and for reading the last response, while the service stops or when the place of
# the connection is needed. Otherwise these limits are longer.
LAST_SECONDS = 1.0
# Seconds for which nothing is read from a connection after a prediction was rejected with 429, if there are too many
# rejections. Without this pause, clients that send requests without waiting would keep the event loop busy with them.
# A connection of a load balancer also carries requests of others, which would wait too. So a few rejections cause none.
PAUSE_SECONDS = 0.1


class LimitedProtocol(Protocol):
    """A connection that ends if its client takes too long, or if others need its place or its memory."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        beyond = len(self.connections) - self._service.settings.max_connections
        if beyond > EXTRA_CONNECTIONS:
            self._abort("too_many_connections")
        elif beyond > 0 and not self.server_state.make_room():
            self._is_stopping = True
            self._reject(too_many_connections())

    def on_response_complete(self) -> None:
        if self.cycle is not None and not self.pipeline and context_in(self.cycle.scope, self._service).is_rejected:
            self._pause()
        super().on_response_complete()

    def _reject_prediction(self, *headers: tuple[bytes, bytes]) -> None:
        super()._reject_prediction(*headers)
        if not headers:
            self._pause()

    def _pause(self) -> None:
        """Count a rejection, and read nothing from this connection for a moment if there are too many."""
        if self.server_state.has_too_many_rejections() and not self._is_pausing:
            self._is_pausing = True
            self.flow.hold(True)
            self.loop.call_later(PAUSE_SECONDS, self._end_pause)

    def _end_pause(self) -> None:
        self._is_pausing = False
        if not self.transport.is_closing():
            self.read_on()

    def _charge(self) -> None:
        """Charge the bytes of this connection. If there are too many in all, end the one that has waited longest."""
        size = self._held_bytes()
        if not self.account.charge(size):
            return
        while self._service.held.needs_room() and self.server_state.make_room_for_bytes():
            pass
        # A whole request gets its response soon, and then its bytes are free. How long other bytes stay depends on the
        # client, and so does how many requests follow.
        is_whole = self._state is State.RESPONDING and not self.pipeline and size <= self._queued
        if self.account.is_over() and not is_whole:
            self.evict(too_many_bytes())

    def waits_since(self) -> float:
        """Return the time since which this connection waits for its client; infinity if it does not wait."""
        is_working = self._state is State.RESPONDING and not (self._is_postponed or self.transport.is_closing())
        return math.inf if is_working or not self._since else self._since

    def check(self, now: float) -> None:
        """End the connection if its client takes too long."""
        settings = self._service.settings
        unread_for = self.account.unread_for(self.transport.get_write_buffer_size(), now)
        waits_for = now - self._since
        limit: float
        if self.account.charged or self._undecrypted_bytes():
            self._charge()
        if unread_for > settings.write_timeout:
            self._abort("write_timeout")
        elif self.transport.is_closing():
            return
        elif self._state is State.IDLE:
            # Line breaks between two requests do not begin a request, but they count as received.
            is_new = self.cycle is None or self._intake.received
            limit = settings.request_timeout if is_new else settings.keep_alive
            if waits_for > (LAST_SECONDS if self._is_stopping else limit) and not self._intake.rest:
                self.transport.close()
        elif self._state is State.ENDING:
            limit = LAST_SECONDS if self._is_stopping else settings.request_timeout
            if not self._last_response and waits_for > limit:
                self.transport.abort()
        elif self._state in PARTIAL and waits_for > settings.request_timeout:
            self._end_slow_request()

    def _end_slow_request(self) -> None:
        """End a connection whose client takes too long to send its request.

        A load balancer would report a connection that ends without a response as a fault of the service (502).
        """
        if self._state is State.BODY:
            self._reject(too_slow(self._service.settings))
        elif self._state is State.DISCARD:
            self.server_state.ended("request_timeout")
            self._reject_prediction(CLOSE)
            self._end()
        else:
            self._abort("request_timeout")

    def evict(self, rejection: RejectedError) -> None:
        """End the connection because its place or its memory is needed."""
        self._is_stopping = self._is_stopping or rejection.reason == "too_many_connections"
        # A client that is sending a request gets a response, although its request is perhaps not parsed yet.
        if self._state is State.BODY or self._intake.rest:
            self._reject(rejection)
        else:
            self._abort(rejection.reason)
        self.account.free(self.loop)

    def shutdown(self) -> None:
        """End the connection after the requests that have arrived. The server calls this when it stops."""
        self._is_stopping = True
        if self._state is not State.IDLE:
            if self.cycle is not None:
                self.cycle.keep_alive = False
        elif self.cycle is not None:
            self.transport.close()
        else:
            self._since = self.loop.time()

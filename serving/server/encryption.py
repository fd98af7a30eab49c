"""TLS between the socket of a connection and its HTTP protocol.

The event loop's own TLS is not used here. It encrypts a whole response at once, so nobody could count the bytes that a
client does not read; it gives the connection to the protocol only after the handshake, so no limit would hold before;
and it cannot close one direction alone, so a client would lose the response to a request that is rejected early.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from serving.server.turns import SLICE, Turns

# The largest record of TLS. More is not encrypted at a time, nor decrypted.
RECORD = 16_384

# The response to a request without TLS. Its client cannot read another one.
PLAIN = b"this port speaks HTTPS: write https:// in the URL\n"
PLAIN_RESPONSE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
) % (len(PLAIN), PLAIN)


class End(enum.Enum):
    """What follows the last byte to the client."""

    NOTHING = enum.auto()
    END_OF_OUTPUT = enum.auto()
    """The other direction stays open."""
    CLOSE = enum.auto()


class Encrypted(asyncio.Protocol, asyncio.Transport):
    """The protocol of a socket's transport, and the transport of an HTTP protocol.

    The HTTP protocol has the connection from the beginning, so its limits also hold for the handshake.

    Args:
        failed: called with the reason if the client does not speak TLS, or has no valid certificate.
        turns: in which the connections do what takes long: a handshake, and a request in thousands of small records.
    """

    def __init__(
        self, protocol: asyncio.Protocol, context: ssl.SSLContext, failed: Callable[[str], None], turns: Turns
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._context = context
        self._failed = failed
        self._turns = turns
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._arrived = memoryview(b"")
        """What OpenSSL has not got yet. Its own buffer never shrinks, so it gets one record at a time."""
        self._unsent: deque[memoryview] = deque()
        """What is not encrypted yet."""
        self._unsent_bytes = 0
        self._end = End.NOTHING
        self._is_ready = False  # The handshake is complete.
        self._is_full = False  # The socket takes no more for now.
        self._is_paused = False  # The HTTP protocol wants no more for now.
        self._is_held = False  # The socket is not read until the next turn.
        self._has_input_ended = False
        self._has_output_ended = False
        self._is_half_closed = False
        self._is_end_reported = False

    # The protocol of the socket's transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if self._is_ready and self._end is End.CLOSE:
            return
        self._arrived = memoryview(bytes(self._arrived) + data if self._arrived else data)
        if self._is_ready:
            # The HTTP protocol gets the first record at once, and counts what has arrived.
            self._read_for(0)
        else:
            self._turns.add(self)

    def eof_received(self) -> bool:
        """Return True, because the HTTP protocol decides whether the connection stays open for its response."""
        self._has_input_ended = True
        self._turns.add(self)
        return True

    def pause_writing(self) -> None:
        self._is_full = True
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._is_full = False
        self._send()
        if not self._is_full:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unsent.clear()
        self._unsent_bytes, self._arrived = 0, memoryview(b"")
        protocol = self._protocol
        protocol.connection_lost(exc)
        # Without this reference, the memory is free at once and not only after a garbage collection.
        self._protocol = asyncio.Protocol()

    # The transport of the HTTP protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and self._end is End.NOTHING:
            self._unsent.append(memoryview(data))
            self._unsent_bytes += len(data)
            self._send()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._end is End.NOTHING:
            self._end = End.END_OF_OUTPUT
            self._send()

    def close(self) -> None:
        """Close the connection when everything is sent."""
        if self._end is not End.CLOSE:
            self._end = End.CLOSE
            if self._is_ready or not self._unsent:
                self._send()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._end is End.CLOSE or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._is_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if not self._is_held:
                self._transport.resume_reading()
            # The HTTP protocol may be within a call of data_received.
            asyncio.get_running_loop().call_soon(self.read_on)

    def is_reading(self) -> bool:
        return not self._is_paused

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes + self._transport.get_write_buffer_size()

    def get_read_buffer_size(self) -> int:
        return len(self._arrived) + self._incoming.pending

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._context
        return self._tls if name == "ssl_object" else self._transport.get_extra_info(name, default)

    # Between both

    def hold_back(self) -> None:
        """Read nothing more from the socket until the next turn."""
        if not self._transport.is_closing():
            self._is_held = True
            self._transport.pause_reading()

    def read_on(self) -> None:
        """Continue the handshake, or decrypt what has arrived. After a while others get their turn."""
        self._read_for(SLICE)

    def _read_for(self, seconds: float) -> None:
        if self._transport.is_closing() or not (self._is_ready or self._shake_hands()):
            is_done = True
        else:
            is_done = self._decrypt(seconds)
        if not is_done:
            self._turns.add(self)
        elif self._is_held:
            self._is_held = False
            if not (self._is_paused or self._transport.is_closing()):
                self._transport.resume_reading()

    def _shake_hands(self) -> bool:
        """Continue the handshake, and return whether it is complete."""
        while not self._is_ready:
            try:
                self._tls.do_handshake()
                self._is_ready = True
            except ssl.SSLWantReadError:
                if not self._feed():
                    break
            except ssl.SSLError as error:
                self._fail(error)
                return False
        self._flush()
        if self._is_ready:
            self._send()
        elif self._has_input_ended:
            self._transport.close()
        return self._is_ready

    def _feed(self) -> bool:
        """Give OpenSSL the next bytes that have arrived, and return whether there were any."""
        size = self._incoming.write(self._arrived[:RECORD])
        self._arrived = self._arrived[RECORD:]
        return size > 0

    def _decrypt(self, seconds: float) -> bool:
        """Decrypt at least one record for the HTTP protocol, and return whether nothing is left for another turn."""
        end = time.perf_counter() + seconds
        is_empty = not (self._incoming.pending or self._feed())
        while not (is_empty or self._is_paused or self.is_closing()):
            try:
                if data := self._tls.read(RECORD):
                    self._protocol.data_received(data)
                else:
                    self._has_input_ended = is_empty = True
            except ssl.SSLWantReadError:
                is_empty = not self._feed()
            except ssl.SSLZeroReturnError:
                self._has_input_ended = is_empty = True
            except ssl.SSLError as error:
                self._fail(error)
                return True
            if self.get_read_buffer_size() and time.perf_counter() > end:
                self._flush()
                return False
        self._flush()
        if self._has_input_ended and not (self._is_end_reported or self._is_paused or self.is_closing()):
            self._is_end_reported = True
            if not self._protocol.eof_received():
                self.close()
        return True

    def _send(self) -> None:
        """Encrypt and send as much as the socket takes, and then end the output if the HTTP protocol has ended it."""
        try:
            while self._unsent and self._is_ready and not self._is_full:
                data = self._unsent[0]
                self._tls.write(data[:RECORD])
                self._flush()
                self._unsent_bytes -= len(data[:RECORD])
                if len(data) > RECORD:
                    self._unsent[0] = data[RECORD:]
                else:
                    self._unsent.popleft()
        except ssl.SSLError as error:
            self._fail(error)
            return
        if not self._unsent and self._end is not End.NOTHING:
            self._end_output()

    def _end_output(self) -> None:
        if self._is_ready and not self._has_output_ended:
            self._has_output_ended = True
            # OpenSSL would also look for the end of the client's output, and fail for ever if it finds more data.
            rest = self._incoming.read()
            # The error says that the client has not ended its own output. It need not.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._incoming.write(rest)
            self._flush()
            if self._end is End.END_OF_OUTPUT and not self._transport.is_closing():
                self._is_half_closed = True
                self._transport.write_eof()
        if self._end is End.CLOSE:
            self._transport.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        # A client may cause messages of TLS itself after the end of the output. They are dropped.
        if data and not (self._is_half_closed or self._transport.is_closing()):
            self._transport.write(data)

    def _fail(self, error: ssl.SSLError) -> None:
        if self._transport.is_closing():
            return
        self._failed((error.reason or str(error)).replace("_", " ").lower())
        if error.reason == "HTTP_REQUEST":
            self._transport.write(PLAIN_RESPONSE)
        else:
            self._flush()  # OpenSSL has written an alert that tells the client why.
        self._transport.close()

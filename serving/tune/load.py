"""Load a service: each connection sends a request again as soon as it has the response to the last one.

Everything runs on one thread, with as little work for a request as possible, because the load shares the machine with
the service that it measures.
"""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from serving.errors import TuneError

OK, REJECTED = 200, 429
# Seconds without any response after which the service counts as hung.
PATIENCE = 20.0
# Bytes that are read from a socket at once.
RECEIVED = 1 << 18
# Bytes of an unexpected response in the error.
SHOWN = 300


@dataclass
class Load:
    """What one measurement found."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of each request with the status 200, from sending it to the end of the response."""
    rejected: int = 0
    """Requests with the status 429."""
    share: float = 0.0
    """The share of a core that the load itself took."""

    @property
    def rate(self) -> float:
        """Requests with the status 200 per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return the time within which this share of the requests had their responses; infinity without one."""
        ordered = sorted(self.latencies)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.inf


class _Connection:
    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._received = b""
        self._size = 0

    def send(self) -> None:
        self._received, self._size = b"", 0
        # The service can respond before sendall returns.
        self.sent = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> int:
        """Receive what is there, and return the status once the response is complete, and 0 before."""
        part = self.socket.recv(RECEIVED)
        if not part:
            raise TuneError("the measured service closed a connection")
        self._received += part
        if not self._size:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return 0
            head = self._received[:end].lower()
            self._size = end + 4 + int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
        return int(self._received[9:12]) if len(self._received) >= self._size else 0

    def body(self) -> str:
        """Return the first characters of the response."""
        return self._received.partition(b"\r\n\r\n")[2][:SHOWN].decode("utf-8", "replace")


def drive(port: int, request: bytes, connections: int, seconds: float, warm_up: float = 0.0) -> Load:
    """Send ``request`` over ``connections`` to a service on this machine for some seconds, and return what was found.

    Args:
        warm_up: seconds before that, which do not count.

    Raises:
        TuneError: a response has another status than 200 and 429, or none comes.
    """
    load = Load()
    with _opened(port, request, connections) as selector:
        now = time.perf_counter()
        start = now + warm_up
        end = start + seconds
        busy = time.process_time()
        for key in [*selector.get_map().values()]:
            key.data.send()
        is_warm = False
        while now < end:
            ready = selector.select(PATIENCE)
            if not ready:
                raise TuneError(f"the measured service did not respond for {PATIENCE:g} s")
            if not is_warm and time.perf_counter() >= start:
                is_warm, busy = True, time.process_time()
            for key, _ in ready:
                connection: _Connection = key.data
                if not (status := connection.receive()):
                    continue
                now = time.perf_counter()
                if status not in (OK, REJECTED):
                    raise TuneError(f"the measured service responded with {status}: {connection.body()}")
                if is_warm and status == OK:
                    load.latencies.append(now - connection.sent)
                elif is_warm:
                    load.rejected += 1
                connection.send()
        load.seconds = time.perf_counter() - start
        load.share = (time.process_time() - busy) / load.seconds
    return load


@contextmanager
def _opened(port: int, request: bytes, connections: int) -> Iterator[selectors.BaseSelector]:
    """Yield a selector with open connections."""
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(connections):
            connection = _Connection(port, request)
            stack.callback(connection.socket.close)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        yield selector

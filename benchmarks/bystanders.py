"""Good requests beside an attack: each is sent again and again, and must get its right response soon."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.clients import PATIENCE, Streams, read_response
from benchmarks.harness import Request, encode_picture, golden_digits

# Seconds between two good requests of one kind, and until a rejected one is sent again.
PAUSE = 0.02
RETRY = 0.1


@dataclass
class Bystander:
    """A client that sends a good request again and again over its own connection."""

    name: str
    request: bytes
    is_right: Callable[[bytes], bool]
    longest: float = 0.0
    """Longest time from the first try to the right response, in seconds. A request without a response counts too."""
    right: int = 0
    rejected: int = 0
    """Responses 429 and 503. The request was sent again."""
    lost: int = 0
    """Connections that ended without a response. The request was sent again over a new one."""
    wrong: list[tuple[str, bytes]] = field(default_factory=list)
    """Status and body of each other response."""
    _streams: Streams | None = None

    async def stay(self, port: int) -> None:
        """Send the request until the task is cancelled."""
        started = time.monotonic()
        try:
            while True:
                started = time.monotonic()
                await self._until_answered(port)
                self.longest = max(self.longest, time.monotonic() - started)
                await asyncio.sleep(PAUSE)
        finally:
            self.longest = max(self.longest, time.monotonic() - started)
            self._disconnect()

    async def _until_answered(self, port: int) -> None:
        while True:
            status, body = await self._ask(port)
            if status == "200" and self.is_right(body):
                self.right += 1
                return
            if status in ("429", "503"):
                self.rejected += 1
            elif status == "closed":
                self.lost += 1
            else:
                self.wrong.append((status, body))
                return
            await asyncio.sleep(RETRY)

    async def _ask(self, port: int) -> tuple[str, bytes]:
        """Send the request, and return the status and the body of its response."""
        try:
            async with asyncio.timeout(PATIENCE):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", port)
                reader, writer = self._streams
                writer.write(self.request)
                status, body, stays_open = await read_response(reader)
        except TimeoutError:
            status, body, stays_open = "none", b"", False
        except OSError:
            status, body, stays_open = "closed", b"", False
        if not stays_open:
            self._disconnect()
        return status, body

    def _disconnect(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def bystanders() -> list[Bystander]:
    """Return a client that sends a digit's pixels, one that sends it as a PNG, and one that asks for the health."""
    images, labels = golden_digits()
    image, label = images[0], int(labels[0])

    def is_digit(body: bytes) -> bool:
        return bool(json.loads(body)["predictions"][0]["digit"] == label)

    pixels = Request("/predict", "application/octet-stream", image.tobytes())
    picture = Request("/predict", "image/png", encode_picture(image))
    probe = b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
    return [
        Bystander("pixels", pixels.as_bytes(), is_digit),
        Bystander("PNG", picture.as_bytes(), is_digit),
        Bystander("probe", probe, lambda _: True),
    ]

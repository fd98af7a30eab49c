"""Send one connection of the server bytes that may be anything, and check that nothing fails."""

from __future__ import annotations

import asyncio
import functools
import re

import uvicorn

from serving.server import run
from serving.settings import Settings
from tests.fuzz.application import LONGEST, NoErrors, application, event_loop, within

# A place in an input where one packet ends and the next one begins.
CUT = b"<cut>"
# Turns of the event loop after each packet. A whole request needs fewer.
TURNS = 20


class Transport(asyncio.Transport):
    """Keeps the bytes that are written. Like a real transport, it calls its protocol when it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.loop = loop
        self.protocol: asyncio.Protocol | None = None
        self.written = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.loop.call_soon(self.protocol.connection_lost, None)

    abort = close

    def nothing(self, *_: object, **__: object) -> None:
        pass

    pause_reading = resume_reading = set_write_buffer_limits = write_eof = nothing

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def is_reading(self) -> bool:
        return True


@functools.cache
def loaded_configuration() -> uvicorn.Config:
    config = run.configuration(Settings(), application())
    config.load()
    return config


def feed(content: bytes) -> bytes:
    """Send the packets in ``content`` over one connection, close it, and return what the server has written."""
    loop = event_loop()
    loaded_configuration()
    trouble: list[dict] = []
    loop.set_exception_handler(lambda _, context: trouble.append(context))
    with NoErrors(), within(LONGEST):
        written = loop.run_until_complete(_feed(content.split(CUT)))
    assert not trouble, trouble
    assert not re.match(rb"HTTP/1.1 5(?!01|03|04|05|07)", written), written
    assert not written or written.startswith(b"HTTP/1.1 "), written
    return written


async def _feed(packets: list[bytes]) -> bytes:
    loop = asyncio.get_running_loop()
    before = len([timer for timer in loop._scheduled if not timer.cancelled()])
    config = loaded_configuration()
    server = run.Server(config)
    protocol = config.http_protocol_class(config, server.server_state, {})
    transport = Transport(loop)
    transport.protocol = protocol
    protocol.connection_made(transport)
    for packet in packets:
        if packet and not transport.closing:
            protocol.data_received(packet)
        for _ in range(TURNS):
            await asyncio.sleep(0)
    if not transport.closing:
        transport.close()
    # Every request of a lost connection must end.
    async with asyncio.timeout(30):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    timers = [timer for timer in loop._scheduled if not timer.cancelled()]
    assert len(timers) <= before, timers
    return transport.written

"""The states of a connection, one by one, with a transport in memory."""

from __future__ import annotations

import asyncio

import pytest

from serving.api.app import create_app
from serving.inference.admission import Admission
from serving.server.limits import LimitedProtocol
from serving.server.run import configuration
from serving.server.server import Server
from serving.server.states import State
from serving.settings import Settings
from tests.serving.server.clients import DIGIT, HEAD


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.closing = False

    def write(self, data):
        self.written += data

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    abort = close

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0

    def write_eof(self):
        self.ended = True

    def pause_reading(self):
        pass

    resume_reading = pause_reading


@pytest.fixture(scope="module")
def app():
    return create_app(Settings())


async def connected(app):
    config = configuration(Settings(), app)
    config.load()
    protocol = LimitedProtocol(config, Server(config).server_state, {})
    protocol.connection_made(Transport())
    return protocol


async def responded(protocol):
    while protocol._state is State.RESPONDING:
        await asyncio.sleep(0)


def test_request_in_pieces_goes_through_every_state(app):
    async def steps():
        protocol = await connected(app)
        states = [protocol._state]
        for piece in (HEAD[:30], HEAD[30:] + bytes(100), bytes(684)):
            protocol.data_received(piece)
            states.append(protocol._state)
        await responded(protocol)
        return [*states, protocol._state], protocol.transport.written

    states, written = asyncio.run(steps())
    assert states == [State.IDLE, State.HEAD, State.BODY, State.RESPONDING, State.IDLE]
    assert written.startswith(b"HTTP/1.1 200 ")


def test_connection_without_progress_ends(app):
    """In each state that waits for the client, the time is limited, and it counts from the beginning of the wait."""

    async def ends(*pieces, after):
        protocol = await connected(app)
        for piece in pieces:
            protocol.data_received(piece)
        if pieces and pieces[-1] == DIGIT:
            await responded(protocol)
        now = protocol.loop.time()
        protocol.check(now + after - 1)
        assert not protocol.transport.closing
        protocol.check(now + after + 1)
        if pieces and pieces[-1] == bytes(10):
            assert protocol.transport.written.startswith(b"HTTP/1.1 408 ")
            return protocol.transport.ended
        return protocol.transport.closing

    async def steps():
        return [
            await ends(after=20),
            await ends(HEAD[:30], after=20),
            await ends(HEAD, bytes(10), after=20),
            await ends(HEAD, DIGIT, after=30),
            await ends(HEAD, DIGIT, after=30),
        ]

    assert asyncio.run(steps()) == [True] * 5


def test_rejected_body_is_discarded_and_the_next_request_is_read(app):
    async def steps():
        protocol = await connected(app)
        admission, app.state.service.admission = app.state.service.admission, Admission(0)
        protocol.data_received(HEAD + bytes(10))
        states = [protocol._state]
        protocol.data_received(bytes(774))
        states.append(protocol._state)
        rejected, protocol.transport.written = protocol.transport.written, b""
        app.state.service.admission = admission
        protocol.data_received(HEAD + bytes(784))
        await responded(protocol)
        return states, rejected, protocol.transport.written

    states, rejected, written = asyncio.run(steps())
    assert states == [State.DISCARD, State.IDLE]
    assert rejected.startswith(b"HTTP/1.1 429 ")
    assert written.startswith(b"HTTP/1.1 200 ")


def test_pipelined_request_is_read_while_the_first_is_in_flight(app):
    async def steps():
        protocol = await connected(app)
        protocol.data_received(HEAD + bytes(784) + HEAD + bytes(10))
        assert protocol._state is State.BODY
        protocol.data_received(bytes(774))
        assert protocol._state is State.RESPONDING
        await responded(protocol)
        return protocol.transport.written

    assert asyncio.run(steps()).count(b"HTTP/1.1 200 ") == 2

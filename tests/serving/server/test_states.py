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

BAD_CHUNK = HEAD.replace(b"content-length: 784", b"transfer-encoding: chunked") + b"zz\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.closing = self.ended = False

    def write(self, data):
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")  # As uvloop does.
        self.written += data

    def taken(self):
        """Return what was written since the last call."""
        written, self.written = self.written, b""
        return written

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


async def receive(protocol, data):
    """Let the connection receive ``data``, and wait until it has parsed it: at once, or in its next turn."""
    protocol.data_received(data)
    await asyncio.sleep(0)


async def responded(protocol):
    while protocol._state is State.RESPONDING:
        await asyncio.sleep(0)


def test_request_in_pieces_goes_through_every_state(app):
    async def steps():
        protocol = await connected(app)
        states = [protocol._state]
        for piece in (HEAD[:30], HEAD[30:] + bytes(100), bytes(684)):
            await receive(protocol, piece)
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
            await receive(protocol, piece)
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
        await receive(protocol, bytes(774))
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
        await receive(protocol, bytes(774))
        assert protocol._state is State.RESPONDING
        await responded(protocol)
        return protocol.transport.written

    assert asyncio.run(steps()).count(b"HTTP/1.1 200 ") == 2


def test_many_connections_share_the_time_for_parsing(app, monkeypatch):
    """None of them parses all it has at once, each gets its turn, and small whole requests wait for nobody."""
    monkeypatch.setattr("serving.server.turns.TURN", 0.0)
    monkeypatch.setattr("serving.server.protocol.SLICE", 0.0)
    chunked = HEAD.replace(b"content-length: 784", b"transfer-encoding: chunked")
    assert chunked != HEAD
    body = b"1\r\n\0\r\n" * 784 + b"0\r\n\r\n"

    async def steps():
        slow = [await connected(app) for _ in range(3)]
        for protocol in slow:
            protocol.data_received(chunked + body)
        assert [protocol._state for protocol in slow] == [State.IDLE] * 3
        good = await connected(app)
        good.data_received(HEAD + bytes(784))
        assert good._state is State.RESPONDING
        left = []
        while any(protocol._intake.rest for protocol in slow):
            await asyncio.sleep(0)
            left.append([protocol._intake.rest for protocol in slow])
        for protocol in [*slow, good]:
            await responded(protocol)
        return left, [protocol.transport.written for protocol in [*slow, good]]

    left, written = asyncio.run(steps())
    # They take turns: none is more than one piece ahead of another.
    assert all(max(sizes) - min(sizes) <= 4096 for sizes in left)
    assert all(response.startswith(b"HTTP/1.1 200 ") for response in written)


def test_request_is_read_to_its_end_after_the_client_has_closed_its_side(app):
    async def steps(size):
        protocol = await connected(app)
        protocol.data_received(HEAD.replace(b"784", b"7840") + bytes(size))
        assert protocol.eof_received()
        while protocol._intake.rest:
            await asyncio.sleep(0)
        await responded(protocol)
        return protocol.transport.written, protocol.transport.closing

    whole, is_closed = asyncio.run(steps(7840))
    assert whole.startswith(b"HTTP/1.1 200 ")
    assert is_closed
    part, is_closed = asyncio.run(steps(7839))
    assert part.startswith(b"HTTP/1.1 400 ")
    assert is_closed


def test_client_that_closes_after_a_rejected_body_is_forgotten_at_once(app):
    async def steps():
        protocol = await connected(app)
        await receive(protocol, BAD_CHUNK)
        assert protocol._state is State.ENDING
        return protocol.eof_received(), protocol.transport.closing

    assert asyncio.run(steps()) == (False, True)


def test_nothing_is_written_after_the_rejection_of_a_body_that_waits_for_100_continue(app, caplog):
    async def steps():
        protocol = await connected(app)
        protocol.data_received(BAD_CHUNK.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n", 1))
        while protocol.tasks:
            await asyncio.sleep(0)
        return protocol.transport.written

    assert asyncio.run(steps()).startswith(b"HTTP/1.1 400 ")
    assert not caplog.records

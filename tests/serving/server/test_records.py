"""HTTPS requests that arrive in thousands of records of one byte, with a transport in memory."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from serving.api.app import create_app
from serving.server.encryption import Encrypted
from serving.server.states import State
from serving.server.turns import Turns
from serving.settings import Settings
from serving.tls import Credentials
from tests.serving.server.clients import DIGIT, HEAD
from tests.serving.server.test_states import BAD_CHUNK, Transport, connected


@pytest.fixture(scope="module")
def app():
    return create_app(Settings())


@pytest.fixture(scope="module")
def context(authority):
    certificate, key = authority.issue("records")
    return Credentials(Settings(tls_cert=str(certificate), tls_key=str(key))).context


class Client:
    """A client of TLS, and the server's side of its connection."""

    def __init__(self, authority, context, protocol, turns):
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = authority.trusted().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.protocol, self.transport = protocol, Transport()
        self.failures = []
        self.server = Encrypted(protocol, context, self.failures.append, turns)
        self.server.connection_made(self.transport)

    async def shake_hands(self):
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.server.data_received(self._outgoing.read())
                await asyncio.sleep(0)
                self._incoming.write(self.transport.taken())
        self.server.data_received(self._outgoing.read())
        await asyncio.sleep(0)

    def send(self, content, size):
        """Send ``content`` in records of ``size`` bytes, which arrive at once."""
        for start in range(0, len(content), size):
            self._tls.write(content[start : start + size])
        self.server.data_received(self._outgoing.read())

    async def response(self):
        content = b""
        while b"\r\n\r\n" not in content:
            await asyncio.sleep(0)
            self._incoming.write(self.transport.taken())
            try:
                content += self._tls.read(65536)
            except ssl.SSLWantReadError:
                continue
        return content


def test_connections_take_turns_to_decrypt_small_records(authority, context, app, monkeypatch):
    """None of them decrypts all it has at once, nor keeps an object for each record. Others wait for none of them."""
    monkeypatch.setattr("serving.server.turns.TURN", 0.0)
    monkeypatch.setattr("serving.server.protocol.SLICE", 0.0)
    monkeypatch.setattr("serving.server.encryption.SLICE", 0.0)

    async def steps():
        protocols = [await connected(app) for _ in range(4)]
        turns = Turns()
        for protocol in protocols:
            protocol.server_state.turns = turns
        clients = [Client(authority, context, protocol, turns) for protocol in protocols]
        for client in clients:
            await client.shake_hands()
        *slow, good = clients
        for client in slow:
            client.send(HEAD, len(HEAD))
            client.send(DIGIT, 1)
        good.send(HEAD + DIGIT, len(HEAD + DIGIT))
        assert good.protocol._state is State.RESPONDING
        left, parts = [[client.server.get_read_buffer_size() for client in slow]], 0
        while any(left[-1]):
            parts = max(parts, *(len(client.protocol._intake._parts) for client in slow))
            await asyncio.sleep(0)
            left.append([client.server.get_read_buffer_size() for client in slow])
        return left, parts, [await client.response() for client in clients]

    left, parts, responses = asyncio.run(steps())
    assert min(left[0]) > len(DIGIT)
    assert parts <= 3
    # None is more than a few records ahead of another.
    assert all(max(sizes) - min(sizes) <= 100 for sizes in left)
    assert all(response.startswith(b"HTTP/1.1 200 ") for response in responses)


def test_what_waits_for_a_turn_counts_as_held(authority, context, app, monkeypatch):
    monkeypatch.setattr("serving.server.encryption.SLICE", 0.0)

    async def steps():
        protocol = await connected(app)
        client = Client(authority, context, protocol, protocol.server_state.turns)
        await client.shake_hands()
        client.send(HEAD, len(HEAD))
        client.send(bytes(2000), 1)
        return protocol.account.charged, client.server.get_read_buffer_size()

    charged, waiting = asyncio.run(steps())
    assert charged >= waiting > 0


def test_client_that_still_sends_gets_the_response_to_a_rejected_request(authority, context, app):
    async def steps():
        protocol = await connected(app)
        client = Client(authority, context, protocol, protocol.server_state.turns)
        await client.shake_hands()
        client.send(BAD_CHUNK + bytes(4000), len(BAD_CHUNK))
        response = await client.response()
        while client.server.get_read_buffer_size() and not client.transport.closing:
            await asyncio.sleep(0)
        return response, client.failures, protocol._state, client.transport.closing

    response, failures, state, is_closed = asyncio.run(steps())
    assert response.startswith(b"HTTP/1.1 400 ")
    # The service waits until the client has read the response and closes its own side.
    assert (failures, state, is_closed) == ([], State.ENDING, False)

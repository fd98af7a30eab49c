"""Requests that arrive in unusual ways: with an Upgrade, in pieces, many at once, or from a half-closed client."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import subprocess
import time

import pytest

from serving.api.app import create_app
from serving.settings import Settings
from tests.serving.server.clients import DIGIT, HEAD, ask, connect, parsed, read_response
from tests.serving.server.test_states import connected
from tests.support import ROOT, missing, service

LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
LAST = LIVE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


@pytest.fixture(scope="module")
def url():
    with service() as (url, _):
        yield url


# Headers


def test_white_space_around_a_value_is_no_part_of_it(url):
    """A client may add it, as RFC 9110 says in section 5.5."""
    head = HEAD.replace(b"host: localhost\r\n", b"host:\tlocalhost \t\r\nx-request-id:  abc \r\n")
    head = head.replace(b"\r\n\r\n", b" \r\nexpect: 100-continue\t\r\nconnection: close \r\n\r\n")
    with connect(url) as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(DIGIT)
        [(status, headers, _)] = parsed(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert (status, headers["x-request-id"]) == (200, "abc")


# Upgrade


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"anything"])
@pytest.mark.parametrize("pieces", ["one packet", "body apart"])
def test_upgrade_is_ignored_and_the_body_is_the_body(url, protocol, pieces):
    """The body reads like a request. It must not be executed."""
    body = (LIVE * 20)[:784]
    head = HEAD.replace(
        b"host: localhost", b"host: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: " + protocol
    )
    requests = [head + body + LAST] if pieces == "one packet" else [head, body, LAST]
    [(first, _, prediction), (second, _, live)] = parsed(ask(url, *requests))
    assert (first, second, live) == (200, 200, b'{"live":true}')
    assert prediction.startswith(b'{"model"')


def test_upgrade_with_a_chunked_body_is_ignored(url):
    head = HEAD.replace(b"content-length: 784", b"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked")
    chunks = b"310\r\n" + DIGIT + b"\r\n0\r\n\r\n"
    assert [status for status, *_ in parsed(ask(url, head, chunks, LAST))] == [200, 200]


def test_many_upgrades_in_one_packet_are_answered_in_order(url):
    upgrade = LIVE.replace(b"host: localhost", b"host: localhost\r\nconnection: upgrade\r\nupgrade: websocket")
    assert [status for status, *_ in parsed(ask(url, upgrade * 30 + LAST))] == [200] * 31


@pytest.mark.parametrize("target", [b"x", b"http://"])
def test_upgrade_with_a_bad_target_is_rejected(url, target):
    request = b"GET " + target + b" HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    assert [status for status, *_ in parsed(ask(url, request + LAST))] == [400]


def test_curl_may_ask_for_http2(url):
    if not shutil.which("curl"):
        missing("curl")
    command = ["curl", "-s", "--http2", "-H", "Content-Type: image/png", "--data-binary"]
    done = subprocess.run([*command, f"@{ROOT}/tests/seven.png", f"{url}/predict"], capture_output=True, check=True)
    assert b'"digit":7' in done.stdout


def test_connect_is_rejected(url):
    [(status, headers, _)] = parsed(ask(url, b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n" + LIVE))
    assert (status, headers["connection"]) == (400, "close")


# Heads


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost:1/v2/health/live", b"evil.example", 200),
        (b"http://evil.example/v2/health/live", b"localhost", 421),
        (b"HTTPS://evil.example/v2/health/live?a", b"localhost", 421),
        (b"/v2/health/live?from=http://evil.example", b"localhost", 200),
    ],
)
def test_host_of_an_absolute_target_counts(url, target, host, status):
    received = ask(url, b"GET %b HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % (target, host))
    assert [status for status, *_ in parsed(received)] == [status]


def test_head_and_body_of_a_response_arrive_together(url):
    with connect(url) as connection:
        for _ in range(20):
            connection.sendall(HEAD + DIGIT)
            assert b'"predictions"' in connection.recv(65536)


def test_response_to_head_arrives(url):
    with connect(url) as connection:
        for _ in range(3):
            connection.sendall(b"HEAD /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)


def test_head_in_two_packets_after_many_requests_counts_only_itself():
    with service("--max-head", 8192) as (url, _):
        head = HEAD.replace(b"host: localhost", b"host: localhost\r\nx: " + b"y" * 6000)
        last = head.replace(b"host: localhost", b"host: localhost\r\nconnection: close")
        responses = parsed(ask(url, (HEAD + DIGIT) * 60 + last[:3000], last[3000:] + DIGIT))
        assert [status for status, *_ in responses] == [200] * 61


def test_head_over_the_limit_is_rejected_after_the_responses_that_are_due(url):
    head = HEAD.replace(b"host: localhost", b"host: localhost\r\nx: " + b"y" * 100_000)
    responses = parsed(ask(url, (HEAD + DIGIT) * 60 + head[:500], head[500:]))
    assert [status for status, *_ in responses] == [200] * 60 + [431]


@pytest.mark.parametrize("size", [33_000, 60_000, 100_000, 250_000])
@pytest.mark.parametrize("kind", ["one header", "many headers", "target"])
def test_head_over_the_limit_is_rejected_even_in_one_packet(url, size, kind):
    head = {
        "one header": LIVE.replace(b"host: localhost", b"host: localhost\r\nx: " + b"y" * size),
        "many headers": LIVE.replace(b"host: localhost", b"host: localhost" + b"\r\na: b" * (size // 6)),
        "target": LIVE.replace(b"live", b"live?" + b"y" * size),
    }[kind]
    assert [status for status, *_ in parsed(ask(url, head))] == [431]


def test_head_under_the_limit_is_accepted(url):
    head = LAST.replace(b"host: localhost", b"host: localhost" + b"\r\na: b" * 5000)
    assert [status for status, *_ in parsed(ask(url, head))] == [200]


# Clients that close their side


@pytest.mark.parametrize("requests", [1, 3])
def test_half_closed_client_gets_its_responses(url, requests):
    with connect(url) as connection:
        connection.sendall((HEAD + DIGIT) * requests)
        connection.shutdown(socket.SHUT_WR)
        content = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [status for status, *_ in parsed(content)] == [200] * requests


def test_half_closed_client_gets_400_for_half_a_request(url):
    with connect(url) as connection:
        connection.sendall(HEAD + DIGIT + HEAD + b"abc")
        connection.shutdown(socket.SHUT_WR)
        content = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [status for status, *_ in parsed(content)] == [200, 400]


# The event loop


def longest_turn(data):
    """Return how long a connection keeps the event loop in one turn, in seconds, while it parses ``data``."""

    async def steps():
        protocol = await connected(create_app(Settings()))
        began = time.thread_time()
        protocol.data_received(data)
        longest = time.thread_time() - began
        while protocol._intake.rest and protocol._has_responded():
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)
        return longest

    # Otherwise a garbage collection in one of these turns would also look at all that other tests have left.
    gc.collect()
    gc.freeze()
    try:
        return asyncio.run(steps())
    finally:
        gc.unfreeze()


CHUNKED = HEAD.replace(b"content-length: 784", b"transfer-encoding: chunked")
TINY = b"GET / HTTP/1.1\r\nhost:\r\n\r\n"


@pytest.mark.parametrize(
    "piece",
    [
        CHUNKED + b"1\r\nx\r\n" * 42_000,
        CHUNKED + b"1;a=b\r\nx\r\n" * 25_000,
        LIVE * 6000,
        TINY * 10_000,
        b"GET / HTTP/1.1\r\nhost:\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n" * 4500,
        b"\r\n" * 128_000,
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 64_000,
    ],
    ids=["tiny chunks", "chunk extensions", "requests", "tiny requests", "upgrades", "line breaks", "headers"],
)
def test_one_read_does_not_block_the_event_loop(piece):
    # One read has at most 256,000 bytes. The budget is 50 ms, but this machine may be slow or busy.
    assert longest_turn(piece) < 0.5


def test_thousands_of_requests_in_one_packet_are_all_answered_and_few_are_queued(url):
    with connect(url) as connection, connection.makefile("rb") as stream:
        connection.sendall(LIVE * 3000)
        assert {read_response(stream)[0] for _ in range(3000)} == {200}


def test_few_requests_of_one_packet_are_queued():
    async def steps():
        protocol = await connected(create_app(Settings()))
        protocol.data_received(TINY * 10_000)
        return len(protocol.pipeline)

    assert asyncio.run(steps()) < 300


def test_few_requests_of_many_packets_are_queued():
    """A client that sends one packet for each response would otherwise fill the memory."""

    async def steps():
        protocol = await connected(create_app(Settings()))
        for _ in range(50):
            protocol.data_received(TINY * 100)
        return len(protocol.pipeline)

    assert asyncio.run(steps()) < 300


def test_client_whose_last_request_is_never_complete_is_rejected_at_the_limit_of_bytes():
    async def steps():
        settings = Settings()
        app = create_app(settings)
        protocol = await connected(app)
        protocol.data_received(TINY * 100 + TINY[:10])
        most = 0
        while not protocol.transport.closing:
            protocol.data_received(TINY[10:] + TINY * 100 + TINY[:10])
            most = max(most, app.state.service.held.bytes)
        return most / settings.max_held

    assert asyncio.run(steps()) < 1.1


def test_trailers_are_no_headers(url):
    """A proxy may check or remove a header. It does not look at the trailers after a body in chunks."""
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nx-request-id: header\r\nconnection: close\r\n\r\n")
    trailers = b"content-type: application/json\r\nx-request-deadline: 1\r\nhost: evil.example\r\nx-request-id: trailer"
    [(status, headers, body)] = parsed(ask(url, head + b"310\r\n" + DIGIT + b"\r\n0\r\n" + trailers + b"\r\n\r\n"))
    assert (status, headers["x-request-id"]) == (200, "header")
    assert body.startswith(b'{"model"')


def test_chunked_body_in_tiny_chunks_is_read(url):
    body = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in DIGIT) + b"0\r\n\r\n"
    assert [status for status, *_ in parsed(ask(url, CHUNKED + body + LAST))] == [200, 200]

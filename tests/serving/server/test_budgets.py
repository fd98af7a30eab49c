"""The memory and the time that clients may take: unfinished requests, unread responses, open connections."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serving.server.clients import DIGIT, HEAD, connect, get, metric, read_response
from tests.support import PIXELS, service, until

BODY = 1_000_000
LARGE = HEAD.replace(b"784", b"%d" % BODY)
CHUNKED = HEAD.replace(b"content-length: 784", b"transfer-encoding: chunked")


def answers(url):
    """Return the statuses of a small prediction and of a probe."""
    with connect(url) as connection, connection.makefile("rb") as stream:
        connection.sendall(HEAD + DIGIT)
        prediction = read_response(stream)[0]
        connection.sendall(b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        return prediction, read_response(stream)[0]


def resident(process):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) * 1024


def slow_reader(url):
    """Return a connection whose client asks for a large response and never reads."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    parts = httpx.URL(url)
    connection.connect((parts.host, parts.port))
    body = bytes(784 * 512)
    head = HEAD.replace(b"/predict", b"/predict?include=image").replace(b"784", b"%d" % len(body))
    connection.sendall(head + body)
    return connection


# Bytes of unfinished requests


@pytest.mark.parametrize("kind", ["declared", "chunked"])
def test_unfinished_bodies_are_bounded_in_sum(kind):
    """Of 30 unfinished bodies of 1 MB, 4 MB may be held. Small requests and probes get their responses."""
    with service("--max-held", 4_000_000) as (url, process), contextlib.ExitStack() as stack:
        assert answers(url) == (200, 200)
        before = resident(process)
        clients = [stack.enter_context(connect(url)) for _ in range(30)]
        for client in clients:
            with contextlib.suppress(OSError):
                client.sendall(LARGE + bytes(BODY - 1) if kind == "declared" else CHUNKED + b"F4240\r\n" + bytes(BODY))
        until(lambda: metric(url, 'mnist_closed_connections_total{reason="too_many_bytes"}') >= 25)
        assert answers(url) == (200, 200)
        assert resident(process) - before < 25_000_000
        statuses = []
        for client in clients:
            client.settimeout(0.01)
            with contextlib.suppress(TimeoutError), client.makefile("rb") as stream:
                status, headers, body = read_response(stream)
                assert (headers["retry-after"], headers["connection"]) == ("1", "close")
                assert b"memory" in body
                statuses.append(status)
        assert len(statuses) >= 25
        assert set(statuses) == {429}


def test_large_request_is_answered_when_unfinished_ones_take_all_memory():
    """The connection that has waited longest makes room."""
    with service("--max-held", 4_000_000) as (url, _), contextlib.ExitStack() as stack:
        for _ in range(5):
            with contextlib.suppress(OSError):
                stack.enter_context(connect(url)).sendall(LARGE + bytes(BODY - 1))
        until(lambda: httpx.post(f"{url}/predict", content=DIGIT * 1000, headers=PIXELS).status_code == 200)


def test_unfinished_requests_free_what_they_held():
    with service("--max-held", 4_000_000, "--request-timeout", 1) as (url, _), contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect(url)).sendall(LARGE + bytes(BODY - 100_000))
        until(lambda: metric(url, 'mnist_closed_connections_total{reason="request_timeout"}') == 4)
        # The bytes count until they are out of memory, which takes a moment.
        until(lambda: httpx.post(f"{url}/predict", content=DIGIT * 1000, headers=PIXELS).status_code == 200)
        for _ in range(3):
            assert httpx.post(f"{url}/predict", content=DIGIT * 1000, headers=PIXELS).status_code == 200


# Responses that are not read


def test_clients_that_do_not_read_take_no_place_of_predictions():
    with service("--max-concurrency", 2) as (url, _), contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(slow_reader(url))
            until(lambda: answers(url) == (200, 200))
        assert [answers(url) for _ in range(5)] == [(200, 200)] * 5


def test_client_that_does_not_read_is_disconnected():
    with service("--write-timeout", 1) as (url, _), slow_reader(url) as client:
        until(lambda: metric(url, 'mnist_closed_connections_total{reason="write_timeout"}') == 1)
        client.settimeout(30)
        with contextlib.suppress(ConnectionError):
            while client.recv(65536):
                pass


def test_client_that_reads_slowly_gets_its_response():
    with service("--write-timeout", 1) as (url, _), slow_reader(url) as client:
        received = 0
        deadline = time.monotonic() + 3
        while chunk := client.recv(65536):
            received += len(chunk)
            if time.monotonic() < deadline:
                time.sleep(0.05)
            elif received > 900_000:
                break
        # The responses have about a million bytes. Their exact length depends on the probabilities.
        assert received > 900_000
        assert metric(url, 'mnist_closed_connections_total{reason="write_timeout"}') == 0


def test_unread_responses_are_bounded_in_sum():
    with service("--max-held", 4_000_000) as (url, process), contextlib.ExitStack() as stack:
        before = resident(process)
        for _ in range(12):
            stack.enter_context(slow_reader(url))
        until(lambda: metric(url, 'mnist_closed_connections_total{reason="too_many_bytes"}') >= 3)
        until(lambda: answers(url) == (200, 200))
        assert resident(process) - before < 120_000_000


def test_pipelined_requests_wait_while_responses_are_unread():
    """Otherwise a client that never reads could make the service compute without end."""
    with service() as (url, _), slow_reader(url) as client:
        client.settimeout(1)
        with contextlib.suppress(TimeoutError):
            for _ in range(100_000):
                client.sendall((HEAD + DIGIT) * 10)
        count = 'mnist_http_requests_total{method="POST",route="/predict",status="200"}'
        until(lambda: f"{count} " in get(f"{url}/metrics").text)
        assert metric(url, count) < 10


# Connections


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_connection_beyond_the_limit_gets_503():
    with service("--max-connections", 5) as (url, _), contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connect(url)).sendall(HEAD)
        response = get(f"{url}/v2/health/live")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["status"] == 503


def test_longest_idle_connection_makes_room_for_a_new_one():
    with service("--max-connections", 5) as (url, _), contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connect(url))
        until(lambda: get(f"{url}/v2/health/live").status_code == 200)


def responds(url):
    """Return whether the service responds, and does not end the connection at once."""
    with contextlib.suppress(OSError, IndexError):
        return answers(url) == (200, 200)
    return False


def limited(soft, hard):
    """Return what sets the limits of open files in a new process."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_limit_of_open_files_is_raised_to_what_the_connections_need():
    with service(preexec_fn=limited(256, 4096)) as (_, process):
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (1384, 4096)
    with service("--max-connections", 100, preexec_fn=limited(1024, 4096)) as (_, process):
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (1024, 4096)


@pytest.mark.parametrize("workers", [1, 2])
def test_fewer_connections_are_accepted_if_the_limit_of_open_files_is_too_low(workers):
    with service("--workers", workers, preexec_fn=limited(400, 400)) as (url, process):
        with contextlib.ExitStack() as stack:
            for _ in range(600):
                stack.enter_context(connect(url))
            until(lambda: all(responds(url) for _ in range(8)))
            assert metric(url, 'mnist_closed_connections_total{reason="too_many_connections"}') > 0
        process.terminate()
        _, log = process.communicate(timeout=30)
    assert "--max-connections 1000 needs 1384 open files for each worker, and this process may have 400, so" in log
    assert "accepts only 16 connections. Raise the hard limit of open files (ulimit -n" in log
    assert "background task" not in log


def test_idle_connections_make_room_if_there_is_no_descriptor_left():
    with service("--request-timeout", 600) as (url, process), contextlib.ExitStack() as stack:
        assert answers(url) == (200, 200)
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 5, hard))
        for _ in range(20):
            stack.enter_context(connect(url))
        assert answers(url) == (200, 200)


def test_connections_that_are_reset_leave_nothing_behind():
    with service() as (url, process):
        assert answers(url) == (200, 200)
        before = resident(process)
        for _ in range(10):
            connections = [connect(url) for _ in range(100)]
            for connection in connections:
                connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
            for connection in connections:
                connection.recv(1)
                reset(connection)
        until(lambda: metric(url, "mnist_http_requests_in_flight") == 1)
        assert resident(process) - before < 15_000_000


# The accept queue


def test_predictions_on_many_new_connections_are_limited_and_probes_answered():
    with service("--max-concurrency", 4) as (url, process):
        body = bytes(784 * 20)
        head = HEAD.replace(b"784", b"%d" % len(body))
        with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
            process.send_signal(19)  # SIGSTOP: all connections wait in the kernel.
            clients = [stack.enter_context(connect(url)) for _ in range(300)]
            for client in clients:
                client.sendall(head + body)
            probe = pool.submit(get, f"{url}/v2/health/ready")
            process.send_signal(18)
            statuses = []
            for client in clients:
                with client.makefile("rb") as stream:
                    statuses.append(read_response(stream)[0])
            assert probe.result().status_code == 200
        assert set(statuses) == {200, 429}
        assert statuses.count(429) > 100


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_in_the_accept_queue_are_answered_after_sigterm(workers):
    with service("--workers", workers, "--drain", "0") as (url, process):
        until(lambda: answers(url) == (200, 200))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(url)) for _ in range(300)]
            for client in clients:
                client.sendall(HEAD + DIGIT)
            process.send_signal(15)
            statuses = []
            for client in clients:
                with client.makefile("rb") as stream:
                    statuses.append(read_response(stream)[0])
        assert set(statuses) <= {200, 429}
        assert process.wait(timeout=30) == 0


def test_client_that_resets_its_connection_with_pipelined_requests_causes_no_error():
    with service() as (url, process):
        for _ in range(50):
            connection = connect(url)
            connection.sendall((HEAD + DIGIT) * 3)
            reset(connection)
        until(lambda: metric(url, "mnist_http_requests_in_flight") == 1)
        process.terminate()
        _, log = process.communicate(timeout=30)
    assert '"level":"error"' not in log, log

"""Overload, limits and pipelining on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serving.api.app import create_app
from serving.inference.admission import Admission
from serving.server.run import configuration
from serving.server.server import Server
from serving.settings import Settings
from tests.serving.server.clients import DIGIT, HEAD, connect, get, predict
from tests.support import PIXELS, service, until

# Overload


def test_predictions_beyond_the_limit_get_429_and_probes_get_200(digits):
    with service("--max-concurrency", 2) as (url, _):
        batch = digits[:1024].tobytes()

        def predict_batch(_):
            with httpx.Client(base_url=url, timeout=60) as client:
                return predict(client, batch)

        with ThreadPoolExecutor(12) as pool:
            running = [pool.submit(predict_batch, i) for i in range(24)]
            probes = [get(f"{url}/v2/health/ready").status_code for _ in range(10)]
            responses = [future.result() for future in running]
        assert set(probes) == {200}
        statuses = {response.status_code for response in responses}
        assert statuses == {200, 429}
        for response in responses:
            if response.status_code == 429:
                assert response.headers["retry-after"] == "1"
                assert response.json()["status"] == 429
        with httpx.Client(base_url=url) as client:
            assert predict(client).status_code == 200
            assert 'mnist_rejected_requests_total{status="429"}' in client.get("/metrics").text


def test_clients_that_disconnect_free_their_place():
    with service("--max-concurrency", 1) as (url, _), httpx.Client(base_url=url) as client:
        for _ in range(20):
            with connect(url) as connection:
                connection.sendall(HEAD + DIGIT)
        until(lambda: predict(client).status_code == 200)


def test_request_past_its_deadline_gets_504():
    with service() as (url, _), httpx.Client(base_url=url) as client:
        assert predict(client, **{"x-request-deadline": str(time.time() - 1)}).status_code == 504
        assert predict(client, **{"x-request-deadline": str(time.time() + 60)}).status_code == 200
        assert client.post("/predict?timeout=1", content=DIGIT, headers=PIXELS).status_code == 504
        assert client.post("/predict?timeout=60000000", content=DIGIT, headers=PIXELS).status_code == 200
        tensor = {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": [0] * 784}
        for timeout, status in ((1, 504), (60_000_000, 200), (0, 200), ("soon", 400), (-1, 400)):
            request = {"inputs": [tensor], "parameters": {"timeout": timeout}}
            assert client.post("/v2/models/mnist/infer", json=request).status_code == status
        for bad in ("soon", "-1", "nan", "inf"):
            assert predict(client, **{"x-request-deadline": bad}).status_code == 400


# Limits


@pytest.fixture(scope="module")
def impatient():
    """The address of a service that waits a second for a request."""
    with service("--request-timeout", 1) as (url, _):
        yield url


@pytest.fixture(scope="module")
def strict():
    """The address of a service that accepts only short heads and bodies."""
    with service("--max-body", 1000, "--max-head", 1000) as (url, _):
        yield url


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /pre"],
    ids=["nothing", "half a head"],
)
def test_client_that_does_not_finish_its_request_is_disconnected(impatient, sent):
    with connect(impatient) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


@pytest.mark.parametrize("body", [b"abc", bytes(100_000)], ids=["short", "long"])
def test_client_that_does_not_finish_its_body_gets_408(impatient, body):
    """Without this response, a load balancer would tell the client 502."""
    with connect(impatient) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n" + body)
        response = b"".join(iter(lambda: connection.recv(65536), b""))
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in response
    assert b"not complete after 1 s" in response


def test_client_that_sends_headers_forever_is_disconnected(impatient):
    with connect(impatient) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\n")
        with pytest.raises(OSError, match=r"pipe|reset"):  # noqa: PT012
            for _ in range(1000):
                connection.sendall(b"x: y\r\n")
                threading.Event().wait(0.02)
            pytest.fail("still open after 20 s")


def test_line_breaks_do_not_keep_an_idle_connection_open(impatient):
    with connect(impatient) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        until(lambda: connection.recv(65536).startswith(b"HTTP/1.1 200"))
        connection.sendall(b"\r\n")
        connection.settimeout(15)
        while connection.recv(65536):
            pass


@pytest.mark.parametrize(
    "sent",
    [b"x: " + b"y" * 100, b"x: y\r\n" * 15],
    ids=["one header without end", "headers without end"],
)
def test_endless_head_is_rejected(strict, sent):
    with connect(strict) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\n")
        connection.sendall(sent)
        with pytest.raises(OSError, match=r"pipe|reset"):  # noqa: PT012
            for _ in range(10_000):
                connection.sendall(sent[3:] * 100)
            pytest.fail("the service accepted 100 MB of headers")


def test_head_over_the_limit_gets_431(strict):
    with connect(strict) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * 1100)
        assert connection.recv(65536).startswith(b"HTTP/1.1 431")
        assert connection.recv(65536) == b""


def test_endless_trailer_is_cut_off(strict):
    with connect(strict) as connection:
        head = HEAD.replace(b"content-length: 784", b"transfer-encoding: chunked")
        connection.sendall(head + b"1\r\nx\r\n0\r\ntrailer: ")
        with pytest.raises(OSError, match=r"pipe|reset"):  # noqa: PT012
            for _ in range(10_000):
                connection.sendall(b"y" * 10_000)
            pytest.fail("the service accepted 100 MB of trailer")


def test_idle_connection_is_closed():
    with service("--keep-alive", 1) as (url, _), connect(url) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        assert received.startswith(b"HTTP/1.1 200")


def test_connections_over_the_limit_are_closed():
    with service("--max-connections", 5) as (url, _):
        held = [connect(url) for _ in range(5)]
        until(lambda: is_full(url))
        for connection in held:
            connection.close()
        until(lambda: not is_full(url))


def test_client_that_expects_100_continue_gets_429_before_it_sends_the_body():
    with full_service() as url, connect(url) as connection:
        connection.sendall(HEAD.replace(b"host: localhost", b"host: localhost\r\nexpect: 100-continue"))
        with connection.makefile("rb") as stream:
            received = stream.read()
        assert received.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nconnection: close\r\n" in received
        assert received.count(b"HTTP/1.1") == 1


def test_connection_stays_usable_after_a_rejected_request():
    with full_service() as url, httpx.Client(base_url=url) as client:
        assert predict(client).status_code == 429
        # A response to HEAD must have no body: the client would read it as the next response.
        assert client.head("/predict").status_code == 405
        assert client.get("/v2/health/ready").status_code == 200
        assert predict(client).status_code == 429


@contextlib.contextmanager
def full_service():
    app = create_app(Settings())
    app.state.service.admission = Admission(0)
    with served(app) as url:
        yield url


@contextlib.contextmanager
def served(app):
    """Serve ``app`` with the service's own server in a thread, and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(configuration(Settings(), app))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def is_full(url):
    try:
        return get(f"{url}/v2/health/live").status_code != 200
    except httpx.TransportError:
        return True


def test_each_pipelined_request_is_counted_once():
    """Requests beyond the limit are rejected. After all responses, no prediction is counted any more."""
    two = HEAD.replace(b"784", b"%d" % (784 * 60)) + bytes(784 * 60)
    with service("--max-concurrency", 2) as (url, _):
        connections = [connect(url) for _ in range(6)]
        for connection in connections:
            connection.sendall(HEAD + DIGIT + two)
        for connection in connections:
            statuses = []
            with connection, connection.makefile("rb") as stream:
                for _ in range(2):
                    statuses.append(int(stream.readline().split()[1]))
                    length = 0
                    while (line := stream.readline()) != b"\r\n":
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    stream.read(length)
            assert set(statuses) <= {200, 429}
        with httpx.Client(base_url=url) as client:
            for _ in range(3):
                assert predict(client).status_code == 200

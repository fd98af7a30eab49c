"""Requests that never reach the application: what the client gets, and what metrics and log say."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import httpx
import pytest

from serving.api.app import create_app
from serving.inference.admission import Admission
from serving.server.limits import PAUSE_SECONDS
from serving.settings import Settings
from tests.serving.server.clients import DIGIT, HEAD, ask, connect, metric, parsed, predict
from tests.serving.server.test_protocol import served
from tests.support import PIXELS, missing, service, until

TOO_LARGE = 9_000_000
SECURITY = {"x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy"}


@pytest.fixture(scope="module")
def url():
    with service() as (url, _):
        yield url


# The response

MALFORMED = b"BREW /predict HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (MALFORMED, 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET /predict HTTP/1.1\r\nhost x\r\n\r\n", 400),
        (b"GET predict HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /metrics#x HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /metrics?x#y HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nhost: localhost\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),  # A client that takes HTTP/2 for granted.
        (b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n", 505),
        (b"POST /predict HTTP/0.9\r\nhost: localhost\r\n\r\n", 505),
        (HEAD.replace(b"content-length: 784", b"transfer-encoding: gzip, chunked"), 501),
        (HEAD.replace(b"content-length: 784", b"Transfer-Encoding: deflate, chunked"), 501),
        (HEAD.replace(b"content-length: 784", b"transfer-encoding: gzip\r\ntransfer-encoding: chunked"), 501),
        (b"GET /predict HTTP/1.1\r\n\r\n", 400),
        (b"GET http://localhost/predict HTTP/1.1\r\n\r\n", 400),
        (b"GET /predict HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /predict HTTP/1.0\r\nhost: localhost\r\nhost: localhost\r\n\r\n", 400),
        (HEAD.replace(b"784", b"784\r\ntransfer-encoding: chunked"), 400),
        (HEAD.replace(b"784", b"x"), 400),
        (HEAD.replace(b"content-length: 784", b"transfer-encoding: chunked") + b"x\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 40_000, 431),
    ],
)
def test_rejection_is_a_problem_with_id_date_and_security_headers(url, request_, status):
    [(received, headers, body)] = parsed(ask(url, request_))
    problem = json.loads(body)
    assert received == problem["status"] == status
    assert problem["detail"]
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["date"].endswith("GMT")
    assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"])
    assert headers.keys() >= SECURITY


def test_rejection_keeps_the_id_of_the_request(url):
    [(_, headers, _)] = parsed(ask(url, b"GET / HTTP/1.1\r\nx-request-id: mine\r\nx: " + b"y" * 40_000))
    assert headers["x-request-id"] == "mine"


def test_rejection_below_v2_has_the_form_of_the_inference_protocol(url):
    [(status, headers, body)] = parsed(ask(url, b"GET /v2/models/mnist HTTP/1.1\r\nx: " + b"y" * 40_000))
    assert (status, headers["content-type"]) == (431, "application/json")
    assert json.loads(body).keys() == {"error"}


# The response arrives although the client still sends


def test_urllib_gets_413(url):
    request = urllib.request.Request(f"{url}/predict", bytes(TOO_LARGE), PIXELS)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=60)
    with error.value as response:
        assert response.code == 413
        assert b"8000000" in response.read()


@pytest.mark.parametrize("chunked", [False, True])
def test_http_client_gets_413(url, chunked):
    connection = http.client.HTTPConnection(httpx.URL(url).netloc.decode(), timeout=60)
    body = iter([bytes(100_000)] * (TOO_LARGE // 100_000)) if chunked else bytes(TOO_LARGE)
    connection.request("POST", "/predict", body, PIXELS, encode_chunked=chunked)
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["status"] == 413
    connection.close()


@pytest.mark.parametrize("header", ["x: y", "transfer-encoding: chunked", "expect:", "connection: close"])
def test_curl_gets_413(url, header, tmp_path):
    if not shutil.which("curl"):
        missing("curl")
    (tmp_path / "body").write_bytes(bytes(TOO_LARGE))
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "content-type: application/octet-stream"]
    line = [*command, "-H", header, "--data-binary", f"@{tmp_path}/body", f"{url}/predict"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("413", "")


def test_rejected_prediction_that_ends_the_connection_arrives():
    app = create_app(Settings())
    app.state.service.admission = Admission(0)
    with served(app) as url:
        request = urllib.request.Request(f"{url}/predict", bytes(5_000_000), PIXELS)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=60)
        with error.value as response:
            assert response.code == 429


def test_body_without_end_is_not_read_for_ever(url):
    """After the response, a bounded number of bytes is dropped."""
    with httpx.Client(base_url=url, timeout=60) as client:

        def endless():
            while True:
                yield bytes(1_000_000)

        with contextlib.suppress(httpx.TransportError):
            assert client.post("/predict", content=endless(), headers=PIXELS).status_code == 413


# Web pages of other origins


def test_rejected_prediction_carries_cors_headers_like_the_application():
    app = create_app(Settings(cors_origins="https://a.example"))
    origin = {"origin": "https://a.example"}
    with served(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        accepted = predict(client, **origin)
        app.state.service.admission = Admission(0)
        # The body of the second one arrives together with its head, so the application gets it.
        for rejected in (predict(client, **origin), parsed(ask_with_origin(url))[0]):
            status, headers = (
                (rejected.status_code, rejected.headers) if isinstance(rejected, httpx.Response) else rejected[:2]
            )
            assert status == 429
            for name, value in accepted.headers.items():
                if name.startswith("access-control") or name == "vary":
                    assert headers[name] == value
        assert "access-control-allow-origin" not in predict(client, origin="https://b.example").headers
        preflight = {**origin, "access-control-request-method": "POST"}
        for _ in range(3):
            response = client.options("/predict", headers=preflight)
            assert response.status_code == 204
            assert response.headers["access-control-allow-origin"] == "https://a.example"


def ask_with_origin(url):
    return ask(
        url,
        HEAD.replace(b"host: localhost", b"host: localhost\r\nconnection: close\r\norigin: https://a.example") + DIGIT,
    )


# Metrics and log


def test_rejections_are_counted_and_logged_with_their_reason():
    with service() as (url, process):
        for _ in range(50):
            ask_at_once(url, MALFORMED)
        ask_at_once(url, b"GET / HTTP/1.1\r\nx: " + b"y" * 40_000)
        until(lambda: metric(url, 'mnist_closed_connections_total{reason="malformed"}') == 50)
        assert metric(url, 'mnist_closed_connections_total{reason="head_too_large"}') == 1
        assert metric(url, 'mnist_closed_connections_total{reason="write_timeout"}') == 0
        process.terminate()
        lines = [json.loads(line) for line in process.stderr if "closed connections" in line]
    assert sum(line["count"] for line in lines if line["reason"] == "malformed") == 50
    assert {line["reason"] for line in lines} == {"malformed", "head_too_large"}
    # Many rejections in a short time share a line.
    assert len(lines) < 50


def ask_at_once(url, request):
    with connect(url) as connection:
        connection.sendall(request)
        while connection.recv(65536):
            pass


def test_rejected_predictions_are_counted_but_not_timed():
    app = create_app(Settings())
    with served(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert predict(client).status_code == 200
        before = metric(url, 'mnist_http_request_seconds_count{route="/predict"}')
        app.state.service.admission = Admission(0)
        for _ in range(20):
            assert predict(client).status_code == 429
            ask_with_origin(url)
        assert metric(url, 'mnist_http_request_seconds_count{route="/predict"}') == before == 1
        count = 'mnist_http_requests_total{method="POST",route="/predict",status="429"}'
        assert metric(url, count) == 40


def test_client_that_only_sends_rejected_requests_does_not_keep_the_event_loop_busy(monkeypatch):
    """After too many rejections, connections pause. Only about four requests are read between two pauses."""
    monkeypatch.setattr("serving.server.connections.FREE_REJECTIONS", 0)
    app = create_app(Settings())
    app.state.service.admission = Admission(0)
    with served(app) as url, connect(url) as connection:
        connection.sendall((HEAD + DIGIT) * 30)
        connection.settimeout(1)
        received, started = b"", time.monotonic()
        while received.count(b"HTTP/1.1 429 ") < 20:
            received += connection.recv(65536)
        assert time.monotonic() - started >= 3 * PAUSE_SECONDS * 0.9
        with httpx.Client(base_url=url) as client:
            assert client.get("/v2/health/live").status_code == 200


def test_a_rejection_does_not_delay_the_next_request_on_its_connection(monkeypatch):
    """A load balancer sends requests of several clients over one connection."""
    monkeypatch.setattr("serving.server.limits.PAUSE_SECONDS", 1000)
    app = create_app(Settings())
    with served(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        open_to_all, app.state.service.admission = app.state.service.admission, Admission(0)
        assert predict(client).status_code == 429
        app.state.service.admission = open_to_all
        assert predict(client).status_code == 200

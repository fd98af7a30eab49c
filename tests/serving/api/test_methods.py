"""HEAD, OPTIONS, and methods and paths that do not exist; content types and conditional requests."""

from __future__ import annotations

import socket

import httpx
import pytest

from serving.api import page
from tests.support import service

ETAG = b'"0123456789abcdef"'


@pytest.fixture(scope="module")
def server():
    with service() as (url, _), httpx.Client(base_url=url) as client:
        yield client


GET_PATHS = [
    *("/", "/docs", "/style.css", "/icon.png", "/certificate", "/schema", "/schema/openapi.json"),
    "/models/mnist/card",
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/mnist", "/v2/models/mnist/versions/1"),
    *("/v2/models/mnist/ready", "/v2/models/mnist/config", "/v2/models/mnist/versions/1/config"),
    *("/nowhere", "/v2/nowhere", "/v2/models/x", "/certificate?model=x"),
]


@pytest.mark.parametrize("path", GET_PATHS)
def test_head_has_the_headers_of_get_and_no_body(server, path):
    # On a connection of its own: a body after the headers would be taken for the next response.
    head, body = server.head(path), server.get(path)
    changing = {"x-request-id", "date", "server-timing"}
    assert head.status_code == body.status_code
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in body.headers.items() if k not in changing
    }
    assert int(head.headers["content-length"]) == len(body.content) > 0


@pytest.mark.parametrize("path", ["/metrics", "/v2/models/stats", "/v2/models/mnist/stats"])
def test_head_of_a_changing_resource_has_a_length_and_no_body(server, path):
    assert int(server.head(path).headers["content-length"]) > 100


def test_nothing_follows_the_headers_of_head(server):
    with socket.create_connection((server.base_url.host, server.base_url.port), timeout=60) as connection:
        connection.sendall(b"HEAD /v2 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        with connection.makefile("rb") as stream:
            received = stream.read()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\n")
    assert received.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/v2/nowhere",
        "/v2/models",
        "/schema/x",
        "/docs/x",
        "/style.css/x",
        "/v2/models/mnist/x",
        "/index.html2",
    ],
)
def test_unknown_path_is_not_found_whatever_the_method(server, path):
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        assert server.request(method, path).status_code == 404, method


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/predict", "OPTIONS, POST"),
        ("/v2/models/mnist/infer", "OPTIONS, POST"),
        ("/v2/models/unknown/infer", "OPTIONS, POST"),
        ("/", "GET, HEAD, OPTIONS"),
        ("/style.css", "GET, HEAD, OPTIONS"),
        ("/schema", "GET, HEAD, OPTIONS"),
        ("/v2/health/live", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
    ],
)
def test_wrong_method_is_not_allowed_and_the_right_ones_are_named(server, path, allow):
    for method in ("GET", "HEAD", "POST", "DELETE", "PATCH"):
        if method not in allow:
            response = server.request(method, path)
            assert (response.status_code, response.headers["allow"]) == (405, allow)
    options = server.options(path)
    assert (options.status_code, options.headers["allow"]) == (204, allow)


@pytest.mark.parametrize("path", [*GET_PATHS, "/metrics", "/page.js", "/docs.js", "/schema/x", "/v2/models/stats"])
def test_content_type_names_a_charset_at_most_once(server, path):
    kind = server.get(path).headers["content-type"]
    assert kind.count("charset") <= 1
    assert kind.count(",") == 0


KNOWN = [
    [ETAG],
    [b"W/" + ETAG],
    [b"*"],
    [b" * "],
    [b'"other", ' + ETAG],
    [b'"other",W/' + ETAG + b', "third"'],
    [b'"a,b" , ' + ETAG],
    [b'"other"', ETAG],
    [ETAG, b'"other"'],
]
UNKNOWN = [
    [],
    [b""],
    [b'"other"'],
    [ETAG[1:-1]],
    [ETAG[:-1]],
    [b"w/*"],
    [b'"*"'],
    [b'W/"other"', b'""'],
]


@pytest.mark.parametrize(("values", "known"), [*((v, True) for v in KNOWN), *((v, False) for v in UNKNOWN)])
def test_if_none_match_in_every_form(values, known):
    assert page.is_known(ETAG, [(b"host", b"x"), *((b"if-none-match", value) for value in values)]) == known


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_unchanged_file_has_no_length_and_no_body(server, method):
    etag = server.get("/style.css").headers["etag"]
    head = f"{method} /style.css HTTP/1.1\r\nhost: localhost\r\nif-none-match: W/{etag}\r\nconnection: close\r\n\r\n"
    with socket.create_connection((server.base_url.host, server.base_url.port), timeout=60) as connection:
        connection.sendall(head.encode())
        with connection.makefile("rb") as stream:
            received = stream.read().lower()
    assert received.startswith(b"http/1.1 304 ")
    assert f"etag: {etag}".encode() in received
    assert b"content-length" not in received
    assert b"transfer-encoding" not in received
    assert received.endswith(b"\r\n\r\n")

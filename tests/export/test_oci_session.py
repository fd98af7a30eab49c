"""What a broken or hostile registry can make of the requests of push and pull."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time

import pytest

from export import oci_image
from export.oci import ImageReference, RegistryError, Remote
from tests.support import missing

with contextlib.suppress(ImportError):
    import requests

    from export import oci_session
    from export.oci_session import Adapter, LimitError, host_of, is_same_domain


@pytest.fixture(autouse=True)
def _needs_oras():
    if "Adapter" not in globals():
        missing("the package oras")


class Broken(http.server.BaseHTTPRequestHandler):
    """Responds to ``/v2/``, and otherwise with ``status`` and ``headers``."""

    protocol_version = "HTTP/1.1"
    status, headers_sent, content, calls = 200, {}, b"", 0

    def do_GET(self):
        is_base = self.path.startswith("/v2/") and "mnist" not in self.path
        type(self).calls += not is_base
        self.send_response(200 if is_base else self.status)
        for name, value in {} if is_base else self.headers_sent.items():
            self.send_header(name, value.replace("HOST", self.headers["Host"]))
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def do_POST(self):
        self.do_GET()

    def do_HEAD(self):
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def broken(monkeypatch):
    """A function that makes a registry respond in a way, and returns a client of it."""
    monkeypatch.setattr(Broken, "calls", 0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()

        def respond(status, headers=None, content=b""):
            for name, value in {"status": status, "headers_sent": headers or {}, "content": content}.items():
                monkeypatch.setattr(Broken, name, value)
            return Remote(ImageReference.parse(f"oci://127.0.0.1:{server.server_address[1]}/mnist:1"))

        yield respond
        server.shutdown()


class Echo(http.server.BaseHTTPRequestHandler):
    """Responds with the credentials of the request, or with as many bytes as the path says."""

    def do_GET(self):
        number = self.path.strip("/")
        content = bytes(int(number)) if number else str(self.headers["Authorization"]).encode()
        self.send_response(400 if number else 200)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def port():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def session(port):
    with requests.Session() as session:
        session.mount("http://", Adapter(f"127.0.0.1:{port}", plain=True))
        yield session


def test_other_hosts_get_neither_the_password_nor_a_token(session, port):
    basic, token = {"Authorization": "Basic bWU6"}, {"Authorization": "Bearer token"}
    assert session.get(f"http://127.0.0.1:{port}/", headers=basic).text == "Basic bWU6"
    assert session.get(f"http://127.0.0.1:{port}/", headers=token).text == "Bearer token"
    assert session.get(f"http://localhost:{port}/", headers=token).text == "None"
    with pytest.raises(LimitError, match=rf"send your password .* was not sent.* docker logout 127.0.0.1:{port}"):
        session.get(f"http://localhost:{port}/", headers=basic)
    session.mount("http://", Adapter("127.0.0.1", plain=False))
    with pytest.raises(LimitError, match="not encrypted"):
        session.get(f"http://127.0.0.1:{port}/", headers=basic)


def test_error_that_is_too_long_or_too_slow_is_not_read(session, port, monkeypatch):
    assert len(session.get(f"http://127.0.0.1:{port}/1000000").text) == 1_000_000
    with pytest.raises(LimitError, match="more than 1000000 bytes"):
        session.get(f"http://127.0.0.1:{port}/9000000")
    monkeypatch.setattr(oci_session, "RESPONSE_SECONDS", -1)
    with pytest.raises(LimitError, match="too slowly"):
        session.get(f"http://127.0.0.1:{port}/5")


@pytest.mark.parametrize(
    ("status", "headers", "calls"),
    [
        (500, {}, 2),
        (503, {}, 2),
        (302, {"Location": "http://127.0.0.1:1/x"}, 1),
        (302, {"Location": "http://[::bad"}, 1),
        (401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/token",service="x"'}, 1),
        (401, {"WWW-Authenticate": 'Bearer realm="http://HOST/v2/",service="x"'}, 1),
    ],
    ids=["500", "503", "dead host", "no address", "dead token server", "no token"],
)
def test_error_of_a_registry_comes_at_once(broken, monkeypatch, status, headers, calls):
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    with pytest.raises(RegistryError):
        broken(status, headers).manifest("1")
    assert Broken.calls == calls
    assert naps == [1] * (calls - 1)


def test_error_for_a_dead_registry_is_short():
    with pytest.raises(RegistryError, match=r"^127\.0\.0\.1:1: cannot be used: Connection refused$"):
        Remote(ImageReference.parse("oci://127.0.0.1:1/digits/mnist:1")).manifest("1")


def test_upload_to_no_address_ends_at_once(broken, monkeypatch):
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    image = oci_image.referrer(oci_image.Blob("", b""), "kind", "name", b"content")
    with pytest.raises(RegistryError, match="cannot be used"):
        broken(202, {"Location": "relative"}).push(image, "1")
    assert not naps


def test_error_has_no_control_characters_of_a_registry(broken, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hostile = "\x1b]0;owned\x07"
    with pytest.raises(RegistryError, match=r"status 500: \\x1b\]0;owned\\x07") as raised:
        broken(500, content=hostile.encode() + b"\xff" * 100_000).manifest("1")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000
    with pytest.raises(RegistryError, match="cannot be used") as raised:
        broken(302, {"Location": f"http://{hostile}:x"}).manifest("1")
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "changed", [{"digest": "\x1b]0;owned\x07"}, {"digest": ["\x1b" * 5000]}, {"size": "a" * 3_000_000}, {"size": -1}]
)
def test_odd_layer_is_a_short_line(broken, changed):
    with pytest.raises(RegistryError, match="the manifest names a layer") as raised:
        broken(200).blob({"digest": "sha256:" + "0" * 64, "size": 1} | changed)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("wanted", ["", "garbage", "Bearer " + 'a="' * 5000])
def test_login_without_a_token_server_is_one_line(broken, wanted):
    with pytest.raises(RegistryError, match="names no token server") as raised:
        broken(401, {"WWW-Authenticate": wanted}).manifest("1")
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("auth.docker.io", "registry-1.docker.io", True),
        ("gitlab.com", "registry.gitlab.com", True),
        ("GHCR.io", "ghcr.io", True),
        ("ghcr.io.example.org", "ghcr.io", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.1.0.1", "10.0.0.1", False),
        ("::1", "::1", True),
        ("io", "ghcr.io", False),
        ("registry", "other", False),
    ],
)
def test_servers_of_the_same_domain_belong_together(first, second, expected):
    assert is_same_domain(first, second) is expected


@pytest.mark.parametrize(
    ("registry", "host"),
    [
        ("registry.example.org", "registry.example.org"),
        ("localhost:5000", "localhost"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
    ],
)
def test_host_of_a_registry(registry, host):
    assert host_of(registry) == host

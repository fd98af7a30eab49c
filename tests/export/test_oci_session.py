"""What a hostile registry can make of the requests of push and pull."""

from __future__ import annotations

import contextlib
import http.server
import threading

import pytest

from tests.support import missing

with contextlib.suppress(ImportError):
    import requests

    from export import oci_session
    from export.oci_session import Adapter, LimitError, host_of, is_same_domain


@pytest.fixture(autouse=True)
def _needs_oras():
    if "Adapter" not in globals():
        missing("the package oras")


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

"""Each resource has one path, and a service responds only to its own host names."""

from __future__ import annotations

import http.client
import socket

import httpx
import pytest

from serving.api.targets import MAX_PATH, is_canonical
from serving.errors import SettingsError
from serving.hosts import is_loopback
from serving.settings import Settings
from tests.support import PIXELS, application, service

OTHER_SPELLINGS = [
    *("/metrics/", "//metrics", "/./metrics", "/../metrics", "/x/../metrics", "/metrics/.", "/metrics//", "///"),
    *("/%6detrics", "/%6Detrics", "/metric%73", "/%2fmetrics", "/%2Fmetrics", "/%2e/metrics", "/metrics%2f", "/%00"),
    *(
        "/metrics%00",
        "/metrics%20",
        "/metrics%0a",
        "/metrics%3f",
        "/%256detrics",
        "/metrics\\",
        "/\\metrics",
        "/metrics%",
    ),
    *("/predict/", "/v2/", "/v2//health/live", "/schema/", "//", "/%e2%80%ae", "/metrics;/", "/|metrics", "/metrics^"),
    *("/v2//repository/models/mnist/unload", "/v2/repository/models/%00/unload", "/v2/repository/models/x%2fy/unload"),
    *("/v2/models/mnis%74/infer", "/v2/models/mnist/infer/", "/v2/models//infer", "/v2/models/../../metrics"),
]

CANONICAL = [
    *(
        "/",
        "/metrics",
        "/v2/models/mnist/versions/1/infer",
        "/style.css",
        "/v2/models/a.b-c_d~e",
        "/...",
        "/.x",
        "/a..b",
    ),
    "/" + "x" * (MAX_PATH - 1),
]


@pytest.mark.parametrize("path", CANONICAL)
def test_canonical_path_is_accepted(path):
    assert is_canonical(path.encode())


@pytest.mark.parametrize(
    "path", [*OTHER_SPELLINGS, "", "*", "metrics", "/ü", "/a b", "/a\nb", "/\x7f", "/" + "x" * MAX_PATH]
)
def test_other_spelling_is_not_canonical(path):
    assert not is_canonical(path.encode())


@pytest.fixture(scope="module")
def server():
    with service("--admin-keys", "key") as (url, _):
        yield url


def status_of(url, method, path, *headers, version="1.1"):
    """Send a request exactly as given, and return the status and the body of the response."""
    address = httpx.URL(url)
    head = [f"{method} {path} HTTP/{version}", *headers, "connection: close", "", ""]
    with socket.create_connection((address.host, address.port), timeout=60) as connection:
        connection.sendall("\r\n".join(head).encode("latin-1"))
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        return response.status, response.read()


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_other_spelling_of_a_path_is_not_found(server, method):
    for path in OTHER_SPELLINGS:
        if "\\" not in path and "|" not in path and "^" not in path:
            status, body = status_of(server, method, path, "host: localhost", "x-api-key: key", "content-length: 0")
            assert status == 404, path
            assert method == "HEAD" or b"nothing" in body
    assert httpx.get(f"{server}/v2/health/ready").status_code == 200


LOOPBACK_HOSTS = [
    *("localhost", "localhost:1", "LocalHost:8000", "digits.localhost", "a.b.localhost:9", "localhost."),
    *("127.0.0.1", "127.0.0.1:65535", "127.9.8.7", "[::1]", "[::1]:8000"),
]
FOREIGN_HOSTS = [
    *(
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evillocalhost",
        "10.0.0.1",
    ),
    *(
        "localhost@evil.example",
        "evil.example#localhost",
        "localhost:80:80",
        "localhost:port",
        "0.0.0.0",
        "[::2]",
        "::1",
    ),
    *("xn--lcalhost-d4a", "127.0.0.1,evil.example", "localhost, evil.example", "", ".localhost.evil"),
]


@pytest.mark.parametrize("host", LOOPBACK_HOSTS)
def test_loopback_service_accepts_names_of_loopback(server, host):
    assert status_of(server, "GET", "/v2", f"host: {host}")[0] == 200


@pytest.mark.parametrize("path", ["/v2", "/", "/predict", "/metrics", "/v2/models/mnist/infer", "/nowhere"])
def test_loopback_service_rejects_other_host_names(server, path):
    for host in FOREIGN_HOSTS:
        status, body = status_of(server, "GET", path, f"host: {host}")
        # Litestar and the parser reject some of them earlier.
        assert status in (400, 421), host
        assert status == 400 or b"--allowed-hosts" in body


def test_every_host_header_is_checked(server):
    for hosts in (["localhost", "evil.example"], ["evil.example", "localhost"]):
        assert status_of(server, "GET", "/v2", *(f"host: {host}" for host in hosts))[0] in (400, 421)


def test_request_of_http_1_0_needs_no_host(server):
    assert status_of(server, "GET", "/v2", version="1.0")[0] == 200


def get(client, host):
    return client.get("/v2", headers={"host": host}).status_code


def test_allowed_hosts_are_a_setting():
    with application(allowed_hosts="digits.example.org, *.intern , ::2,[::3]", host="0.0.0.0") as client:
        for host in ("digits.example.org", "DIGITS.example.org:80", "a.intern", "a.b.intern", "[::2]:1", "[::3]"):
            assert get(client, host) == 200, host
        for host in (
            "example.org",
            "x.digits.example.org",
            "intern",
            "digitsXexample.org",
            "[::4]",
            "digits.example.org.evil",
        ):
            assert get(client, host) == 421, host
        response = client.post("/predict", content=bytes(784), headers=PIXELS | {"host": "example.org"})
        assert response.headers["content-type"] == "application/problem+json"
        assert "example.org" in response.json()["detail"]
        assert "x-request-id" in response.headers


@pytest.mark.parametrize(
    "settings", [{"allowed_hosts": "*"}, {"host": "0.0.0.0"}, {"host": "::"}, {"host": "10.1.2.3"}]
)
def test_every_host_is_allowed(settings):
    with application(**settings) as client:
        assert get(client, "anything.example") == 200


@pytest.mark.parametrize("hosts", ["http://a", "a:80", "a/b", " , ", ",", "a b", "*a", "a.*"])
def test_wrong_allowed_hosts_are_reported(hosts):
    with pytest.raises(SettingsError, match="--allowed-hosts"):
        Settings(allowed_hosts=hosts)


def test_loopback_addresses_are_known():
    for host in (
        "127.0.0.1",
        "127.1",
        "127.8.8.8",
        "::1",
        "::ffff:127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
    ):
        assert is_loopback(host), host
    for host in ("0.0.0.0", "::", "10.0.0.1", "127.example.org", "example.org", "", "localhost.example.org"):
        assert not is_loopback(host), host

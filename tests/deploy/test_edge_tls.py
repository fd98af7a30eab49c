"""HTTPS at the load balancer, with real clients."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections import Counter

import httpx
import pytest

from tests.authority import Authority
from tests.deploy.test_edge import edge, is_problem
from tests.support import missing, until


@pytest.fixture(scope="module")
def folder(tmp_path_factory, authority):
    """The folder with the certificate of the load balancer."""
    folder = tmp_path_factory.mktemp("tls")
    for file, name in zip(authority.issue("edge"), ("tls.crt", "tls.key"), strict=True):
        shutil.copy(file, folder / name)
    shutil.copy(authority.file, folder / "ca.crt")
    return folder


@pytest.fixture(scope="module")
def shared(folder):
    with edge(2, folder, MNIST_TLS="on", MNIST_TLS_CLIENT_CA="") as shared:
        yield shared


def curl(authority, *arguments):
    """Return what curl prints, which trusts the authority."""
    shutil.which("curl") or missing("curl")
    line = ["curl", "--silent", "--show-error", "--cacert", authority.file, *arguments]
    return subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=30)


def test_curl_gets_http2_and_hsts_and_the_replica_learns_the_scheme(shared, authority):
    done = curl(authority, "--include", f"{shared.https}/predict", "--header", "x-forwarded-proto: http")
    assert done.stdout.startswith("HTTP/2 200"), done.stderr
    assert "\nstrict-transport-security: max-age=63072000" in done.stdout
    assert '"x-forwarded-proto": "https"' in done.stdout
    assert curl(authority, "--http1.1", "--include", f"{shared.https}/predict").stdout.startswith("HTTP/1.1 200")
    # Errors of the load balancer itself have the header too.
    done = curl(authority, "--include", f"{shared.https}/metrics")
    assert done.stdout.startswith("HTTP/2 403")
    assert "\nstrict-transport-security: " in done.stdout


@pytest.mark.parametrize("host", ["digits.example.org", "digits.example.org:80", "[::1]:8000", "127.0.0.1"])
def test_plain_port_only_redirects(shared, host):
    response = httpx.post(f"{shared.url}/predict?mode=number", headers={"host": host})
    address = host if host.endswith("]") else host.rpartition(":")[0] or host
    assert response.status_code == 308
    assert response.headers["location"] == f"https://{address}:{httpx.URL(shared.https).port}/predict?mode=number"
    assert "strict-transport-security" not in response.headers


def test_plain_request_without_a_host_gets_a_problem(shared):
    assert is_problem(*shared.send(b"GET / HTTP/1.0\r\n\r\n"))


def test_curl_follows_the_redirect(shared, authority):
    url = shared.url.replace("127.0.0.1", "localhost")
    done = curl(authority, "--location", "--data-binary", "digits", f"{url}/predict")
    assert '"method": "POST"' in done.stdout
    assert '"body": "digits"' in done.stdout


@pytest.mark.parametrize(
    ("flags", "is_accepted"),
    [
        (["-tls1_3"], True),
        (["-tls1_2"], True),
        (["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"], False),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"], False),
        (["-tls1_2", "-cipher", "AES256-GCM-SHA384"], False),
    ],
)
def test_openssl_finds_only_modern_protocols_and_ciphers(shared, authority, flags, is_accepted):
    shutil.which("openssl") or missing("openssl")
    address = ["-connect", shared.https.removeprefix("https://"), "-CAfile", authority.file, "-alpn", "h2"]
    line = ["openssl", "s_client", *address, "-verify_return_error", *flags]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=30, input="")
    assert ("ALPN protocol: h2" in done.stdout) == is_accepted, done.stdout
    assert ("Verify return code: 0 (ok)" in done.stdout and "Cipher is (NONE)" not in done.stdout) == is_accepted


def test_client_certificate_is_required_where_a_client_ca_is_named(folder, authority, tmp_path):
    right, strange = authority.issue("edge-client", "client@example.org"), Authority(tmp_path).issue("strange")
    with edge(1, folder, MNIST_TLS="on", MNIST_TLS_CLIENT_CA="ca.crt") as lb:
        for certificate in None, strange:
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                httpx.get(f"{lb.https}/predict", verify=authority.trusted(certificate))
        certificate, key = right
        done = curl(authority, "--cert", certificate, "--key", key, f"{lb.https}/predict")
        assert '"method": "GET"' in done.stdout, done.stderr
        assert curl(authority, f"{lb.https}/predict").returncode != 0
        lines = [line for line in (folder / "log").read_text().splitlines() if line.startswith("{")]
        details = [json.loads(line).get("detail", "") for line in lines]
        assert len(details) == 3
        assert any("peer did not return a certificate" in detail for detail in details)


def test_kill_of_a_replica_loses_no_request_over_tls(folder, authority):
    stop, outcomes, context = threading.Event(), Counter(), authority.trusted()

    def ask(url):
        with httpx.Client(timeout=30, verify=context) as client:
            while not stop.is_set():
                try:
                    outcomes[client.post(f"{url}/predict", content="good").status_code] += 1
                except httpx.HTTPError as error:
                    outcomes[repr(error)] += 1

    with edge(3, folder, MNIST_TLS="on", MNIST_TLS_CLIENT_CA="") as lb:
        threads = [threading.Thread(target=ask, args=[lb.https]) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for act in lb.replicas[0].kill, lambda: None:
                seen = outcomes.total()
                until(lambda seen=seen: outcomes.total() > seen + 100)
                act()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert set(outcomes) == {200}

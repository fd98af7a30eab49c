"""HTTPS: real clients, certificates of clients, new certificates, and the limits of a connection."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from tests.authority import Authority
from tests.serving.server.clients import DIGIT, HEAD, parsed, predict, read_response
from tests.support import PIXELS, ROOT, missing, service, until

LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
CURL = ["curl", "--silent", "--show-error"]


@pytest.fixture(scope="module")
def url(authority):
    with service(*authority.flags()) as (url, _):
        yield url


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, timeout=60, **options)


def port_of(url):
    return httpx.URL(url).port


def connect(url, context):
    raw = socket.create_connection(("127.0.0.1", port_of(url)), timeout=30)
    try:
        return context.wrap_socket(raw, server_hostname="localhost")
    except BaseException:
        raw.close()
        raise


def ask(url, context):
    """Return the response to a request. With TLS 1.3, a client learns only here that its certificate is rejected."""
    with connect(url, context) as connection:
        connection.sendall(LIVE)
        return connection.recv(65536)


def serial_number(connection):
    return connection.getpeercert()["serialNumber"]


def metric(client, name):
    [line] = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[1])


CLOSED = 'mnist_closed_connections_total{reason="%s"}'

# Clients


def test_curl_gets_a_prediction(url, authority):
    shutil.which("curl") or missing("curl")
    picture = ["--data-binary", f"@{ROOT / 'tests' / 'seven.png'}", "-H", "content-type: image/png"]
    done = run(*CURL, "--cacert", authority.file, *picture, f"{url}/predict")
    assert json.loads(done.stdout)["predictions"][0]["digit"] == 7
    without_trust = run(*CURL, *picture, f"{url}/predict")
    assert without_trust.returncode == 60
    # A client that prefers HTTP/2 is told in the handshake that there is HTTP/1.1.
    version = ["--http2", "--output", "/dev/null", "--write-out", "%{http_version} %{ssl_verify_result}"]
    assert run(*CURL, "--cacert", authority.file, *version, f"{url}/v2").stdout == b"1.1 0"


def test_http_on_the_port_of_https_gets_a_response_that_says_so(url):
    for method in "GET", "POST":
        response = httpx.request(method, url.replace("https", "http") + "/predict")
        assert response.status_code == 400
        assert "https://" in response.text


@pytest.mark.parametrize(
    ("flags", "protocol"),
    [
        ([], b"TLSv1.3"),
        (["-tls1_2"], b"TLSv1.2"),
        (["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"], None),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"], None),
        (["-tls1_2", "-cipher", "AES256-GCM-SHA384"], None),
    ],
)
def test_openssl_finds_only_modern_protocols_and_ciphers(url, authority, flags, protocol):
    shutil.which("openssl") or missing("openssl")
    address = ["-connect", f"localhost:{port_of(url)}", "-servername", "localhost", "-CAfile", authority.file]
    done = run("openssl", "s_client", *address, "-verify_return_error", "-quiet", "-no_ign_eof", *flags, input=b"")
    assert (done.returncode == 0) == (protocol is not None), done.stderr
    done = run("openssl", "s_client", *address, "-brief", *flags, input=b"")
    if protocol:
        assert b"Protocol version: " + protocol in done.stderr
        assert b"Verification: OK" in done.stderr
    else:
        assert b"CONNECTION ESTABLISHED" not in done.stderr


def test_openssl_can_send_a_request_and_read_the_response(url, authority):
    address = ["-connect", f"localhost:{port_of(url)}", "-CAfile", authority.file, "-quiet"]
    done = run("openssl", "s_client", *address, input=b"GET /v2/health/ready HTTP/1.0\r\n\r\n")
    assert done.stdout.endswith(b'{"ready":true}')
    # It has got close_notify: without it, OpenSSL reports an unexpected end.
    assert b"unexpected eof" not in done.stderr


# gevent, which Triton's client uses, is imported in a process of its own.
TRITON = """
import sys
import numpy as np, tritonclient.http as triton
address, ca, *certificate = sys.argv[1:]
options = {"ca_certs": ca, **dict(zip(("certfile", "keyfile"), certificate))}
client = triton.InferenceServerClient(address, ssl=True, ssl_options=options)
images = triton.InferInput("images", [2, 28, 28], "UINT8")
images.set_data_from_numpy(np.load(sys.stdin.buffer))
sys.stdout.buffer.write(client.infer("mnist", [images]).as_numpy("probabilities").tobytes())
"""


def test_triton_client_gets_the_probabilities_of_predict(authority, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (2, 28, 28), np.uint8)
    np.save(tmp_path / "images.npy", images)
    program = [sys.executable, "-c", TRITON]
    with service(*authority.flags(), "--tls-client-ca", authority.file) as (url, _):
        given = authority.issue("triton", "triton@example.org")
        address = f"localhost:{port_of(url)}"
        with (tmp_path / "images.npy").open("rb") as stdin:
            done = run(*program, address, authority.file, *given, stdin=stdin)
        assert done.returncode == 0, done.stderr
        with (tmp_path / "images.npy").open("rb") as stdin:
            without = run(*program, address, authority.file, stdin=stdin)
        assert b"certificate required" in without.stderr
        context = authority.trusted(given)
        response = httpx.post(f"{url}/predict", content=images.tobytes(), headers=PIXELS, verify=context)
        expected = [prediction["probabilities"] for prediction in response.json()["predictions"]]
        np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32).reshape(2, 10), np.float32(expected))


# Certificates of clients


def test_client_needs_a_certificate_of_the_named_authority(authority, tmp_path):
    right, strange = authority.issue("client", "client@example.org"), Authority(tmp_path).issue("strange")
    flags = [*authority.flags("asking"), "--tls-client-ca", authority.file, "--uds", tmp_path / "socket"]
    with service(*flags) as (url, process):
        for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
            for certificate in None, strange:
                context = authority.trusted(certificate)
                context.maximum_version = version
                with pytest.raises(ssl.SSLError, match=r"(?i)alert|certificate"):
                    ask(url, context)
            context = authority.trusted(right)
            context.maximum_version = version
            with httpx.Client(base_url=url, verify=context) as client:
                assert predict(client).status_code == 200
        # A Unix socket is for this machine. It has no TLS, so probes need no certificate.
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "socket")), base_url="http://x") as client:
            assert predict(client).status_code == 200
            until(lambda: metric(client, CLOSED % "tls") == 4)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    details = {json.loads(line).get("detail", "") for line in log.splitlines() if '"reason":"tls"' in line}
    assert any("peer did not return a certificate" in detail for detail in details)
    assert any("certificate verify failed" in detail for detail in details)
    assert "anyone who reaches" not in log


# New certificates


def test_new_certificate_is_used_by_every_worker_and_breaks_no_connection(authority):
    certificate, key = authority.issue("renewed")
    flags = ["--workers", 2, "--tls-cert", certificate, "--tls-key", key]
    with service(*flags) as (url, _):
        context = authority.trusted()
        with connect(url, context) as kept, kept.makefile("rb") as stream:
            former = serial_number(kept)
            fresh = authority.issue("fresh")
            # As a deployment does it: file by file.
            for old, new in zip((certificate, key), fresh, strict=True):
                new.replace(old)

            def present():
                with connect(url, context) as connection:
                    return serial_number(connection)

            until(lambda: former not in {present() for _ in range(8)})
            kept.sendall(HEAD + DIGIT)
            assert read_response(stream)[0] == 200


def test_workers_get_a_key_from_a_pipe_and_lose_no_request_at_sigterm(authority):
    """As with --tls-key <(command): the file can be read only once, and only by the first process."""
    certificate, key = authority.issue("piped")
    flags = ["--tls-cert", certificate, "--tls-key", "/dev/stdin", "--workers", 2, "--drain", 1]
    with key.open("rb") as stdin, service(*flags, stdin=stdin) as (url, process):
        statuses, stop, context = [], threading.Event(), authority.trusted()

        def send_predictions():
            with httpx.Client(base_url=url, timeout=30, verify=context) as client:
                while not stop.is_set():
                    statuses.append(predict(client).status_code)

        with ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(send_predictions) for _ in range(3)]
            until(lambda: len(statuses) > 50)
            process.send_signal(signal.SIGTERM)
            until(lambda: httpx.get(f"{url}/v2/health/ready", verify=context).status_code == 503)
            stop.set()
            for future in clients:
                future.result()
        assert process.wait(timeout=30) == 0
        assert set(statuses) == {200}


# The connection


def half_closed(url, context, sent):
    """Send bytes, close this direction of TLS, and return all that comes back. No class of Python can do this."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    received = b""
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=30) as connection:
        for step in tls.do_handshake, lambda: tls.write(sent), tls.unwrap, lambda: tls.read(65536):
            with contextlib.suppress(ssl.SSLZeroReturnError):
                while True:
                    try:
                        result = step()
                    except ssl.SSLWantReadError:
                        connection.sendall(outgoing.read())
                        if step == tls.unwrap:
                            break
                        incoming.write(connection.recv(65536))
                    else:
                        if not isinstance(result, bytes) or not result:
                            break
                        received += result
    return received


def test_client_that_has_ended_its_side_gets_its_responses(url, authority):
    content = half_closed(url, authority.trusted(), (HEAD + DIGIT) * 3)
    assert [status for status, *_ in parsed(content)] == [200] * 3
    content = half_closed(url, authority.trusted(), HEAD + DIGIT + HEAD + b"abc")
    assert [status for status, *_ in parsed(content)] == [200, 400]


def test_response_to_a_rejected_body_arrives_although_the_client_still_sends(url, authority):
    with httpx.Client(base_url=url, verify=authority.trusted()) as client:
        assert predict(client, bytes(9_000_000)).status_code == 413
        assert predict(client).status_code == 200


def test_pipelined_requests_and_large_responses_arrive_whole(url, authority):
    images = bytes(784 * 300)
    large = HEAD.replace(b"/predict", b"/predict?include=image").replace(b"784", b"%d" % len(images)) + images
    with connect(url, authority.trusted()) as connection, connection.makefile("rb") as stream:
        connection.sendall((large + LIVE) * 3)
        for _ in range(3):
            status, _, body = read_response(stream)
            assert (status, len(json.loads(body)["predictions"])) == (200, 300)
            assert read_response(stream)[0] == 200


def test_bytes_that_arrive_one_by_one_are_read(url, authority):
    with connect(url, authority.trusted()) as connection, connection.makefile("rb") as stream:
        for byte in LIVE:
            connection.sendall(bytes([byte]))
        assert read_response(stream)[0] == 200


# Limits


def test_unread_responses_count_although_they_are_encrypted(authority):
    """The event loop's own TLS would hide them."""
    body = bytes(784 * 512)
    head = HEAD.replace(b"/predict", b"/predict?include=image").replace(b"784", b"%d" % len(body))
    # On a busy machine the images may take long. A response that the deadline made would be too small.
    flags = [*authority.flags(), "--max-held", 4_000_000, "--write-timeout", 1, "--work-timeout", 60]
    with service(*flags) as (url, _), contextlib.ExitStack() as stack:
        context = authority.trusted()
        for _ in range(8):
            raw = stack.enter_context(socket.socket())
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", port_of(url)))
            client = stack.enter_context(context.wrap_socket(raw, server_hostname="localhost"))
            client.sendall(head + body)
        with httpx.Client(base_url=url, verify=context) as client:
            reasons = ("too_many_bytes", "write_timeout")
            until(lambda: sum(metric(client, CLOSED % reason) for reason in reasons) == 8)
            assert predict(client).status_code == 200


def test_connection_counts_before_its_handshake(authority):
    flags = [*authority.flags(), "--max-connections", 3, "--request-timeout", 2]
    with service(*flags) as (url, _), contextlib.ExitStack() as stack:
        context = authority.trusted()
        address = ("127.0.0.1", port_of(url))
        silent = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(3)]
        # Those that wait longest make room for others.
        with httpx.Client(base_url=url, verify=context, timeout=30) as client:
            until(lambda: client.get("/v2/health/live").status_code == 200)
        for each in silent:
            with contextlib.suppress(ConnectionError):
                assert each.recv(1) == b""
        for _ in range(3):
            stack.enter_context(connect(url, context)).sendall(HEAD)
        # A client reads the response only after its handshake.
        assert httpx.get(f"{url}/v2/health/live", verify=context).status_code == 503

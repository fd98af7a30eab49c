"""The load balancer's configuration, run by HAProxy in front of stand-ins for the replicas."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.api.page import read_files
from tests.deploy import http2
from tests.serving.server.clients import read_response
from tests.support import ROOT, application, missing, service, started, until

# The routes that the load balancer closes.
CLOSED = ["/metrics", "/v2/repository/models/mnist/load", "/v2/repository/models/mnist/unload"]


ENDS = ("/", "//", "/.", "/x/..", "%2f", "%2F", "%00", "%20", "%09", ";a=b", ".", "#x", "%23", "%3f")
STARTS = ("/", "/.", "/%2e", "/x/..", "/./", "/docs/..", "/%2f", "/docs/%2e%2e")


def spellings(path: str) -> list[str]:
    """Return other spellings of a path, which a server may take for the path itself."""
    first, rest = path[1], path[2:]
    encoded = [f"/{code}{rest}" for code in (f"%{ord(first):02x}", f"%25{ord(first):02x}", f"%u00{ord(first):02x}")]
    separators = [f"/{first}{rest.replace('/', other)}" for other in ("//", "/./", "%2f", "\\", "/%2e/") if "/" in rest]
    return [
        *(path + end for end in ENDS),
        *(start + path for start in STARTS),
        *(path.upper(), f"\\{first}{rest}", *encoded, *separators),
    ]


class Edge:
    """HAProxy with some replicas."""

    def __init__(
        self,
        address: tuple[str, int],
        encrypted: tuple[str, int],
        replicas: list[subprocess.Popen[str]],
        grpc: tuple[str, int],
    ) -> None:
        self.address = address
        self.grpc = "{}:{}".format(*grpc)
        self.url = f"http://{address[0]}:{address[1]}"
        self.https = f"https://localhost:{encrypted[1]}"
        self.replicas = replicas

    def send(self, request: bytes) -> tuple[int, str]:
        """Send the bytes of a request, and return the status and the rest of the response."""
        with socket.create_connection(self.address, timeout=30) as connection:
            connection.sendall(request)
            response = b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")
        return int(response.split()[1]), response

    def received(self) -> list[str]:
        """Stop the replicas, and return a line for each request that they received."""
        for replica in self.replicas:
            replica.kill()
        return [line for replica in self.replicas for line in replica.communicate()[0].splitlines()]


@contextlib.contextmanager
def edge(
    replicas: int, folder: Path, *others: int, grpc: int | None = None, patience: str = "20s", **settings: str
) -> Iterator[Edge]:
    """Run HAProxy with this number of replicas and with servers at other ports, when all of them are ready.

    Args:
        grpc: the port for gRPC of the only server, which HAProxy takes for two; None: without gRPC.
        patience: how long HAProxy waits for a whole request.
    """
    haproxy = shutil.which("haproxy") or missing("haproxy (Debian: haproxy)")
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(replicas):
            line = [sys.executable, str(Path(__file__).with_name("replica.py"))]
            processes.append(stack.enter_context(subprocess.Popen(line, stdout=subprocess.PIPE, text=True)))
            stack.callback(processes[-1].kill)
        ports = [*(int(process.stdout.readline()) for process in processes), *others]
        sockets = {port: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for port in (8000, 8443, 8404)}
        public, encrypted, monitoring = sockets.values()
        over_grpc = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        file, grpc_file = folder / "haproxy.cfg", folder / "grpc.cfg"
        file.write_text(configuration(ports, sockets, folder).replace("http-request 20s", f"http-request {patience}"))
        line = [haproxy, "-db", "-f", str(file)]
        if grpc is not None:
            grpc_file.write_text(grpc_configuration(grpc, ports[0], over_grpc))
            line += ["-f", str(grpc_file)]
        inherited = [each.fileno() for each in (*sockets.values(), over_grpc)]
        defaults = {"MNIST_MAX_BODY": "8000000", "MNIST_MAX_CLIENT_CONNECTIONS": "20"}
        defaults["MNIST_TLS_PORT"] = str(encrypted.getsockname()[1])
        environment = os.environ | defaults | settings
        log = stack.enter_context((folder / "log").open("w"))
        process = subprocess.Popen(line, stdout=log, stderr=log, pass_fds=inherited, env=environment)
        stack.callback(process.wait)
        stack.callback(process.kill)
        metrics = "http://{}:{}/metrics".format(*monitoring.getsockname())
        # UP alone may be the state before the first check.
        up = re.compile(r'haproxy_server_check_status\{proxy="\w*replicas",server="\w+",state="L7OK"\} 1')
        count = len(ports) + (0 if grpc is None else 2)
        try:
            until(lambda: process.poll() is not None or len(up.findall(httpx.get(metrics).text)) == count)
            assert process.poll() is None
            yield Edge(public.getsockname(), encrypted.getsockname(), processes, over_grpc.getsockname())
        finally:
            print((folder / "log").read_text())


def configuration(ports: list[int], sockets: dict[int, socket.socket], folder: Path) -> str:
    """Return the configuration, with servers at these ports in place of those that HAProxy finds by DNS.

    Args:
        sockets: the socket to use in place of each port.
        folder: the folder with certificates.
    """
    text = changed(
        "haproxy.cfg",
        (r"(?ms)^resolvers engine$.*?(?=^\w)", ""),
        (r" resolvers engine init-addr none", ""),
        (r"(?m)^ +server-template .*$", "\n".join(f"    server replica{port} 127.0.0.1:{port}" for port in ports)),
    )
    for port, listener in sockets.items():
        assert re.search(rf"bind :{port}\b", text)
        text = re.sub(rf"bind :{port}\b", f"bind fd@{listener.fileno()}", text)
    return text.replace("/tls/", f"{folder}/")


def grpc_configuration(port: int, health: int, public: socket.socket) -> str:
    """Return the configuration for gRPC, with two servers at this port, whose health is that of the port ``health``."""
    return changed(
        "grpc.cfg",
        (r" resolvers engine init-addr none", ""),
        # Two, because some settings of server-template hold only for its first server.
        (r"server-template replica 1-32 serving:8001", f"server-template replica 1-2 127.0.0.1:{port}"),
        (r"connect port 8000\b", f"connect port {health}"),
        (r"bind :8001\b", f"bind fd@{public.fileno()}"),
    )


def changed(name: str, *changes: tuple[str, str]) -> str:
    """Return a file of the configuration with each pattern replaced, which must be there once."""
    text = (ROOT / "deploy" / "haproxy" / name).read_text()
    for pattern, new in changes:
        text, replaced = re.subn(pattern, new, text)
        assert replaced == 1, pattern
    return text


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Edge]:
    """One load balancer for all tests that leave its replicas alive."""
    with edge(2, tmp_path_factory.mktemp("edge")) as shared:
        yield shared


# Paths.


def request(target: str, version: str = "1.1", method: str = "GET", headers: str = "") -> bytes:
    end = f"HTTP/{version}\r\nHost: digits\r\nConnection: close\r\n{headers}\r\n"
    return f"{method} {target} {end}".encode()


def is_problem(status: int, response: str) -> bool:
    head, _, body = response.partition("\r\n\r\n")
    return "content-type: application/problem+json" in head and f'"status":{status},"detail":"' in body


@pytest.mark.parametrize("path", CLOSED)
def test_closed_route_is_forbidden_in_every_form_of_the_request(shared, path):
    for target in path, f"{path}?a=b", f"http://digits{path}", f"http://user@digits:80{path}?a=b":
        for version in "1.0", "1.1":
            for method in "GET", "POST", "HEAD":
                status, response = shared.send(request(target, version, method))
                assert status == 403, (method, target, version)
                assert method == "HEAD" or is_problem(status, response)


@pytest.mark.parametrize("path", CLOSED)
def test_no_other_spelling_of_a_closed_route_passes(shared, path):
    for spelling in spellings(path):
        for target in spelling, f"http://digits{spelling}", f"{spelling}?a=b":
            status, response = shared.send(request(target))
            # HAProxy itself rejects some of them, because they are not valid HTTP.
            assert status in (400, 403, 404), target
            assert status == 400 or is_problem(status, response), target


@pytest.mark.parametrize("target", ["*", "digits:80", "http://digits", "http:///predict/", "", "metrics", "?/predict"])
def test_target_without_a_path_of_a_route_is_rejected(shared, target):
    for method in "GET", "OPTIONS", "CONNECT":
        status, response = shared.send(request(target, method=method))
        # A target without a path means the path /, which is the page.
        assert status in (400, 404) or (status == 200 and '"path": "/"' in response), (method, target)


def test_http2_has_the_same_routes(shared):
    curl = shutil.which("curl") or missing("curl")
    line = [
        curl,
        "--silent",
        "--http2-prior-knowledge",
        "--path-as-is",
        "--output",
        os.devnull,
        "--write-out",
        "%{http_code} ",
    ]
    for path, status in ("/predict", "200"), ("/metrics", "403"), ("//metrics", "404"), ("/%6detrics", "404"):
        done = subprocess.run([*line, shared.url + path], capture_output=True, text=True, timeout=30)
        assert done.stdout.split() == [status], path


def test_every_route_of_the_service_passes(shared):
    with application() as client:
        paths = client.get("/schema/openapi.json").json()["paths"]
    routes = {(path, method) for path, methods in paths.items() for method in methods}
    routes |= {(f"/{name}", "get") for name in read_files()}
    routes |= {(path, "get") for path in ("/", "/docs", "/schema", "/schema/openapi.json")}
    assert len(routes) > 30
    for path, method in sorted(routes):
        path = path.replace("{name}", "My_model-2.1").replace("{version}", "12")
        response = httpx.request(method, f"{shared.url}{path}?query=1", headers={"connection": "close"})
        is_administration = path.startswith(("/v2/repository/models/", "/models/")) and not path.endswith("/card")
        closed = path == "/metrics" or is_administration
        assert response.status_code == (403 if closed else 200), path
        assert closed or response.json()["path"] == f"{path}?query=1"


# What a replica receives.


def received(response: str) -> dict[str, Any]:
    return json.loads(response.partition("\r\n\r\n")[2])


def test_replica_receives_the_path_that_was_checked(shared):
    for target in "/predict?a=/metrics", "http://digits/predict?a=/metrics", "HTTP://user@digits:80/predict?a=/metrics":
        status, response = shared.send(request(target))
        assert status == 200
        assert received(response)["path"] == "/predict?a=/metrics"


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_change_of_protocol_is_ignored_and_the_body_stays_a_body(shared, protocol):
    body = "GET /metrics HTTP/1.1\r\nHost: digits\r\n\r\n"
    headers = (
        f"Upgrade: {protocol}\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: {len(body)}\r\n"
    )
    status, response = shared.send(request("/predict", method="POST", headers=headers) + body.encode())
    assert status == 200
    assert received(response)["body"] == body
    assert "upgrade" not in received(response)["headers"]


@pytest.mark.parametrize(
    "headers",
    [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length : 2\r\n",
        "Host: other\r\n",
        f"X-Large: {'a' * 70_000}\r\n",
        "".join(f"X-{number}: a\r\n" for number in range(200)),
    ],
    ids=lambda headers: headers[:40].replace("\r\n", "|"),
)
def test_request_with_ambiguous_or_too_many_headers_reaches_no_replica(shared, headers):
    """Where the load balancer and a replica see different ends of a body, the rest of it would be another request."""
    with socket.create_connection(shared.address, timeout=30) as client, client.makefile("rb") as stream:
        client.sendall(request("/predict", method="POST", headers=headers))
        line = stream.readline().split()
    # Version 3.2 closes the connection if there are two lengths, and has 431 for large headers.
    assert not line or line[1] in (b"400", b"422", b"431")


def test_request_with_two_lengths_has_one_end_for_all(shared):
    headers = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
    smuggled = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: digits\r\n\r\n"
    status, response = shared.send(request("/predict", method="POST", headers=headers) + smuggled)
    assert status == 200
    assert response.count("HTTP/1.1 ") == 1
    assert "content-length" not in received(response)["headers"]


def test_body_over_the_limit_gets_a_problem(shared):
    status, response = shared.send(request("/predict", method="POST", headers="Content-Length: 8000001\r\n"))
    assert status == 413
    assert is_problem(status, response)
    assert "the limit of 8000000 bytes; send smaller pictures" in response


# gRPC.


def test_grpc_passes_except_for_administration(tmp_path):
    from tests.serving.grpc.door import Client, infer_request, random_images  # isort: skip (skips without gRPC)
    import grpc

    from serving.grpc.messages import REQUESTS, SERVICE

    closed = {"RepositoryModelLoad", "RepositoryModelUnload"}
    with started("--grpc-port", 0, "--admin-keys", "key") as (addresses, _):
        ports = [int(address.rpartition(":")[2]) for address in (addresses["http"], addresses["grpc"])]
        with edge(0, tmp_path, ports[0], grpc=ports[1]) as lb, grpc.insecure_channel(lb.grpc) as channel:
            client = Client(channel)
            # Larger than HAProxy's buffer.
            assert client.call("ModelInfer", **infer_request(random_images(100))).raw_output_contents
            for method in REQUESTS:
                with pytest.raises(grpc.RpcError) if method in closed else contextlib.nullcontext() as raised:
                    fields = infer_request(random_images(1)) if method == "ModelInfer" else {}
                    fields |= {"name": "mnist"} if method in ("ModelMetadata", "ModelConfig") else {}
                    client.call(method, metadata=[("x-api-key", "key")], **fields)
                if raised:
                    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
                    assert "concerns a single replica; see docs/deployment.md" in raised.value.details()
            for path in (*spellings(f"/{SERVICE}/RepositoryModelUnload"), "/grpc.health.v1.Health/Watch"):
                if path.isascii() and path.startswith("/"):
                    with pytest.raises(grpc.RpcError) as raised:
                        channel.unary_unary(path)(b"")
                    assert raised.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL), path
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
            assert client.call("ModelReady", name="mnist").ready
            # Clients of reflection end their call only after the response.
            is_over = threading.Event()
            reflect = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            responses = reflect(b"\x3a\0" if first else is_over.wait() and b"" for first in (True, False))
            assert SERVICE.encode() in next(responses)
            responses.cancel()
            is_over.set()


def test_call_reaches_a_replica_only_as_a_whole(tmp_path):
    """A client can begin many calls for a few bytes. Each of them would occupy a replica."""
    path = "/inference.GRPCInferenceService/{}"
    with socket.create_server(("127.0.0.1", 0)) as replica, edge(1, tmp_path, grpc=replica.getsockname()[1]) as lb:
        host, _, port = lb.grpc.rpartition(":")
        with http2.connect((host, int(port))) as client:
            client.begin(path.format("ServerLive"), 10)
            client.end(client.begin(path.format("ServerReady")), bytes(5))
            replica.settimeout(30)
            connection, _ = replica.accept()
            connection.settimeout(30)
            received = b""
            with connection:
                connection.sendall(http2.frame(http2.SETTINGS, 0, 0))
                while b"ServerReady" not in received:
                    piece = connection.recv(65536)
                    assert piece, received
                    received += piece
            assert b"ServerLive" not in received


def test_calls_of_an_address_at_the_same_time_are_bounded(tmp_path):
    pytest.importorskip("grpc")
    with started("--grpc-port", 0) as (addresses, _):
        ports = [int(address.rpartition(":")[2]) for address in (addresses["http"], addresses["grpc"])]
        with edge(0, tmp_path, ports[0], grpc=ports[1]) as lb:
            host, _, port = lb.grpc.rpartition(":")
            with http2.connect((host, int(port))) as client:
                streams = client.begin("/inference.GRPCInferenceService/ModelInfer", 30)
                found = client.responses(10)
                assert found.keys() == set(streams[20:])
                assert all(http2.field("grpc-status", "8")[1:] in each for each in found.values()), found


# Identity.


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request("/metrics"), 403),
        (request("/nowhere"), 404),
        (request("/predict", method="POST", headers="Content-Length: 8000001\r\n"), 413),
        (request("/predict", method="POST", headers="Content-Length: 5\r\n") + b"close", 502),
    ],
)
def test_every_error_is_a_problem_with_a_request_id(shared, sent, status):
    found, response = shared.send(sent)
    assert found == status
    assert is_problem(status, response)
    assert re.search(r"\r\nx-request-id: [0-9a-f-]{36}\r\n", response)


def test_replica_response_and_log_have_the_id_of_the_client(tmp_path):
    headers = {"x-request-id": "from-client:1"}
    with edge(1, tmp_path, MNIST_ACCESS_LOG="on") as lb:
        response = httpx.post(f"{lb.url}/predict?key=secret", headers=headers, content="good")
        assert response.headers["x-request-id"] == response.json()["headers"]["x-request-id"] == "from-client:1"
        other = httpx.get(f'{lb.url}/"quoted"', headers={"x-request-id": 'no "id"'})
        assert len(other.headers["x-request-id"]) == 36
        # A value is checked as a whole, and of several values the last one.
        for sent in ["good", 'x"y'], ['good, x"y'], ['x"},{"client":"1.2.3.4', "good,"], ["a" * 129], ["a b"], [""]:
            several = httpx.get(f"{lb.url}/predict", headers=[("x-request-id", each) for each in sent])
            assert len(several.headers["x-request-id"]) == len(several.json()["headers"]["x-request-id"]) == 36
        methods = ["PATCH", "FOO", "get", "M`'|~!$%&*+"]
        for method in methods:
            lb.send(request("/predict", method=method))

        def logged():
            # The last line may be only half there.
            lines = (tmp_path / "log").read_text().splitlines(keepends=True)
            return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

        # HAProxy answers before it writes the line. Its threads write the lines of several connections in any order.
        until(lambda: sorted(line["method"] for line in logged()[-4:]) == sorted(methods))
    lines = logged()
    first = lines[0]
    assert (first["client"], first["request_id"]) == ("127.0.0.1", "from-client:1")
    assert (first["method"], first["path"], first["status"]) == ("POST", "/predict", 200)
    assert first["replica"].startswith("replica")
    assert (lines[1]["status"], lines[1]["request_id"]) == (404, other.headers["x-request-id"])


# Limits of a client.


def test_one_address_cannot_take_all_connections(shared):
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(shared.address, timeout=30))
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as another:
            assert another.get(f"{shared.url}/predict").status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{shared.url}/predict")
    until(lambda: responds(f"{shared.url}/predict"))


def test_requests_of_http2_count_for_their_address(tmp_path):
    """Each connection may carry a hundred requests, and each request needs memory and a socket."""
    with edge(1, tmp_path) as lb, http2.connect(lb.address) as one, http2.connect(lb.address) as other:
        waiting = one.begin("/predict", 20)
        for client, number in (one, 1), (other, 30):
            streams = client.begin("/predict", number)
            found = client.responses(number)
            assert found.keys() == set(streams)
            assert all(b"429" in each for each in found.values()), found
        response = httpx.get(f"{lb.url}/predict")
        assert response.status_code == response.json()["status"] == 429
        assert response.headers["retry-after"] == "1"
        assert len(response.headers["x-request-id"]) == 36
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as another:
            assert another.get(f"{lb.url}/predict").status_code == 200
        one.end(waiting, b"good")
        found = one.responses(20)
        assert found.keys() == set(waiting)
        # HPACK's byte for the status 200.
        assert all(each.startswith(b"\x88") for each in found.values()), found
        assert httpx.get(f"{lb.url}/predict").status_code == 200


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_address_that_resets_its_requests_without_pause_is_rejected_for_a_while(tmp_path, over):
    with socket.create_server(("127.0.0.1", 0)) as unused, edge(1, tmp_path, grpc=unused.getsockname()[1]) as lb:
        host, _, port = lb.grpc.rpartition(":")
        address = (host, int(port)) if over == "grpc" else lb.address
        path = "/inference.GRPCInferenceService/ServerLive" if over == "grpc" else "/predict"

        def is_rejected() -> bool:
            # Never more bytes on a connection than the kernel takes: HAProxy may have dropped it in silence.
            with contextlib.suppress(OSError), http2.connect(address) as client:
                client.reset(path, 500)
            return not accepts(lb.url)

        assert not is_rejected()
        until(is_rejected)
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as another:
            until(lambda: another.get(f"{lb.url}/predict").status_code == 200)


def test_requests_of_all_addresses_together_are_bounded(tmp_path):
    with contextlib.ExitStack() as stack:
        lb = stack.enter_context(edge(1, tmp_path, MNIST_MAX_CLIENT_CONNECTIONS="2000"))
        clients = [stack.enter_context(http2.connect(lb.address)) for _ in range(10)]
        for client in clients:
            client.begin("/predict", 99)
            client.begin("/nowhere")
            client.responses(1)
        # The threads of HAProxy may let a few more pass.
        last = [stack.enter_context(http2.connect(lb.address)) for _ in range(2)]
        for client in last:
            client.begin("/predict", 50)
        found = last[1].responses(40)
        assert all(b"429" in each for each in found.values()), found


def accepts(url: str) -> bool:
    """Return whether HAProxy accepts a connection, also if it then responds that there are too many requests."""
    with contextlib.suppress(httpx.TransportError):
        return bool(httpx.get(f"{url}/predict").status_code)
    return False


def responds(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).status_code == 200
    return False


def test_upload_that_is_larger_than_the_buffer_and_too_slow_gets_408(tmp_path):
    """HAProxy passes it on before it is complete, so the service must say why it ends the connection."""
    with service("--request-timeout", 1) as (url, _), edge(0, tmp_path, int(url.rpartition(":")[2])) as lb:
        head = request("/predict", method="POST", headers="Content-Length: 500000\r\n").replace(b"digits", b"localhost")
        # HAProxy closes the connection much later, so only the response is read.
        with socket.create_connection(lb.address, timeout=30) as client, client.makefile("rb") as stream:
            client.sendall(head + bytes(200_000))
            status, headers, body = read_response(stream)
    assert status == 408
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["status"] == 408


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /predict HTTP/1.1\r\nHost: digits\r\n",
        b"GET /predict HT",
        request("/predict", method="POST", headers="Content-Length: 9\r\n") + b"abc",
        request("/predict", method="POST", headers="Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n",
    ],
    ids=["headers", "first line", "body", "chunks"],
)
def test_request_that_is_smaller_than_the_buffer_and_too_slow_gets_408(tmp_path, sent):
    """It reaches no replica, because HAProxy waits for the whole request."""
    with edge(1, tmp_path, patience="200ms") as lb:
        # HAProxy closes the connection much later, so only the response is read.
        with socket.create_connection(lb.address, timeout=30) as client, client.makefile("rb") as stream:
            client.sendall(sent)
            status, headers, body = read_response(stream)
        assert status == 408
        assert not lb.received()
    # If the headers are incomplete, HAProxy sends its own page.
    if b"\r\n\r\n" in sent:
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["status"] == 408
        assert len(headers["x-request-id"]) == 36


# Retries.


@pytest.mark.parametrize("death", ["close", "die"])
def test_request_that_kills_its_replica_reaches_only_one_other(tmp_path, death):
    with edge(4, tmp_path) as lb:
        response = httpx.post(f"{lb.url}/predict", content=death, timeout=30)
        assert response.status_code == response.json()["status"] == 502
        # Two dead replicas are known only when their connections or health checks have failed.
        until(lambda: httpx.post(f"{lb.url}/predict", content="good", timeout=30).status_code == 200)
        assert lb.received().count(f"POST /predict {death}") == 2


def test_request_larger_than_the_buffer_kills_one_replica(tmp_path):
    with edge(3, tmp_path) as lb:
        # The service may die of a large request as well. HAProxy does not hold it, so it cannot send it again.
        response = httpx.post(f"{lb.url}/predict", content=b"die".ljust(500_000), timeout=30)
        assert response.status_code == 502
        assert len(lb.received()) == 1


def test_request_goes_to_another_replica_if_one_is_unavailable(tmp_path):
    with edge(3, tmp_path) as lb:
        assert httpx.post(f"{lb.url}/predict", content="unavailable", timeout=30).status_code == 503
        assert len(lb.received()) == 2


@pytest.mark.parametrize("kill", [1, 2])
def test_kill_of_replicas_loses_no_request(tmp_path, kill):
    """One at a time, with load from clients that keep their connection."""
    stop = threading.Event()
    outcomes: Counter[Any] = Counter()

    def ask(url: str) -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                try:
                    outcomes[client.post(f"{url}/predict", content="good").status_code] += 1
                except httpx.HTTPError as error:
                    outcomes[repr(error)] += 1

    with edge(3, tmp_path) as lb:
        threads = [threading.Thread(target=ask, args=[lb.url]) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for victim in lb.replicas[:kill]:
                seen = outcomes.total()
                until(lambda seen=seen: outcomes.total() > seen + 100)
                victim.kill()
            seen = outcomes.total()
            until(lambda: outcomes.total() > seen + 100)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert set(outcomes) == {200}

"""The steps that several benchmarks share: start a server on core 0 and send it requests from core 1."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.footprint import resident
from benchmarks.report import conditions
from serving.models import bundle
from serving.settings import RELEASE

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PACKAGED_MODEL = RELEASE / "mnist" / "1"
CONNECTIONS = 8
INSTALLED_BY = {
    "wrk": "apt-get install wrk",
    "h2load": "apt-get install nghttp2-client",
    "taskset": "apt-get install util-linux",
    "py-spy": "pip install py-spy",
}
# The units of wrk's latencies.
MILLISECONDS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}

WRK_SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
wrk.headers["Content-Type"] = "{content_type}"
{headers}
file:close()
"""


@dataclass(frozen=True)
class Request:
    """A POST request."""

    path: str
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def as_bytes(self) -> bytes:
        """Return the request as it is sent over a connection."""
        lines = [f"POST {self.path} HTTP/1.1", "host: localhost", f"content-type: {self.content_type}"]
        lines += [f"content-length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    port: int
    pid: int
    start_seconds: float
    """From the start of the process until it was ready."""

    def memory(self) -> float:
        """Return the resident memory in MB."""
        return resident(self.pid)


def need(*tools: str) -> None:
    """Check that these programs are installed.

    Raises:
        click.ClickException: one is missing.
    """
    for tool in tools:
        if not shutil.which(tool):
            raise click.ClickException(f"{tool} is missing: {INSTALLED_BY[tool]}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def exit_at_sigterm() -> None:
    """End at SIGTERM with an exception. Otherwise a server would be left behind, on a core of the next benchmark."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


@contextlib.contextmanager
def run_server(
    command: list[object], port: int, ready: str = "/", folder: Path = ROOT, stop: float = 60, **environment: str
) -> Iterator[Server]:
    """Run a server on core 0, with the Python packages in ``folder``, and wait until the path ``ready`` responds.

    At the end the server gets SIGTERM. If it has not ended after ``stop`` seconds, it is killed.
    """
    exit_at_sigterm()
    line = ["taskset", "-c", "0", *map(str, command)]
    environment = os.environ | {"PYTHONPATH": str(folder)} | environment
    started = time.perf_counter()
    process = subprocess.Popen(line, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}{ready}")
        yield Server(port, process.pid, time.perf_counter() - started)
    finally:
        process.terminate()
        try:
            process.wait(stop)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until a server responds at ``url``, with any status.

    Raises:
        click.ClickException: the process ended before.
    """
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if process.poll() is not None:
                raise click.ClickException(f"{process.args!r} ended before it was ready") from None
            time.sleep(0.005)


@contextlib.contextmanager
def run_service(*options: object, folder: Path = ROOT) -> Iterator[Server]:
    """Run the service of the checkout in ``folder`` on core 0, with one worker."""
    port = free_port()
    command = [BIN / "mnist-serve", "--port", port, "--log-level", "error", *options]
    with run_server(command, port, "/v2/health/ready", folder) as server:
        yield server


def golden_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits in the packaged model's golden.npz, uint8 ``[N, 28, 28]``, and their labels."""
    with np.load(PACKAGED_MODEL / bundle.GOLDEN) as golden:
        return golden["images"], golden["logits"].argmax(axis=1)


def encode_picture(image: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format)
    return buffer.getvalue()


def example_requests(batch: int) -> dict[str, Request]:
    """Return a request for each kind of body, by the name of the kind. Each has ``batch`` images of MNIST's digits."""
    images = np.resize(golden_digits()[0], (batch, 28, 28))
    tensor = {"name": "images", "shape": [batch, 28, 28], "datatype": "UINT8"}
    head = json.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": images.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    infer = "/v2/models/mnist/infer"
    requests = {
        "raw pixels": Request("/predict", "application/octet-stream", images.tobytes()),
        "JSON": Request("/predict", "application/json", json.dumps({"images": images.tolist()}).encode()),
        "Open Inference JSON": Request(
            infer, "application/json", json.dumps({"inputs": [tensor | {"data": images.ravel().tolist()}]}).encode()
        ),
        "Open Inference binary": Request(
            infer,
            "application/octet-stream",
            head + images.tobytes(),
            {"Inference-Header-Content-Length": str(len(head))},
        ),
    }
    if batch == 1:
        requests["PNG"] = Request("/predict", "image/png", encode_picture(images[0]))
    return requests


@dataclass(frozen=True)
class Load:
    """What wrk measured."""

    requests: int
    per_second: float
    p50: float
    """Median latency in milliseconds."""
    p99: float

    @classmethod
    def read(cls, report: str) -> Load:
        """Return the figures of wrk's report.

        Raises:
            click.ClickException: a response is missing or its status is not 2xx.
        """
        if "Non-2xx" in report or "Socket errors" in report:
            raise click.ClickException(f"some requests failed: {report}")

        def found(pattern: str) -> re.Match[str]:
            return re.search(pattern, report, re.MULTILINE)  # type: ignore[return-value]

        latencies = [found(rf"^ +{percent}% +([\d.]+)(us|ms|s|m)$") for percent in (50, 99)]
        p50, p99 = (float(match[1]) * MILLISECONDS[match[2]] for match in latencies)
        requests, speed = found(r"(\d+) requests in")[1], found(r"^Requests/sec: +([\d.]+)")[1]
        return cls(int(requests), float(speed), p50, p99)


def send_load(port: int, request: Request, seconds: int, connections: int = CONNECTIONS) -> Load:
    """Send the request from core 1 again and again, over some connections, and return what wrk measures."""
    url = f"http://127.0.0.1:{port}{request.path}"
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder) / "body", Path(folder) / "post.lua"
        body.write_bytes(request.body)
        headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in request.headers.items())
        script.write_text(WRK_SCRIPT.format(body=body, content_type=request.content_type, headers=headers))
        wrk = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
        return Load.read(subprocess.run([*wrk, url], capture_output=True, text=True, check=True).stdout)


def requests_per_second(port: int, request: Request, seconds: int) -> float:
    return send_load(port, request, seconds).per_second


def grpc_requests(batch: int) -> dict[str, bytes]:
    """Return an encoded request for each form of gRPC, by the name of the form, with the same images over HTTP."""
    from serving.grpc.messages import REQUESTS

    images = np.resize(golden_digits()[0], (batch, 28, 28))
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape}
    forms: dict[str, dict[str, object]] = {
        "gRPC, raw contents": {"inputs": [tensor], "raw_input_contents": [images.tobytes()]},
        "gRPC, typed contents": {"inputs": [tensor | {"contents": {"uint_contents": images.ravel()}}]},
    }
    encode = REQUESTS["ModelInfer"]
    return {name: encode(model_name="mnist", **fields).SerializeToString() for name, fields in forms.items()}


def grpc_per_second(port: int, grpc_port: int, message: bytes, seconds: int, connections: int = CONNECTIONS) -> float:
    """Send an encoded request from core 1 again and again, with one call at a time on each connection.

    Args:
        port: the port of HTTP, whose metrics show whether a call failed. h2load does not read the status of gRPC.

    Raises:
        click.ClickException: a call failed.
    """
    path = "/inference.GRPCInferenceService/ModelInfer"
    with tempfile.NamedTemporaryFile() as body:
        # A message follows a byte that says whether it is compressed, and its length.
        body.write(b"\0" + len(message).to_bytes(4, "big") + message)
        body.flush()
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        load = ["taskset", "-c", "1", "h2load", f"-c{connections}", "-m1", f"-D{seconds}", "-d", body.name, *headers]
        url = f"http://127.0.0.1:{grpc_port}{path}"
        report = subprocess.run([*load, url], capture_output=True, text=True, check=True).stdout
    metrics = read_metrics(port)
    statuses = set(re.findall(rf'mnist_http_requests_total{{method="POST",route="{path}",status="(\d+)"}}', metrics))
    # h2load cancels the last calls (499).
    if not {"200"} <= statuses <= {"200", "499"}:
        raise click.ClickException(f"some calls failed, with the statuses {statuses}: {report}")
    return float(re.search(r"([\d.]+) req/s", report)[1])  # type: ignore[index]


def read_metrics(port: int) -> str:
    content: bytes = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read()
    return content.decode()


def wait_until_idle(port: int) -> None:
    """Wait until the service has finished the requests whose responses the load generator did not wait for."""
    # The only request in flight is the one that reads the metrics.
    while "mnist_http_requests_in_flight 1.0" not in read_metrics(port):
        time.sleep(0.01)


def service_conditions(load: str) -> str:
    """Return the conditions of a measurement of the service; ``load`` names what sends the requests."""
    return conditions("litestar", "uvicorn", "onnxruntime", "numpy", also=f"server on core 0, {load} on core 1")

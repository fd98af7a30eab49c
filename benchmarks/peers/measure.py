"""Start one server, check its response, and measure it at each number of connections."""

from __future__ import annotations

import http.client
import json
import os
import re
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.footprint import processor_seconds
from benchmarks.harness import BIN, PACKAGED_MODEL, ROOT, Request, example_requests, free_port, send_load
from benchmarks.peers import environment
from benchmarks.peers.peers import FOLDER, Peer
from benchmarks.peers.process import Running, start
from serving.models.classifier import Classifier

CONNECTIONS = (1, 16)
TOLERANCE = 1e-5
WARM_UP_SECONDS = 1
PAUSE_SECONDS = 0.5

Figures = dict[str, float]


def programs(peer: Peer) -> Path:
    """Return the folder of the programs of a peer, after its environment is made."""
    return environment.make(peer.folder, peer.requirements, peer.python) if peer.folder else BIN


def expected() -> np.ndarray:
    """Return the probabilities of the digit in every request, as the packaged model predicts them here."""
    images = np.frombuffer(example_requests(1)["raw pixels"].body, np.uint8).reshape(1, 28, 28)
    return Classifier(PACKAGED_MODEL / "model.onnx").classify(images).probabilities.ravel()


def response(port: int, request: Request) -> Any | None:
    """Return the decoded response with status 200, or None if there is no such response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", request.path, request.body, {"content-type": request.content_type})
        received = connection.getresponse()
        content = received.read()
        return json.loads(content) if received.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def check(found: list[float], right: np.ndarray) -> None:
    """Raise a click.ClickException if the probabilities are not those of the packaged model."""
    difference = np.abs(np.array(found) - right).max()
    # A comparison with NaN is false.
    if not (np.argmax(found) == right.argmax() and difference <= TOLERANCE):
        raise click.ClickException(f"its response is wrong: a probability differs by {difference:.1g}")


def measure(peer: Peer, seconds: int) -> Figures:
    """Return the figures of one server.

    Raises:
        click.ClickException: the server cannot be installed or started, its response is wrong, or a request fails.
    """
    port, request, right = free_port(), example_requests(1)[peer.kind], expected()
    log = environment.ENVIRONMENTS / f"{re.sub(r'[^a-z]+', '-', peer.name.lower())}.log"
    names = {
        "bin": programs(peer),
        "root": ROOT,
        "model": PACKAGED_MODEL / "model.onnx",
        "torchscript": PACKAGED_MODEL / "model.torchscript.pt",
        "port": port,
        "grpc": free_port(),
        "metrics": free_port(),
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        names["temporary"] = Path(temporary)
        command = [word.format_map(names) for word in peer.command.split()]
        variables = {name: value.format_map(names) for name, value in peer.environment.items()}
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ask = partial(response, port, request)
        with start(command, FOLDER / peer.folder, clean | variables, log, ask) as server:
            check(peer.probabilities(server.response), right)
            send_load(port, request, WARM_UP_SECONDS, CONNECTIONS[-1])
            figures = {"start": server.start_seconds}
            for connections in CONNECTIONS:
                figures |= load(server, port, request, seconds, connections)
            figures["memory"] = server.memory()
    return figures


def load(server: Running, port: int, request: Request, seconds: int, connections: int) -> Figures:
    """Return the figures at this number of connections; their names end with the number."""
    # The server may still work on requests of the connections that wrk has just closed.
    time.sleep(PAUSE_SECONDS)
    before = processor_seconds(server.pid)
    measured = send_load(port, request, seconds, connections)
    spent = processor_seconds(server.pid) - before
    return {
        f"requests/s {connections}": measured.per_second,
        f"p50 {connections}": measured.p50,
        f"p99 {connections}": measured.p99,
        f"cpu {connections}": spent / measured.requests * 1e6,
    }

"""What optional parts of the service cost: traces, and the comparison of a new version with the one that responds.

    python -m benchmarks.serving --cost traces --cost shadow [--seconds 3] [--rounds 5] [--save FILE]

One service without the part and one for each of its settings run at the same time on core 0. wrk on core 1 sends one
digit per request as raw pixels to one of them at a time, and the rounds alternate. The CPU time is that of the whole
process of the service, so it has the work that is done after the responses. The collector of the traces accepts
everything and does nothing with it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.footprint import processor_seconds
from benchmarks.harness import (
    PACKAGED_MODEL,
    Server,
    example_requests,
    read_metrics,
    run_service,
    send_load,
    wait_until_idle,
)
from serving.models import bundle

COMPARED = re.compile(r"^mnist_shadow_predictions_total\{.*\} [1-9]", re.MULTILINE)
# Seconds until a new version is loaded and compared.
PATIENCE = 30


class Measured(NamedTuple):
    """What one round measured of one service."""

    per_second: float
    microseconds: float
    """CPU time per request, of the service and all its processes."""
    p50: float
    """Median latency in milliseconds."""
    p99: float


def measure(service: Server, seconds: int) -> Measured:
    request = example_requests(1)["raw pixels"]
    before = processor_seconds(service.pid)
    load = send_load(service.port, request, seconds)
    wait_until_idle(service.port)
    spent = processor_seconds(service.pid) - before
    return Measured(load.per_second, spent / load.requests * 1e6, load.p50, load.p99)


def cost_tables(parts: Sequence[str], seconds: int, rounds: int) -> Iterator[str]:
    """Yield the lines of a table for each part."""
    for part in parts:
        with VARIANTS[part]() as services:
            figures: dict[str, list[Measured]] = {name: [] for name in services}
            for _ in range(rounds):
                for name, service in services.items():
                    figures[name].append(measure(service, seconds))
        yield from table(part, figures)


def table(part: str, figures: Mapping[str, Sequence[Measured]]) -> Iterator[str]:
    """Yield the medians of each service. The first one is without the part, and the ratios are those to it.

    A ratio is the median of the ratios within each round. So it can differ from the ratio of two medians.
    """
    without = next(iter(figures.values()))
    yield from ("", f"| {part} | requests/s | CPU µs per request | CPU time, ratio | p50 ms | p99 ms | p99, ratio |")
    yield "|---|---|---|---|---|---|---|"
    for name, found in figures.items():
        middle = Measured(*map(statistics.median, zip(*found, strict=True)))
        cpu, p99 = (
            statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(found, without, strict=True))
            for field in ("microseconds", "p99")
        )
        yield (
            f"| {name} | {middle.per_second:.0f} | {middle.microseconds:.0f} | {cpu:.2f} "
            f"| {middle.p50:.2f} | {middle.p99:.2f} | {p99:.2f} |"
        )


@contextlib.contextmanager
def traced() -> Iterator[dict[str, Server]]:
    """Run services without traces, with traces of a tenth of the requests, and with traces of all."""
    with _collector() as url, contextlib.ExitStack() as stack:
        options: dict[str, list[object]] = {
            "without": [],
            "of one request in ten": ["--otlp-endpoint", url, "--trace-sample", 0.1],
            "of every request": ["--otlp-endpoint", url],
        }
        yield {name: stack.enter_context(run_service(*each)) for name, each in options.items()}


@contextlib.contextmanager
def shadowed() -> Iterator[dict[str, Server]]:
    """Run a service with one version, and one that compares a copy of this version with it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        models = Path(folder) / "models"
        shutil.copytree(PACKAGED_MODEL, models / "mnist" / "1")
        alone = stack.enter_context(run_service())
        options = ("--repository", models, "--poll", 0.1, "--rollout", "--admin-keys", "key")
        comparing = stack.enter_context(run_service(*options))
        _publish_copy(models / "mnist", Path(folder) / "new")
        started = time.monotonic()
        while not COMPARED.search(read_metrics(comparing.port)):
            send_load(comparing.port, example_requests(1)["raw pixels"], 1)
            if time.monotonic() - started > PATIENCE:
                raise click.ClickException("the service does not compare the new version")
        yield {"without": alone, "with --rollout and a new version": comparing}


VARIANTS = {"traces": traced, "shadow": shadowed}


def _publish_copy(model: Path, staging: Path) -> None:
    shutil.copytree(PACKAGED_MODEL, staging)
    manifest = json.loads((staging / bundle.MANIFEST).read_text())
    (staging / bundle.MANIFEST).write_text(json.dumps(manifest | {"version": 2}))
    staging.rename(model / "2")


class _Accepting(BaseHTTPRequestHandler):
    """Accepts all spans."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    """Run a collector of traces in a thread, and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Accepting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

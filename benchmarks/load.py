"""Measure latency while another client sends large batches, and at up to twice the capacity of a worker.

    python -m benchmarks.load [--seconds 5] [--save benchmarks/results/load.md]

Needs wrk and taskset (Debian: wrk, util-linux) and two cores. One worker runs on core 0 and the clients run on core 1.
Requests with one digit come in an open loop: they start at random moments (a Poisson process), whether or not earlier
ones have their response. Latency is the time from the start of a request to the end of its response.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import uvloop

from benchmarks.harness import example_requests, need, requests_per_second, run_service, service_conditions
from benchmarks.report import save_option, tell

# Images in each request of the client with large batches.
LARGE_BATCH = 1024
# Requests per second that are sent meanwhile, each with one digit.
SINGLE_RATE = 200


def response_size(received: bytes) -> int | None:
    """Return the size in bytes of the response that starts here, or None before its headers are complete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    start = received.lower().index(b"\r\ncontent-length: ") + 18
    return end + 4 + int(received[start : received.index(b"\r\n", start)])


# Large batches


def send(connection: socket.socket, request: bytes) -> int:
    """Send a request, wait for the whole response, and return its status."""
    connection.sendall(request)
    received = b""
    while (size := response_size(received)) is None or len(received) < size:
        part = connection.recv(1 << 20)
        if not part:
            raise ConnectionError("the service closed the connection before the response was complete")
        received += part
    return int(received[9:12])


@contextlib.contextmanager
def batch_client(port: int, request: bytes) -> Iterator[list[int]]:
    """Send ``request`` without pause from another thread. Yield a list that collects the statuses of the responses."""
    statuses: list[int] = []
    stop = threading.Event()

    def work() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while not stop.is_set():
                statuses.append(send(connection, request))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        thread.join()


# The open loop


class Connection(asyncio.Protocol):
    """A connection with at most one request in flight."""

    def __init__(self, idle: list[Connection]) -> None:
        self._idle = idle
        self._received = b""
        self.status: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        size = response_size(self._received)
        if size is not None and len(self._received) >= size:
            status, self._received = int(self._received[9:12]), b""
            self._idle.append(self)
            if self.status:
                self.status.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.status and not self.status.done():
            self.status.set_result(0)


async def open_loop(port: int, request: bytes, rate: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Send ``rate`` requests per second.

    Return for each request the latency in milliseconds and the status. Status 0 means that the connection was closed
    without a response.
    """
    loop = asyncio.get_running_loop()
    idle: list[Connection] = []
    draw = random.Random(0)
    results: list[tuple[float, int]] = []

    async def one(start: float) -> None:
        if idle:
            connection = idle.pop()
        else:
            _, connection = await loop.create_connection(lambda: Connection(idle), "127.0.0.1", port)
        connection.status = loop.create_future()
        connection.transport.write(request)
        status = await connection.status
        results.append(((loop.time() - start) * 1000, status))

    start = loop.time()
    end = start + seconds
    async with asyncio.TaskGroup() as group, asyncio.timeout(seconds + 60):
        while start < end:
            start += draw.expovariate(rate)
            if (wait := start - loop.time()) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(start))
    for connection in idle:
        connection.transport.close()
    latencies, statuses = zip(*results, strict=True)
    return np.array(latencies), np.array(statuses)


# The two tables


def measure_beside_batches(seconds: float) -> list[str]:
    """Return a table with two rows for each kind of body: without the client with large batches, and with it."""
    rows = ["| the other client sends | p50 ms | p99 ms | p99 / p99 without that client |", "|---|---|---|---|"]
    single = example_requests(1)["raw pixels"].as_bytes()

    def measure(port: int) -> np.ndarray:
        latencies, statuses = uvloop.run(open_loop(port, single, SINGLE_RATE, seconds))
        if set(statuses) != {200}:
            raise click.ClickException(f"requests with one digit got the statuses {set(statuses)}, not only 200")
        return latencies

    with run_service() as service:
        measure(service.port)
        for kind in ("raw pixels", "Open Inference binary", "JSON", "Open Inference JSON"):
            alone = measure(service.port)
            with batch_client(service.port, example_requests(LARGE_BATCH)[kind].as_bytes()) as statuses:
                beside = measure(service.port)
            if set(statuses) != {200}:
                raise click.ClickException(f"large batches got the statuses {set(statuses)}, not only 200")
            before, after = np.percentile(alone, 99), np.percentile(beside, 99)
            rows.append(f"| nothing | {np.median(alone):.2f} | {before:.2f} | 1 |")
            rows.append(
                f"| {LARGE_BATCH} images as {kind}, {len(statuses) / seconds:.1f} times per second "
                f"| {np.median(beside):.2f} | {after:.2f} | {after / before:.1f} |"
            )
            click.echo(rows[-1], err=True)
    return rows


def measure_overload(seconds: float) -> list[str]:
    """Return a table with a row for each load: 0.1, 0.5, 1 and 2 times the capacity of a worker."""
    rows = [
        "| load / capacity | sent/s | accepted/s | accepted / capacity | rejected with 429 | p50 ms of accepted "
        "| p99 ms of accepted | p99 / p99 at load 0.1 | memory MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    request = example_requests(1)["raw pixels"]
    first = None
    with run_service() as service:
        capacity = requests_per_second(service.port, request, int(seconds))
        for share in (0.1, 0.5, 1, 2):
            latencies, statuses = uvloop.run(open_loop(service.port, request.as_bytes(), share * capacity, seconds))
            if unexpected := set(statuses) - {200, 429}:
                raise click.ClickException(f"requests got the statuses {unexpected}, not only 200 and 429")
            accepted = latencies[statuses == 200]
            p99 = np.percentile(accepted, 99)
            first = first or p99
            rows.append(
                f"| {share:g} | {len(statuses) / seconds:.0f} | {len(accepted) / seconds:.0f} "
                f"| {len(accepted) / seconds / capacity:.0%} | {(statuses == 429).sum()} | {np.median(accepted):.2f} "
                f"| {p99:.2f} | {p99 / first:.1f} | {service.memory():.0f} |"
            )
            click.echo(rows[-1], err=True)
    return [f"The capacity is {capacity:.0f} requests per second (wrk, closed loop).", "", *rows]


@click.command()
@click.option(
    "--seconds", default=5, show_default=True, type=click.IntRange(min=1), help="Duration of each measurement."
)
@save_option
def main(seconds: int, save: Path | None) -> None:
    """Measure latency under load and print two tables."""
    need("wrk", "taskset")
    # The clients must not take time from the service, which runs on core 0.
    os.sched_setaffinity(0, {1})
    lines = [
        service_conditions("clients"),
        "",
        f"**Requests with one digit, {SINGLE_RATE} per second, while another client sends large batches**",
        "",
        *measure_beside_batches(seconds),
        "",
        "**Requests with one digit (raw pixels), up to twice the capacity of a worker**",
        "",
        *measure_overload(seconds),
    ]
    tell(lines, save)


if __name__ == "__main__":
    main()

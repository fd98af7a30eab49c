"""Steadiness under load: a neighbour with large batches, and twice the load that can be carried.

    python -m benchmarks.load [--seconds 5] [--save benchmarks/results/load.md]

One pinned worker, clients on the other core. Single digits come in an open loop: at random moments (a Poisson
process), whether or not others are done, and a latency counts from the moment of arrival.
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

ROOT = Path(__file__).parent.parent
from benchmarks.report import tell
from benchmarks.serving import BIN, bodies, free_port, process, resident, where, wrk

# So many images in one request of the neighbour.
THOUSAND = 1024
# So many single digits a second beside it.
SINGLES = 200


def as_bytes(path: str, kind: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "host: benchmark", f"content-type: {kind}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer_size(received: bytes) -> int | None:
    """How long the answer is that begins here, once its head is whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    start = received.lower().index(b"\r\ncontent-length: ") + 18
    return end + 4 + int(received[start : received.index(b"\r\n", start)])


@contextlib.contextmanager
def service(*options: object) -> Iterator[tuple[int, int]]:
    """The service on core 0: its port and process id."""
    port = free_port()
    command = [BIN / "mnist-serve", "--port", port, "--log-level", "error", *options]
    with process(command, f"http://127.0.0.1:{port}/v2/health/ready") as (pid, _):
        yield port, pid


def ask(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and wait for the whole answer."""
    connection.sendall(request)
    received = b""
    while (size := answer_size(received)) is None or len(received) < size:
        part = connection.recv(1 << 20)
        if not part:
            raise ConnectionError("the service closed the connection before its answer was whole")
        received += part
    return received


# A neighbour


@contextlib.contextmanager
def neighbour(port: int, request: bytes) -> Iterator[list[int]]:
    """Somebody who sends ``request`` without pause."""
    done: list[int] = []
    stop = threading.Event()

    def work() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while not stop.is_set():
                done.append(int(ask(connection, request)[9:12]))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


# Overload


class Caller(asyncio.Protocol):
    """A connection that asks once at a time."""

    def __init__(self, idle: list[Caller]) -> None:
        self._idle = idle
        self._received = b""
        self.answered: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        size = answer_size(self._received)
        if size is not None and len(self._received) >= size:
            status, self._received = int(self._received[9:12]), b""
            self._idle.append(self)
            if self.answered:
                self.answered.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answered and not self.answered.done():
            self.answered.set_result(0)


async def open_loop(port: int, request: bytes, rate: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Requests at ``rate`` a second: the milliseconds of each from its arrival, and its status (0: cut off)."""
    loop = asyncio.get_running_loop()
    idle: list[Caller] = []
    draw = random.Random(0)
    results: list[tuple[float, int]] = []

    async def one(arrival: float) -> None:
        if idle:
            caller = idle.pop()
        else:
            _, caller = await loop.create_connection(lambda: Caller(idle), "127.0.0.1", port)
        caller.answered = loop.create_future()
        caller.transport.write(request)
        status = await caller.answered
        results.append(((loop.time() - arrival) * 1000, status))

    arrival = loop.time()
    end = arrival + seconds
    async with asyncio.TaskGroup() as group, asyncio.timeout(seconds + 60):
        while arrival < end:
            arrival += draw.expovariate(rate)
            if (wait := arrival - loop.time()) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(arrival))
    for caller in idle:
        caller.transport.close()
    milliseconds, statuses = zip(*results, strict=True)
    return np.array(milliseconds), np.array(statuses)


def beside_a_neighbour(seconds: float) -> list[str]:
    """A row for each form of the neighbour's requests."""
    rows = ["| neighbour sends | p50 ms | p99 ms | p99 to that without neighbour |", "|---|---|---|---|"]
    single = as_bytes(*bodies(1)["raw pixels"])

    def measure(port: int) -> np.ndarray:
        milliseconds, statuses = uvloop.run(open_loop(port, single, SINGLES, seconds))
        if set(statuses) != {200}:
            raise click.ClickException("a single digit was refused")
        return milliseconds

    with service() as (port, _):
        measure(port)
        for form in ("raw pixels", "OIP binary", "JSON", "OIP JSON"):
            alone = measure(port)
            with neighbour(port, as_bytes(*bodies(THOUSAND)[form])) as done:
                beside = measure(port)
            if not done or set(done) != {200}:
                raise click.ClickException(f"the neighbour got {done}")
            before, after = np.percentile(alone, 99), np.percentile(beside, 99)
            rows.append(f"| nothing | {np.median(alone):.2f} | {before:.2f} | 1 |")
            rows.append(
                f"| {THOUSAND} images as {form}, {len(done) / seconds:.1f} times a second "
                f"| {np.median(beside):.2f} | {after:.2f} | {after / before:.1f} |"
            )
            click.echo(rows[-1], err=True)
    return rows


def overload(seconds: float) -> list[str]:
    """Rows at a tenth of the best throughput, at half, at all of it, and at twice."""
    rows = [
        "| load | offered/s | accepted/s | 429 | p50 ms | p99 ms of the accepted | p99 to unloaded | memory MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    path, kind, body, headers = bodies(1)["raw pixels"]
    request = as_bytes(path, kind, body, headers)
    unloaded = None
    with service() as (port, pid):
        best = wrk(f"http://127.0.0.1:{port}{path}", kind, body, headers, int(seconds))
        for share in (0.1, 0.5, 1, 2):
            milliseconds, statuses = uvloop.run(open_loop(port, request, share * best, seconds))
            if strange := set(statuses) - {200, 429}:
                raise click.ClickException(f"answers with status {strange}")
            accepted = milliseconds[statuses == 200]
            p99 = np.percentile(accepted, 99)
            unloaded = unloaded or p99
            rows.append(
                f"| {share:g} of the best | {len(statuses) / seconds:.0f} | {len(accepted) / seconds:.0f}, "
                f"{len(accepted) / seconds / best:.0%} of the best | {(statuses == 429).sum()} "
                f"| {np.median(accepted):.2f} | {p99:.2f} | {p99 / unloaded:.1f} | {resident(pid):.0f} |"
            )
            click.echo(rows[-1], err=True)
    return [f"The best is {best:.0f} requests a second (closed loop, wrk).", "", *rows]


@click.command()
@click.option("--seconds", default=5, show_default=True, help="Each measure lasts so long.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the tables here too.")
def main(seconds: int, save: Path | None) -> None:
    """Measure, and print two tables."""
    # As the load generator: beside the service, not in its way.
    os.sched_setaffinity(0, {1})
    lines = [
        where("clients"),
        "",
        "**A single digit beside a neighbour with large batches**",
        "",
        *beside_a_neighbour(seconds),
        "",
        "**More requests than can be carried**, single digits as raw pixels",
        "",
        *overload(seconds),
    ]
    tell(lines, save)


if __name__ == "__main__":
    main()

"""Send 100,000 hostile requests and, at the same time, valid ones. Report what the service did.

    python -m benchmarks.abuse [--requests 100000] [--seed 0] [--save benchmarks/results/abuse.md]

Memory varies with the requests in flight, so it is read a hundred times. The median of the last ten readings is
compared with the median of the second ten. The first ten do not count, because the service runs most of its code for
the first time then.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import uvloop

from benchmarks.harness import Request, golden_digits, run_service, service_conditions
from benchmarks.hostile import hostile_requests
from benchmarks.report import tell

# Seconds to wait for a response. A request that has none after this time is a failure of the service.
TIMEOUT = 60.0


@dataclass
class Outcome:
    """What the service did."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Hostile requests by status of the response; "closed" if the service closed the connection without a response."""
    failures: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Kind of each hostile request that made the service fail, how it failed, and what was sent."""
    right: int = 0
    """Valid requests with the right prediction."""
    wrong: list[bytes] = field(default_factory=list)
    """Responses to valid requests that were not the right prediction."""


async def status_of(host: str, port: int, content: bytes) -> str:
    """Send ``content`` over a new connection and return the status of the response, or "closed"."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(content)
        # The service must notice that the client closes its side, even if the request is not complete.
        writer.write_eof()
        response = await reader.read(65536)
        # "100 Continue" comes before the response itself.
        while (
            response.startswith(b"HTTP/1.1 100") and response.endswith(b"\r\n\r\n") and response.count(b"HTTP/1.1") == 1
        ):
            more = await reader.read(65536)
            if not more:
                break
            response = more
        return response[9:12].decode("latin-1") if response.startswith(b"HTTP/1.1 ") else "closed"
    except ConnectionError:
        return "closed"
    finally:
        writer.close()


async def attack(
    host: str,
    port: int,
    images: np.ndarray,
    labels: np.ndarray,
    count: int,
    *,
    seed: int = 0,
    concurrency: int = 12,
    progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Send ``count`` hostile requests and, at the same time, valid ones whose predictions must be right."""
    outcome = Outcome()
    requests = hostile_requests(images, seed)
    sent = 0

    async def send_hostile() -> None:
        nonlocal sent
        while sent < count:
            sent += 1
            progress(sent)
            kind, content = next(requests)
            try:
                async with asyncio.timeout(TIMEOUT):
                    status = await status_of(host, port, content)
            except TimeoutError:
                outcome.failures.append((kind, "no response", content))
                continue
            outcome.statuses[status] += 1
            if status.startswith("5") or not (status.isdigit() or status == "closed"):
                outcome.failures.append((kind, status, content))

    async def send_valid() -> None:
        number = 0
        reader, writer = await asyncio.open_connection(host, port)
        while sent < count:
            number = (number + 1) % len(images)
            writer.write(Request("/predict", "application/octet-stream", images[number].tobytes()).as_bytes())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            # The hostile requests are a load, so the service may reject valid requests with 429.
            if head[9:12] == b"429":
                continue
            if head[9:12] == b"200" and json.loads(body)["predictions"][0]["digit"] == labels[number]:
                outcome.right += 1
            else:
                outcome.wrong.append(head + body)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(send_hostile())
        for _ in range(2):
            group.create_task(send_valid())
    return outcome


@click.command()
@click.option(
    "--requests",
    default=100_000,
    show_default=True,
    type=click.IntRange(min=100),
    help="Number of hostile requests to send.",
)
@click.option("--seed", default=0, show_default=True, help="Random seed of the hostile requests.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the table to this file too.")
def main(requests: int, seed: int, save: Path | None) -> None:
    """Send hostile requests and print a table; exit with status 1 if the service failed in any way."""
    images, labels = golden_digits()
    memory: list[float] = []
    with run_service() as service:
        started = time.perf_counter()

        def progress(sent: int) -> None:
            if sent % (requests // 100) == 0:
                memory.append(service.memory())
                if sent % (requests // 10) == 0:
                    click.echo(f"{sent} requests, {memory[-1]:.1f} MB, {time.perf_counter() - started:.0f} s", err=True)

        outcome = uvloop.run(attack("127.0.0.1", service.port, images, labels, requests, seed=seed, progress=progress))
        seconds = time.perf_counter() - started
    first, last = statistics.median(memory[10:20]), statistics.median(memory[-10:])
    rate = (requests + outcome.right) / 3600
    lines = [
        service_conditions("clients"),
        "",
        f"{requests} hostile requests and {outcome.right} valid ones in {seconds:.0f} s. "
        f"A service with {rate:.0f} requests per second gets as many in an hour.",
        "",
        "| response status | hostile requests |",
        "|---|---|",
        *(f"| {status} | {count} |" for status, count in sorted(outcome.statuses.items())),
        "",
        '"closed": the service closed the connection without a response.',
        "",
        "- failures (hostile requests with a status of 500 or above, or still without a response after "
        f"{TIMEOUT:.0f} s): {len(outcome.failures)}",
        f"- valid requests with a wrong response: {len(outcome.wrong)}",
        f"- memory: {first:.1f} MB in the second tenth of the run, {last:.1f} MB in the last tenth "
        f"({last / first - 1:+.1%}), at most {max(memory):.1f} MB",
    ]
    tell(lines, save)
    for kind, failure, content in outcome.failures[:10]:
        click.echo(f"{kind}: {failure}: {content[:300]!r}", err=True)
    sys.exit(bool(outcome.failures or outcome.wrong))


if __name__ == "__main__":
    main()

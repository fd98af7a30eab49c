"""Compare the speed of the service with a bare ASGI function that does the same work, or with another checkout.

    python -m benchmarks.serving [--seconds 3] [--save benchmarks/results/serving.md]
    python -m benchmarks.serving --against FOLDER
    python -m benchmarks.serving --cost traces --cost shadow

With --cost, it measures what optional parts of the service cost (see benchmarks/costs.py). Needs wrk, h2load and
taskset (Debian: wrk, nghttp2-client, util-linux) and two cores. Both servers run on core 0 at the same time, and wrk on
core 1 sends requests to one of them at a time; h2load does so over gRPC. The rounds alternate between the servers, so
that other work on the machine slows both of them.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
from collections import Counter
from pathlib import Path

import click

from benchmarks.costs import VARIANTS, cost_tables
from benchmarks.harness import (
    BIN,
    CONNECTIONS,
    PACKAGED_MODEL,
    ROOT,
    Request,
    example_requests,
    free_port,
    grpc_per_second,
    grpc_requests,
    need,
    requests_per_second,
    run_server,
    run_service,
    service_conditions,
    wait_until_idle,
)
from benchmarks.report import Checkout, save_option, tell

# The path of the bare ASGI function for each kind of body that it reads.
BARE_PATHS = {"raw pixels": "/", "JSON": "/json"}


def compare_with_bare_function(name: str, repository: Path, seconds: int, rounds: int, batches: list[int]) -> list[str]:
    """Return a table with a row for each kind of body and batch size, under a line with start time and memory."""
    start = []
    for _ in range(rounds):
        with run_service("--repository", repository) as service:
            start.append(service.start_seconds)
    port = free_port()
    command = [BIN / "uvicorn", "benchmarks.bare_asgi:app", "--port", port, "--no-access-log", "--log-level", "error"]
    rows = []
    with (
        run_service("--repository", repository) as service,
        run_server(command, port, MNIST_REPOSITORY=str(repository)) as bare,
    ):
        for batch in batches:
            for kind, request in example_requests(batch).items():
                speeds, bare_speeds = [], []
                for _ in range(rounds):
                    speeds.append(requests_per_second(service.port, request, seconds))
                    # Requests that wrk has left count in the limit of those that follow.
                    wait_until_idle(service.port)
                    if path := BARE_PATHS.get(kind):
                        same = Request(path, request.content_type, request.body)
                        bare_speeds.append(requests_per_second(bare.port, same, seconds))
                speed = statistics.median(speeds)
                row = f"| {kind} | {batch} | {speed:.0f} | {speed * batch:.0f} |"
                if bare_speeds:
                    bare_speed = statistics.median(bare_speeds)
                    row += f" {bare_speed:.0f} | {speed / bare_speed:.0%} |"
                else:
                    row += " | |"
                rows.append(row)
                click.echo(row, err=True)
        memory = service.memory()
    rows += grpc_rows(repository, seconds, rounds, batches)
    return [
        f"**{name}**: ready {statistics.median(start):.2f} s after the start of the process; "
        f"{memory:.0f} MB of memory after the measurements.",
        "",
        "| request body | images per request | requests/s | images/s | bare ASGI function, requests/s "
        "| service / bare function |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def grpc_rows(repository: Path, seconds: int, rounds: int, batches: list[int]) -> list[str]:
    """Return a row for each form of gRPC and batch size, each compared with the binary form over HTTP."""
    rows = []
    grpc_port = free_port()
    with run_service("--repository", repository, "--grpc-port", grpc_port) as service:
        for batch in batches:
            binary = example_requests(batch)["Open Inference binary"]
            for form, message in grpc_requests(batch).items():
                speeds, ratios = [], []
                for _ in range(rounds):
                    speeds.append(grpc_per_second(service.port, grpc_port, message, seconds))
                    wait_until_idle(service.port)
                    ratios.append(speeds[-1] / requests_per_second(service.port, binary, seconds))
                    wait_until_idle(service.port)
                speed = statistics.median(speeds)
                share = f"{statistics.median(ratios):.0%} of Open Inference binary over HTTP"
                rows.append(f"| {form} | {batch} | {speed:.0f} | {speed * batch:.0f} | | {share} |")
                click.echo(rows[-1], err=True)
    return rows


def compare_with_checkout(other: Path, seconds: int, rounds: int, batches: list[int]) -> list[str]:
    """Return a table of this checkout and ``other``, each with its packaged model: speed, start time and memory.

    Every round starts both services anew. The order of the two changes from round to round.
    """
    figures: dict[str, dict[Path, list[float]]] = {}

    def record(name: str, checkout: Path, figure: float) -> None:
        figures.setdefault(name, {ROOT: [], other: []})[checkout].append(figure)

    for number in range(rounds):
        order = [ROOT, other] if number % 2 == 0 else [other, ROOT]
        with contextlib.ExitStack() as stack:
            services = {checkout: stack.enter_context(run_service(folder=checkout)) for checkout in order}
            for batch in batches:
                for kind, request in example_requests(batch).items():
                    for checkout in order:
                        speed = requests_per_second(services[checkout].port, request, seconds)
                        record(f"requests/s: {kind}, {batch} {'image' if batch == 1 else 'images'}", checkout, speed)
            for checkout in order:
                record("MB of memory per worker", checkout, services[checkout].memory())
                record("seconds from start to ready", checkout, services[checkout].start_seconds)
        click.echo(f"round {number + 1} of {rounds} is done", err=True)
    rows = []
    for name, by_checkout in figures.items():
        ratios = [this / that for this, that in zip(by_checkout[ROOT], by_checkout[other], strict=True)]
        medians = [statistics.median(by_checkout[checkout]) for checkout in (ROOT, other)]
        this, that = (f"{median:.0f}" if median >= 10 else f"{median:.2f}" for median in medians)
        rows.append(
            f"| {name} | {this} | {that} | {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |"
        )
    return [
        f"Medians of {rounds} rounds. A ratio is this checkout / the other one, in the same round. "
        "Above 1, speed is better; below 1, memory and start time are better.",
        "",
        "| figure | this checkout | the other checkout | median ratio | lowest to highest ratio |",
        "|---|---|---|---|---|",
        *rows,
    ]


# Patterns for a frame in py-spy's form, "function (file:line)", and the part of the program that the frame belongs to.
# Time counts for the innermost frame that matches any pattern. Of several patterns that match, the first counts.
PARTS = {
    r"onnxruntime/": "inference in onnxruntime",
    r"\w*(sen[dt]|write|respond)\w* \((uvicorn/|serving/server/protocol\.py)": "writing the response",
    r"uvicorn/|asyncio/|serving/server/protocol\.py": "uvicorn and uvloop, everything else",
    r"litestar/": "Litestar: routing, handler arguments, exception handling",
    r"serving/telemetry/|prometheus_client/": "metrics",
    r"serving/api/(middleware|context)\.py": "request id and response headers",
    r"serving/(api|inference|pictures|models)/": "decode, queue and encode",
    r"serving/": "other parts of the service",
}


def part_of(stack: str) -> str:
    """Return the part of the program that a stack of py-spy was in; the frames are separated by semicolons."""
    for frame in reversed(stack.split(";")):
        for pattern, part in PARTS.items():
            if re.search(pattern, frame):
                return part
    return "everything else"


def profile(seconds: int) -> list[str]:
    """Return a table of the parts of the program and their shares of the time, as sampled by py-spy."""
    shares: Counter[str] = Counter()
    with run_service() as service, tempfile.NamedTemporaryFile("r") as stacks:
        request = example_requests(1)["raw pixels"]
        load = threading.Thread(target=requests_per_second, args=(service.port, request, seconds + 2))
        load.start()
        command = ["py-spy", "record", "--pid", service.pid, "--duration", seconds, "--rate", 250, "--format", "raw"]
        subprocess.run([*map(str, command), "--output", stacks.name], check=True, capture_output=True)
        load.join()
        for line in stacks:
            stack, _, count = line.rpartition(" ")
            # Only the thread that runs uvicorn works on the requests.
            if "uvicorn/" in stack:
                shares[part_of(stack)] += int(count)
    return [
        "**Where the time of a request goes** (cnn, raw pixels, one image per request; py-spy, innermost frame):",
        "",
        "| part of the program | share of the time |",
        "|---|---|",
        *(f"| {part} | {count / shares.total():.0%} |" for part, count in shares.most_common()),
    ]


@click.command()
@click.option(
    "--seconds", default=3, show_default=True, type=click.IntRange(min=1), help="Duration of each measurement."
)
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Measurements for each figure; the median is reported.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(min=1),
    default=(1, 8, 64),
    show_default=True,
    help="Images per request.",
)
@click.option(
    "--mlp", type=click.Path(path_type=Path, exists=True), help="Folder of a published mlp version to measure too."
)
@click.option("--profile", "profiled", is_flag=True, help="Also report where the time goes; needs py-spy.")
@click.option(
    "--against",
    type=Checkout(),
    help="Compare with the checkout in this folder, instead of with the bare ASGI function.",
)
@click.option(
    "--cost", "parts", multiple=True, type=click.Choice(list(VARIANTS)), help="Measure what this part costs instead."
)
@save_option
def main(
    seconds: int,
    rounds: int,
    batches: tuple[int, ...],
    mlp: Path | None,
    profiled: bool,
    against: Path | None,
    parts: tuple[str, ...],
    save: Path | None,
) -> None:
    """Measure the service and print tables."""
    need("wrk", "h2load", "taskset", *(["py-spy"] if profiled else []))
    lines = [service_conditions(f"wrk with {CONNECTIONS} connections")]
    if parts:
        lines += cost_tables(parts, seconds, rounds)
    elif against:
        lines += ["", *compare_with_checkout(against, seconds, rounds, list(batches))]
    else:
        models = {"cnn, the packaged model": PACKAGED_MODEL} | ({"mlp": mlp} if mlp else {})
        for name, folder in models.items():
            with tempfile.TemporaryDirectory() as repository:
                shutil.copytree(folder, Path(repository) / "mnist" / "1")
                lines += ["", *compare_with_bare_function(name, Path(repository), seconds, rounds, list(batches))]
    if profiled:
        lines += ["", *profile(2 * seconds)]
    tell(lines, save)


if __name__ == "__main__":
    main()

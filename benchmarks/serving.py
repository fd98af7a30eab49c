"""Speed of the service: one pinned worker, one pinned wrk, beside a bare ASGI function that does the same.

    python -m benchmarks.serving [--seconds 3] [--save benchmarks/results/serving.md]

Needs wrk and taskset (Debian: wrk, util-linux) and two cores. The service and the floor run at once on
the same core, and each row's rounds alternate between them, so that a noisy machine is noisy for both;
the ratio is that of the medians.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
from benchmarks.report import conditions, tell
from serving.models import bundle
from serving.settings import RELEASE

BIN = Path(sys.executable).parent
CONNECTIONS = 8

LUA = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
wrk.headers["Content-Type"] = "{kind}"
{headers}
file:close()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextlib.contextmanager
def process(command: list[object], url: str, **environment: str) -> Iterator[tuple[int, float]]:
    """A server pinned to core 0: its process id, and seconds from its start until it was ready."""
    line = ["taskset", "-c", "0", *map(str, command)]
    started = time.perf_counter()
    running = subprocess.Popen(
        line, env=os.environ | environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                urllib.request.urlopen(url)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                if running.poll() is not None:
                    raise click.ClickException(f"{line} did not start") from None
                time.sleep(0.005)
        yield running.pid, time.perf_counter() - started
    finally:
        running.terminate()
        running.wait()


def digits(count: int) -> np.ndarray:
    """Real digits: the packaged golden set, again and again."""
    with np.load(RELEASE / "mnist" / "1" / bundle.GOLDEN) as golden:
        images = golden["images"]
    return np.resize(images, (count, 28, 28))


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def bodies(batch: int) -> dict[str, tuple[str, str, bytes, dict[str, str]]]:
    """Path, content type, body and headers by the name of the form."""
    images = digits(batch)
    tensor = {"name": "images", "shape": [batch, 28, 28], "datatype": "UINT8"}
    head = json.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": images.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    forms = {
        "raw pixels": ("/predict", "application/octet-stream", images.tobytes(), {}),
        "JSON": ("/predict", "application/json", json.dumps({"images": images.tolist()}).encode(), {}),
        "OIP JSON": (
            "/v2/models/mnist/infer",
            "application/json",
            json.dumps({"inputs": [tensor | {"data": images.ravel().tolist()}]}).encode(),
            {},
        ),
        "OIP binary": (
            "/v2/models/mnist/infer",
            "application/octet-stream",
            head + images.tobytes(),
            {"Inference-Header-Content-Length": str(len(head))},
        ),
    }
    if batch == 1:
        forms["PNG"] = ("/predict", "image/png", png(images[0]), {})
    return forms


def wrk(url: str, kind: str, body: bytes, headers: dict[str, str], seconds: float) -> float:
    """Requests a second from a pinned wrk; fails on any answer but 200, and on any that did not come."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(body)
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        script = Path(folder) / "post.lua"
        script.write_text(LUA.format(body=Path(folder) / "body", kind=kind, headers=lines))
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise click.ClickException(f"{url} refused: {said}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]


def resident(pid: int) -> float:
    """MB of memory."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1000  # type: ignore[index]


def where(load: str) -> str:
    """The conditions of figures of the service."""
    return conditions("litestar", "uvicorn", "onnxruntime", "numpy", also=f"server on core 0, {load} on core 1")


def compare(repository: Path, seconds: int, rounds: int, batches: list[int]) -> tuple[list[str], float, float]:
    """A row for each form and batch; the median of the seconds to ready; memory at the end."""
    ours, floor = free_port(), free_port()
    service = [BIN / "mnist-serve", "--port", ours, "--repository", repository, "--log-level", "error"]
    bare = [BIN / "uvicorn", "benchmarks.floor:app", "--port", floor, "--no-access-log", "--log-level", "error"]
    rows, starts = [], []
    for _ in range(rounds):
        with process(service, f"http://127.0.0.1:{ours}/v2/health/ready") as (_, ready):
            starts.append(ready)
    with (
        process(service, f"http://127.0.0.1:{ours}/v2/health/ready") as (pid, _),
        process(bare, f"http://127.0.0.1:{floor}/", MNIST_REPOSITORY=str(repository)),
    ):
        for batch in batches:
            for form, (path, kind, body, headers) in bodies(batch).items():
                base = "/json" if form == "JSON" else "/"
                taken: list[tuple[float, float]] = []
                compared = form in ("raw pixels", "JSON")
                for _ in range(rounds):
                    mine = wrk(f"http://127.0.0.1:{ours}{path}", kind, body, headers, seconds)
                    theirs = wrk(f"http://127.0.0.1:{floor}{base}", kind, body, headers, seconds) if compared else 0.0
                    taken.append((mine, theirs))
                mine, theirs = (statistics.median(column) for column in zip(*taken, strict=True))
                ratio = f"{theirs:.0f} | {mine / theirs:.0%}" if compared else "| "
                rows.append(f"| {form} | {batch} | {mine:.0f} | {mine * batch:.0f} | {ratio} |")
                click.echo(rows[-1], err=True)
        return rows, statistics.median(starts), resident(pid)


# Whose time it is, by the innermost frame that one of these finds.
OWNERS = {
    r"onnxruntime/": "the model, in onnxruntime",
    r"(send|_sent_whole) \((uvicorn/|serving/server/run\.py)": "writing the answer",
    r"uvicorn/|asyncio/|serving/server/run\.py": "uvicorn and uvloop, the rest",
    r"litestar/": "litestar: routing, the handler's arguments, its exception layer",
    r"serving/telemetry/(metrics|recorder|histogram)\.py|prometheus_client/": "metrics",
    r"serving/api/middleware\.py": "request id and headers",
    r"serving/": "decode, queue, encode",
}


def profile(repository: Path, seconds: int) -> list[str]:
    """Where the time of a raw-pixels request goes, as py-spy sees it: a row for each owner."""
    port = free_port()
    service = [BIN / "mnist-serve", "--port", port, "--repository", repository, "--log-level", "error"]
    path, kind, body, headers = bodies(1)["raw pixels"]
    shares: Counter[str] = Counter()
    with (
        process(service, f"http://127.0.0.1:{port}/v2/health/ready") as (pid, _),
        tempfile.NamedTemporaryFile("r") as stacks,
    ):
        load = threading.Thread(target=wrk, args=(f"http://127.0.0.1:{port}{path}", kind, body, headers, seconds + 2))
        load.start()
        command = ["py-spy", "record", "--pid", pid, "--duration", seconds, "--rate", 250, "--format", "raw"]
        subprocess.run([*map(str, command), "--output", stacks.name], check=True, capture_output=True)
        load.join()
        for line in stacks:
            frames, _, count = line.rpartition(" ")
            # The other threads wait.
            if "uvicorn/" in frames:
                found = (
                    owner
                    for frame in reversed(frames.split(";"))
                    for known, owner in OWNERS.items()
                    if re.search(known, frame)
                )
                shares[next(found)] += int(count)
    return [f"| {owner} | {count / shares.total():.0%} |" for owner, count in shares.most_common()]


def as_repository(folder: Path, model: Path) -> Path:
    """A repository with the bundle ``model`` as version 1 of ``mnist``."""
    shutil.copytree(model, folder / "mnist" / "1")
    return folder


@click.command()
@click.option("--seconds", default=3, show_default=True, help="Each measure lasts so long.")
@click.option("--rounds", default=3, show_default=True, help="Each figure is the median of so many measures.")
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 8, 64), show_default=True)
@click.option(
    "--mlp", type=click.Path(path_type=Path, exists=True), help="A published bundle of the mlp, to measure too."
)
@click.option("--profile", "profiled", is_flag=True, help="Say where the time goes; needs py-spy.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the table here too.")
def main(
    seconds: int, rounds: int, batches: tuple[int, ...], mlp: Path | None, profiled: bool, save: Path | None
) -> None:
    """Measure, and print a table."""
    for tool in ("wrk", "taskset", *(["py-spy"] if profiled else [])):
        if not shutil.which(tool):
            raise click.ClickException(f"needs {tool}: apt-get install wrk util-linux; pip install py-spy")
    lines = [where(f"wrk with {CONNECTIONS} connections")]
    models = {"cnn, the packaged model": RELEASE / "mnist" / "1"} | ({"mlp": mlp} if mlp else {})
    for name, folder in models.items():
        with tempfile.TemporaryDirectory() as temporary:
            rows, ready, memory = compare(as_repository(Path(temporary), folder), seconds, rounds, list(batches))
        lines += [
            "",
            f"**{name}**: ready {ready:.2f} s after its start, {memory:.0f} MB of memory after the measures.",
            "",
            "| body | images | requests/s | images/s | bare ASGI function, requests/s | ours of it |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    if profiled:
        lines += [
            "",
            "**Where the time of a raw-pixels request goes** (cnn, one image; py-spy, innermost frame):",
            "",
            "| whose | share |",
            "|---|---|",
            *profile(RELEASE, 2 * seconds),
        ]
    tell(lines, save)


if __name__ == "__main__":
    main()

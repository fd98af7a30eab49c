"""Change the replicas of the running containers under load, again and again, and count the requests that are lost.

    docker compose up --detach
    python -m benchmarks.rolls [--times 10] [--url http://127.0.0.1:8000] [--save benchmarks/results/rolls.md]

Each change is a roll (deploy/roll) or a change of the number of replicas, up to twice as many and back. During all of
it, four clients send predictions without pause: two keep their connection, and two open a new one for each request. A
response other than 200 or an error counts as lost.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import httpx

from benchmarks.harness import ROOT
from benchmarks.report import conditions, save_option, tell

CLIENTS = 4
# Seconds of load after a change, so that the load balancer uses the new replicas.
AFTERWARDS = 3.0
PIXELS = {"content-type": "application/octet-stream"}


class Load:
    """Clients that send predictions without pause. ``outcomes`` counts status codes and errors."""

    def __init__(self, url: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._send, args=[number % 2 == 0]) for number in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, keeps: bool) -> None:
        client = httpx.Client(timeout=30)
        while not self._stop.is_set():
            try:
                response = client.post(f"{self._url}/predict", content=bytes(784), headers=PIXELS)
                self.outcomes[str(response.status_code)] += 1
            except httpx.HTTPError as error:
                self.outcomes[type(error).__name__] += 1
            if not keeps:
                client.close()
                client = httpx.Client(timeout=30)
        client.close()


def compose(*arguments: str) -> str:
    """Run Compose, version 2 or else 1, and return its output."""
    new = subprocess.run(["docker", "compose", "version"], capture_output=True, cwd=ROOT).returncode == 0
    line = [*(["docker", "compose"] if new else ["docker-compose"]), *arguments]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise click.ClickException(f"{' '.join(line)}: {done.stderr.strip()}")
    return done.stdout


def replicas() -> list[str]:
    return compose("ps", "-q", "serving").split()


def healthy(number: int) -> bool:
    found = replicas()
    inspected = subprocess.run(["docker", "inspect", *found], capture_output=True, text=True).stdout
    states = [each["State"].get("Health", {}).get("Status") for each in json.loads(inspected or "[]")]
    return states == ["healthy"] * number


def scale(number: int) -> None:
    """Change the number of replicas, and wait until all of them are healthy."""
    options = ("--detach", "--no-build", "--no-deps", "--no-recreate", "--scale", f"serving={number}")
    compose("up", *options, "serving")
    limit = time.monotonic() + 120
    while not healthy(number):
        if time.monotonic() > limit:
            raise click.ClickException(f"{number} replicas did not become healthy within 120 s: docker compose ps")
        time.sleep(0.5)


def roll() -> None:
    done = subprocess.run([ROOT / "deploy" / "roll"], capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"deploy/roll: {done.stderr.strip()}")


def measured(name: str, changes: list[Callable[[], None]], load: Load) -> str:
    """Return a row of the table: each change is made under load."""
    before, seconds, losses = Counter(load.outcomes), [], 0
    for change in changes:
        lost, started = load.outcomes.total() - load.outcomes["200"], time.monotonic()
        change()
        seconds.append(time.monotonic() - started)
        time.sleep(AFTERWARDS)
        losses += load.outcomes.total() - load.outcomes["200"] > lost
    counted = load.outcomes - before
    others = ", ".join(f"{outcome} {count}" for outcome, count in sorted(counted.items()) if outcome != "200")
    middle = f"{statistics.median(seconds):.0f} | {max(seconds):.0f}"
    return f"| {name} | {len(changes)} | {counted['200']} | {others or 'none'} | {losses} | {middle} |"


@click.command()
@click.option(
    "--times", default=10, show_default=True, type=click.IntRange(min=1), help="How often to make each change."
)
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Address of the load balancer.")
@save_option
def main(times: int, url: str, save: Path | None) -> None:
    """Change the replicas of the running containers under load, and print how many requests were lost."""
    number = len(replicas())
    if not number:
        raise click.ClickException("no replica is running. Start the service first: docker compose up --detach")
    scale(number)
    rows = []
    with Load(url) as load:
        rows.append(measured("deploy/roll", [roll] * times, load))
        ups: list[Callable[[], None]] = [lambda: scale(2 * number)]
        downs: list[Callable[[], None]] = [lambda: scale(number)]
        rows.append(measured(f"{number} to {2 * number} replicas, and back", (ups + downs) * times, load))
    versions = f"engine {engine()}, Compose {compose('version', '--short').strip()}, HAProxy {haproxy()}"
    tell(
        [
            conditions("httpx", also=versions),
            "",
            "| change | number | requests with 200 | lost | changes that lost any | median (s) | longest (s) |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ],
        save,
    )
    if any("| none | 0 |" not in row for row in rows):
        sys.exit(1)


def engine() -> str:
    line = ["docker", "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def haproxy() -> str:
    return compose("exec", "-T", "haproxy", "haproxy", "-v").split()[2]


if __name__ == "__main__":
    main()

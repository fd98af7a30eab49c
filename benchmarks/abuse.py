"""Run every attack of benchmarks/attacks.py and grpc_attacks.py on the service, and print what each attack did to it.

    python -m benchmarks.abuse [--seconds 4] [--requests 10000] [--attack NAME]... [--save benchmarks/results/abuse.md]

Each attack runs for some seconds against a new service with one worker. At the same time, good requests are sent, each
kind over its own connection. The budgets are the constants below. The command ends with status 1 if an attack breaks a
budget. The row "nothing" has only the good requests. It shows the times of the machine without an attack.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import uvloop

from benchmarks import footprint, watched
from benchmarks.attacks import ATTACKS, RANDOM, Attack, Together, described, run_random, summary
from benchmarks.bystanders import Bystander, bystanders
from benchmarks.clients import Outcome
from benchmarks.grpc_attacks import GRPC_ATTACKS, GrpcAttack, grpc_bystanders
from benchmarks.harness import Server, free_port, run_server, service_conditions
from benchmarks.report import save_option, tell

# The largest memory of a worker, its processes and its temporary files, in MB.
MEMORY = 256
# The longest time for which one request may block the event loop, in seconds.
BLOCKED = 0.050
# The longest time for which the service may work on a request: its default --work-timeout, and a second.
WORK = 6.0
# The longest time until a good request has its right response, in seconds.
GOOD = 1.0

ALL: dict[str, Attack | Together | GrpcAttack] = {**ATTACKS, **GRPC_ATTACKS}

# Seconds to wait for a service that still works after the attack, and for one that has to stop.
LONGEST_WORK = 2 * WORK
LONGEST_STOP = 10.0

COLUMNS = (
    *("attack", "memory (MB)", "memory after", "loop blocked (ms)", "loop late (ms)", "slowest response (s)"),
    *("busy after (s)", "slowest good request (s)", "good requests: right, rejected, lost, wrong"),
    *("responses to the attack", "over budget"),
)

TEXT = f"""\
Budgets: {MEMORY} MB of memory; {BLOCKED * 1000:.0f} ms for which one request blocks the event loop; {WORK:.0f} s until
the response, and until the service is idle after the attack; {GOOD:.0f} s until a good request has its right response,
rejected tries included.
"""


@dataclass(frozen=True)
class Result:
    """What an attack did to the service. Times are in seconds, memory in MB."""

    name: str
    memory: float
    memory_after: float
    blocked: float
    late: float
    busy: float
    alive: bool
    outcome: Outcome
    good: Sequence[Bystander]
    where: str
    """The stack of the step that blocked the event loop for longest."""

    @property
    def slowest(self) -> float:
        return max(self.outcome.seconds.values(), default=0.0)

    @property
    def slowest_good(self) -> float:
        return max(each.longest for each in self.good)

    def broken(self) -> list[str]:
        """Return the names of the budgets that the attack broke."""
        rules = {
            "died": not self.alive,
            "memory": self.memory > MEMORY,
            "event loop": self.blocked > BLOCKED,
            "work": max(self.slowest, self.busy) > WORK,
            "good requests late": self.slowest_good > GOOD,
            "good requests wrong": any(each.wrong or not each.right for each in self.good),
            "responses": bool(self.outcome.failures),
        }
        return [name for name, is_broken in rules.items() if is_broken]

    def row(self) -> str:
        good = " ".join(str(sum(values)) for values in zip(*map(counts, self.good), strict=True))
        cells = [
            self.name,
            f"{self.memory:.0f}",
            f"{self.memory_after:.0f}",
            f"{self.blocked * 1000:.0f}",
            f"{self.late * 1000:.0f}",
            f"{self.slowest:.1f}",
            f"{self.busy:.1f}",
            f"{self.slowest_good:.2f}",
            good,
            summary(self.outcome),
            ", ".join(self.broken()) or "no",
        ]
        return f"| {' | '.join(cells)} |"

    def details(self) -> Iterator[str]:
        """Yield lines that help to find why budgets were broken."""
        broken = self.broken()
        yield from (f"{name}: {seconds:.1f} s" for name, seconds in self.outcome.seconds.items() if seconds > WORK)
        if "event loop" in broken and self.where:
            yield f"the event loop was blocked here for {self.where}"
        yield from described(self.outcome.failures)
        for each in self.good:
            if each.wrong or each.longest > GOOD:
                yield f"good request, {each.name}: {each.longest:.1f} s, wrong: {each.wrong[:2]}"


def counts(each: Bystander) -> tuple[int, int, int, int]:
    return each.right, each.rejected, each.lost, len(each.wrong)


@contextlib.contextmanager
def watched_service(file: Path, grpc_port: int) -> Iterator[Server]:
    """Run the service with the watchdog of its event loop, which writes into ``file``, and with corrections beside it.

    Args:
        grpc_port: -1 for none.
    """
    port = free_port()
    command: list[object] = [sys.executable, "-m", "benchmarks.watched", file]
    options = ["--port", port, "--log-level", "error", "--drain", 0, "--grace", 1]
    options += ["--grpc-port", grpc_port, "--feedback", file.with_name("feedback")]
    with run_server([*command, *options], port, "/v2/health/ready", stop=LONGEST_STOP) as server:
        yield server


# The attack runs in a process of its own, so that it delays neither the good requests nor the measurement.


def be_attacker() -> None:
    os.nice(5)
    use_last_core()


def use_last_core() -> None:
    """Keep this process off the first core, which the service has for itself."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)


_prepared: dict[str, Any] = {}


def prepare(name: str) -> None:
    if name != RANDOM:
        _prepared[name] = ALL[name].prepared()


def attack(name: str, port: int, seconds: float, count: int, seed: int) -> Outcome:
    """Run an attack and return what the service did."""
    if name == RANDOM:
        return uvloop.run(run_random(port, count, seed))
    return uvloop.run(ALL[name].run(port, _prepared.pop(name), seconds))


async def good_requests_beside(
    port: int, attacking: asyncio.Future[Outcome], grpc_port: int = -1
) -> tuple[Outcome, list[Bystander]]:
    """Send good requests until the attack is over."""
    good = bystanders() + (grpc_bystanders(grpc_port) if grpc_port > 0 else [])
    tasks = [asyncio.create_task(each.stay(port)) for each in good]
    outcome = await attacking
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return outcome, good


def measure(pool: ProcessPoolExecutor, name: str, seconds: float, count: int, seed: int) -> Result:
    """Start a service, attack it, and return what happened."""
    pool.submit(prepare, name).result()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "watch"
        grpc_port = free_port() if name in GRPC_ATTACKS else -1
        with watched_service(file, grpc_port) as service:

            async def phase() -> tuple[Outcome, list[Bystander]]:
                port = grpc_port if grpc_port > 0 else service.port
                arguments = (name, port, seconds, count, seed)
                attacking = asyncio.wrap_future(pool.submit(attack, *arguments))
                return await good_requests_beside(service.port, attacking, grpc_port)

            watched.reset(file)
            with footprint.Footprint(service.pid) as held:
                outcome, good = uvloop.run(phase())
            late, blocked = watched.read(file)
            busy = footprint.seconds_until_idle(service.pid, LONGEST_WORK)
            alive = footprint.resident(service.pid) > 0
            after = sum(map(footprint.resident, footprint.family(service.pid)))
            where = file.with_suffix(".where")
            text = where.read_text() if where.exists() else ""
    return Result(name, held.largest, after, blocked, late, busy, alive, outcome, good, text)


@click.command()
@click.option("--seconds", default=4.0, show_default=True, help="Duration of each attack.")
@click.option(
    "--requests",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=100),
    help=f"Number of hostile requests in the attack {RANDOM!r}.",
)
@click.option("--seed", default=0, show_default=True, help="Random seed of these requests.")
@click.option(
    "--attack",
    "names",
    multiple=True,
    type=click.Choice([*ALL, RANDOM]),
    help="Run only this attack. The option may be repeated.",
)
@save_option
def main(seconds: float, requests: int, seed: int, names: Sequence[str], save: Path | None) -> None:
    """Attack the service and print a table; exit with status 1 if an attack broke a budget."""
    conditions = service_conditions("clients")
    use_last_core()
    results = []
    with ProcessPoolExecutor(1, get_context("spawn"), be_attacker) as pool:
        for name in names or [*ALL, RANDOM]:
            result = measure(pool, name, seconds, requests, seed)
            results.append(result)
            click.echo(result.row(), err=True)
            for line in result.details():
                click.echo(f"    {line}".rstrip().replace("\n", "\n    "), err=True)
    lines = [
        conditions,
        "",
        TEXT,
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(result.row() for result in results),
        "",
        'Responses by status: "closed" if the service closed the connection without one, "none" if there was none. Of '
        'gRPC: "status" and "reset" are calls that the service ended, "closed" are connections.',
    ]
    tell(lines, save)
    sys.exit(any(result.broken() for result in results))


if __name__ == "__main__":
    main()

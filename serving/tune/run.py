"""Tune the service for this machine: the rows of the table while they are measured, and what they say."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.machine import Machine, this_machine
from serving.tune.search import Found, Result, Search, Trial, shown
from serving.tune.service import Measured

# About how many measurements are made for each number of workers, and how many more in all. The starts of the services
# add half of the time of the measurements.
TRIALS_PER_COUNT, MORE_TRIALS, WITH_START = 10, 14, 1.5
# A measurement takes at least and at most this many seconds.
SHORTEST, LONGEST = 0.1, 2.0
# What a worker takes, in bytes, and the share of the memory that the workers may take together.
WORKER_MEMORY, MEMORY_SHARE = 120_000_000, 0.8
# A load average beyond this share of the machine's cores means that other programs work too.
BUSY = 0.25

HEADER = "| workers | connections | images per request | requests/s | images/s | p50 ms | p99 ms | within the p99 |"


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    p99: float
    """In seconds."""
    seconds: float
    """The time of the whole command."""
    picture: Path | None
    arguments: list[str]
    """The settings of the service that are not tuned, as flags."""


def tune(options: Options, say: Callable[[str], None], progress: Callable[[str], None]) -> Found:
    """Measure this machine, and return the settings to use.

    Args:
        say: prints a line of the result.
        progress: shows what is being done; an empty text removes it.

    Raises:
        TuneError: no settings stay within the p99, or the service cannot be measured.
    """
    started = time.monotonic()
    machine = this_machine()
    say(f"This process may use {machine}.")
    if (load := os.getloadavg()[0]) > BUSY * (os.cpu_count() or 1):
        say(f"Other programs use it too (load average {load:.1f}): measure again when they do not.")
    say("")
    say(HEADER)
    say("|---" * HEADER.count(" | ") + "|---|")

    def elapsed() -> float:
        return time.monotonic() - started

    counts = worker_counts(machine)
    trials = TRIALS_PER_COUNT * len(counts) + MORE_TRIALS
    each = min(LONGEST, max(SHORTEST, options.seconds / trials / WITH_START))
    with Measured(options.arguments, options.picture, each) as measured:

        def measure(trial: Trial) -> Result:
            of = f"workers {trial.workers}, connections {trial.connections}, images per request {trial.images}"
            progress(f"{elapsed():.0f} s of at most about {options.seconds:g} s: {of}")
            result = measured.measure(trial)
            progress("")
            say(_row(result, options.p99))
            return result

        search = Search(measure, options.p99, lambda: elapsed() / options.seconds)
        found = search.run(counts, with_batches=options.picture is None)
    say("")
    for line in summary(found, options, measured.share):
        say(line)
    return found


def worker_counts(machine: Machine) -> list[int]:
    """Return the numbers of workers to try: 1, 2, 4 and so on, up to one for each core, as far as memory allows."""
    most = max(1, min(math.ceil(machine.cores), int(machine.memory * MEMORY_SHARE / WORKER_MEMORY)))
    return sorted({*(1 << power for power in range(most.bit_length())), most})


def summary(found: Found, options: Options, share: float) -> list[str]:
    """Return the lines below the table: what the settings reach, its conditions, and the command line."""
    steady, overload = found.steady, found.overload
    several = found.images is not None and found.images > 1
    batch = ["--max-batch", str(found.images)] if several else []
    command = ["mnist-serve", "--workers", str(found.workers), "--max-concurrency", str(found.limit), *batch]
    lines = [
        f"Best within a p99 of {shown(options.p99)}: {steady.rate:,.0f} requests/s, "
        f"p99 {shown(steady.p99)}, with {steady.trial.connections} in flight.",
        f"Overload test with twice the limit ({overload.trial.connections} clients, {found.workers * found.limit} in "
        f"flight): {overload.rate:,.0f} requests/s, p99 {shown(overload.p99)}; {overload.rejected:.0%} of the requests "
        "were rejected with 429.",
    ]
    if several:
        lines.append(f"A request of {found.images} images stays within it when it comes alone.")
    elif found.images:
        lines.append("No request of several images stays within it.")
    if not found.is_whole:
        lines.append("There was no time for more measurements. More time may find better settings: use --seconds.")
    lines.append(
        f"The load ran beside the service and took up to {share:.0%} of a core. Clients on other machines take none."
    )
    return [*lines, "", shlex.join([*command, *options.arguments])]


def _row(result: Result, bound: float) -> str:
    trial = result.trial
    overload = f", limit {trial.limit} for each worker" if trial.limit else ""
    return (
        f"| {trial.workers} | {trial.connections}{overload} | {trial.images} | {result.rate:,.0f} "
        f"| {result.rate * trial.images:,.0f} | {result.p50 * 1000:.2f} | {result.p99 * 1000:.2f} "
        f"| {'yes' if result.p99 <= bound else 'no'} |"
    )

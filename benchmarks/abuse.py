"""A hundred thousand hostile requests, good ones beside them, and what is left of the service.

    python -m benchmarks.abuse [--requests 100000] [--seed 0] [--save benchmarks/results/abuse.md]

Memory goes up and down with what is under way, so it is taken a hundred times, and the median of the last
tenth is compared with that of the second: in the first, every path is walked for the first time.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import click
import numpy as np
import uvloop

ROOT = Path(__file__).parent.parent
from benchmarks.hostile import assault
from benchmarks.load import service
from benchmarks.report import tell
from benchmarks.serving import resident, where
from serving.models import bundle
from serving.settings import RELEASE


@click.command()
@click.option("--requests", default=100_000, show_default=True, type=click.IntRange(min=100), help="Hostile requests.")
@click.option("--seed", default=0, show_default=True, help="They are made from it.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the table here too.")
def main(requests: int, seed: int, save: Path | None) -> None:
    """Attack, and print a table; status 1 if the service failed in any way."""
    with np.load(RELEASE / "mnist" / "1" / bundle.GOLDEN) as golden:
        images, labels = golden["images"], golden["logits"].argmax(axis=1)
    memory: list[float] = []
    with service() as (port, pid):
        started = time.perf_counter()

        def progress(sent: int) -> None:
            if sent % (requests // 100) == 0:
                memory.append(resident(pid))
                if sent % (requests // 10) == 0:
                    click.echo(f"{sent} requests, {memory[-1]:.1f} MB, {time.perf_counter() - started:.0f} s", err=True)

        outcome = uvloop.run(assault("127.0.0.1", port, images, labels, requests, seed=seed, progress=progress))
        seconds = time.perf_counter() - started
    first, last = statistics.median(memory[10:20]), statistics.median(memory[-10:])
    rate = (requests + outcome.right) / 3600
    lines = [
        where("clients"),
        "",
        f"{requests} hostile requests and {outcome.right} good ones in {seconds:.0f} s, "
        f"as many as come in an hour at {rate:.0f} a second.",
        "",
        "| answer | hostile requests |",
        "|---|---|",
        *(f"| {status} | {count} |" for status, count in sorted(outcome.statuses.items())),
        "",
        f"- answers of 500 and above, and requests without any answer: {len(outcome.failures)}",
        f"- wrong answers to good requests: {len(outcome.wrong)}",
        f"- memory: {first:.1f} MB in the second tenth, {last:.1f} MB in the last ({last / first - 1:+.1%}), "
        f"at most {max(memory):.1f}",
    ]
    tell(lines, save)
    for kind, what, sent in outcome.failures[:10]:
        click.echo(f"{kind}: {what}: {sent[:300]!r}", err=True)
    sys.exit(bool(outcome.failures or outcome.wrong))


if __name__ == "__main__":
    main()

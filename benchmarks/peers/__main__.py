"""Measure the service beside other servers of models, with the same model, the same digit, and one core.

    python -m benchmarks.peers [--rounds 3] [--save benchmarks/results/peers.md]
    python -m benchmarks.peers --only LitServe --rounds 1

Needs wrk and taskset (Debian: wrk, util-linux) and two cores. Triton also needs Debian's Python (python3.11-venv).

Each server runs in an environment of its own. The benchmark makes it below build/peers, from the pinned versions in
the folder of the server; all of them take 3 GB. In a round the servers run one after the other, each alone. A server
starts on core 0. Its response to a digit, sent as JSON, must have the probabilities of the packaged model within 1e-5.
Then wrk on core 1 sends this request over 1 connection, and after that over 16.

The table has the medians of the rounds; each ratio is the median of the ratios within a round. "Ready after" is the
time from the start of the process to the end of its first response. Memory and CPU time are those of all processes of a
server. Memory is read after the load, and pages that several processes share are divided between them (PSS).

The rounds are kept in build/peers/rounds.json. --append adds further rounds to them, in the same or in another session.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks.harness import need, service_conditions
from benchmarks.peers.environment import ENVIRONMENTS
from benchmarks.peers.measure import measure, programs
from benchmarks.peers.peers import OURS, PEERS, Peer
from benchmarks.peers.table import Round, losses, plot, save_plot, settings, table
from benchmarks.report import SaveFile, tell

ROUNDS = ENVIRONMENTS / "rounds.json"
ALL = [*OURS, *PEERS]


def measure_round(peers: list[Peer], seconds: int) -> Round:
    """Return the figures of each server, or the reason why there are none."""
    found: Round = {}
    for peer in peers:
        try:
            found[peer.name] = measure(peer, seconds)
        except click.ClickException as error:
            found[peer.name] = error.message
        click.echo(f"{peer.name}: {found[peer.name]}", err=True)
    return found


@click.command()
@click.option(
    "--seconds", default=3, show_default=True, type=click.IntRange(min=1), help="Duration of each measurement."
)
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(min=0),
    help="Rounds to measure; 0 only shows the rounds kept.",
)
@click.option(
    "--only", multiple=True, type=click.Choice([peer.name for peer in PEERS]), help="Measure only these, and ours."
)
@click.option("--append", is_flag=True, help="Add the rounds to those that were measured before.")
@click.option("--install", is_flag=True, help="Only make the environments.")
@click.option("--save", type=SaveFile(), help="Write the table to this file too, and a plot beside it.")
def main(seconds: int, rounds: int, only: tuple[str, ...], append: bool, install: bool, save: Path | None) -> None:
    """Measure the servers and print a table."""
    need("wrk", "taskset")
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    peers = [peer for peer in ALL if not only or peer.name in only or peer in OURS]
    for peer in peers:
        try:
            programs(peer)
        except click.ClickException as error:
            click.echo(f"{peer.name} cannot be installed: {error.message}", err=True)
    if install:
        return
    done: list[Round] = json.loads(ROUNDS.read_text()) if (append or not rounds) and ROUNDS.exists() else []
    if not (done or rounds):
        raise click.UsageError("--rounds 0: no rounds were measured before")
    for _ in range(rounds):
        done.append(measure_round(peers, seconds))
        ROUNDS.write_text(json.dumps(done, indent=1))
    lines = [
        service_conditions("wrk"),
        "",
        f"Rounds: {len(done)}, each with {seconds} s for each server and number of connections.",
        "",
        *table(done, ALL),
        "",
        *settings(ALL),
        "",
        *losses(done, ALL),
    ]
    if save:
        picture = save.with_suffix(".svg")
        save_plot(plot(done, ALL), picture)
        lines += ["", f"![requests per second]({picture.name})"]
    tell(lines, save)


if __name__ == "__main__":
    main()

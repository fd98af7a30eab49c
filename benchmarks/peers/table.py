"""The results as a table and as a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from benchmarks.peers.measure import CONNECTIONS
from benchmarks.peers.peers import OURS, Peer

# One round: the figures of each server by its name, or the reason why there are none.
Round = dict[str, dict[str, float] | str]

MANY = CONNECTIONS[-1]
# The figures of which less is better, by their name in the text.
COSTS = {
    "p99 at 1 connection": "p99 1",
    f"p99 at {MANY} connections": f"p99 {MANY}",
    "CPU time": f"cpu {MANY}",
    "memory": "memory",
    "start": "start",
}


def ours(peer: Peer) -> Peer:
    """Return the row of the service with the same kind of request."""
    [same] = [one for one in OURS if one.kind == peer.kind]
    return same


def measured(rounds: list[Round], peer: Peer) -> list[dict[str, float]]:
    """Return the figures of the rounds in which this server was measured."""
    return [figures for each in rounds if isinstance(figures := each.get(peer.name), dict)]


def median(rounds: list[Round], peer: Peer, figure: str) -> float:
    return statistics.median(figures[figure] for figures in measured(rounds, peer))


def ratio(rounds: list[Round], peer: Peer, figure: str) -> float:
    """Return the median of the ratios, service / peer, each within a round."""
    pairs = [(each.get(ours(peer).name), each.get(peer.name)) for each in rounds]
    return statistics.median(a[figure] / b[figure] for a, b in pairs if isinstance(a, dict) and isinstance(b, dict))


def table(rounds: list[Round], peers: list[Peer]) -> list[str]:
    """Return a table with a row for each server, and under it what differs from the defaults of each."""
    head = ["server"]
    for connections in CONNECTIONS:
        unit = "connection" if connections == 1 else "connections"
        head += [f"requests/s, {connections} {unit}", "mnist-serve / this", "p50 / p99 ms"]
    head += [f"CPU µs per request, {MANY} connections", "memory MB", "ready after s"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for peer in peers:
        if measured(rounds, peer):
            lines.append(f"| {' | '.join(cells(rounds, peer))} |")
        elif reasons := [each[peer.name] for each in rounds if peer.name in each]:
            lines.append(f"| {title(peer)} | not measured: {reasons[-1]} |{' |' * (len(head) - 2)}")
    return lines


def cells(rounds: list[Round], peer: Peer) -> Iterator[str]:
    """Yield the cells of the row of a server that was measured."""
    yield title(peer)
    for connections in CONNECTIONS:
        yield f"{median(rounds, peer, f'requests/s {connections}'):,.0f}"
        goal = f" (goal {peer.goals[connections]:g})" if connections in peer.goals else ""
        yield f"{ratio(rounds, peer, f'requests/s {connections}'):.2f}{goal}" if peer.folder else ""
        yield f"{median(rounds, peer, f'p50 {connections}'):.2f} / {median(rounds, peer, f'p99 {connections}'):.2f}"
    yield f"{median(rounds, peer, f'cpu {MANY}'):.0f}"
    yield f"{median(rounds, peer, 'memory'):.0f}"
    yield f"{median(rounds, peer, 'start'):.1f}"


def title(peer: Peer) -> str:
    return f"{peer.name} {peer.version}".strip()


def settings(peers: list[Peer]) -> list[str]:
    return [f"- {peer.name}: {peer.settings}." for peer in peers if peer.folder]


def losses(rounds: list[Round], peers: list[Peer]) -> list[str]:
    """Return a sentence about each server that is better than the service in one of the figures."""
    lines = []
    for peer in peers:
        if not peer.folder or not measured(rounds, peer):
            continue
        better = [
            f"requests/s at {connections}"
            for connections in CONNECTIONS
            if ratio(rounds, peer, f"requests/s {connections}") < 1
        ]
        better += [name for name, figure in COSTS.items() if ratio(rounds, peer, figure) > 1]
        if better:
            lines.append(f"- {peer.name} is better in: {', '.join(better)}.")
    return lines or ["No server is better than mnist-serve in a figure of the table."]


def plot(rounds: list[Round], peers: list[Peer]) -> Figure:
    """Draw the requests per second of each server, with a bar for each number of connections."""
    shown = [peer for peer in peers if measured(rounds, peer)][::-1]
    figure = Figure(figsize=(8, 0.5 * len(shown) + 1), layout="constrained", facecolor="white")
    axes = figure.subplots()
    height = 0.8 / len(CONNECTIONS)
    for i, connections in enumerate(CONNECTIONS):
        speeds = [median(rounds, peer, f"requests/s {connections}") for peer in shown]
        label = f"{connections} connection{'s' * (connections > 1)}"
        bars = axes.barh([row - i * height for row in range(len(shown))], speeds, height, label=label)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks([row - height / 2 for row in range(len(shown))], [peer.name.replace("`", "") for peer in shown])
    axes.set(xlabel="requests per second on one core, one digit per request")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right")
    return figure


def save_plot(figure: Figure, path: Path) -> None:
    """Write the plot as SVG, equal for equal results."""
    with matplotlib.rc_context({"svg.hashsalt": "peers", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})

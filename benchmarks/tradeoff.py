"""Draw the test accuracy of each network against the seconds of its training, from the saved results.

    python -m benchmarks.tradeoff [--save docs/accuracy-seconds.png]

It measures nothing. The points come from benchmarks/results/accuracy.md (the time of the training alone), speed.md (the
same, for `mnist-train --recipe speed`) and training.md (whole commands, from their start to their end).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

RESULTS = Path(__file__).parent / "results"
# Accuracies that get a line, in per cent.
MARKS = (90, 95, 98, 99, 99.5, 99.7, 99.8)
COLOURS = 32


class Point(NamedTuple):
    """A network with the seconds and the result of its training."""

    name: str
    seconds: float
    errors: float
    """Errors on the test set, in per cent."""
    kind: str
    """What the seconds are of."""


def cells(line: str) -> list[str]:
    """Return the cells of a row of a Markdown table, without the marks of bold text and of code."""
    return [cell.strip(" *`") for cell in line.strip("|").split("|")]


def trainings(text: str) -> Iterator[Point]:
    """Yield the rows of accuracy.md with their seconds on two threads, or else on one."""
    for line in text.splitlines():
        row = cells(line)
        times = re.findall(r"(\d+) on (\d)", row[-1]) if len(row) == 7 else []
        if times:
            accuracy = float(row[4].split()[0])
            seconds, threads = times[-1]
            name = re.sub(r" \(teachers:.*", "", row[0])
            plural = "s" * (threads != "1")
            yield Point(name, float(seconds), 100 - accuracy, f"training alone, {threads} thread{plural}")


def speed(text: str) -> Iterator[Point]:
    """Yield the recipe of speed.md."""
    found = {row[0]: row[1] for row in map(cells, text.splitlines()) if len(row) == 2}
    accuracy = next(value for name, value in found.items() if name.startswith("mean test accuracy"))
    seconds = float(found["median training time in seconds"])
    yield Point("--recipe speed", seconds, 100 - float(accuracy.rstrip("%")), "training alone, 2 threads")


def commands(text: str) -> Iterator[Point]:
    """Yield the whole commands of training.md that report an accuracy."""
    for row in map(cells, text.splitlines()):
        if len(row) == 4 and (found := re.fullmatch(r"([\d.]+)%", row[3])):
            name = row[0].split(":")[0].replace(" --optimizer adam --epochs 2 --validation 0", "")
            yield Point(name, float(row[1]), 100 - float(found[1]), "whole command, 2 threads")


def draw(points: list[Point]) -> Image.Image:
    """Return the picture."""
    figure = Figure(figsize=(9, 7.5), layout="tight")
    axes = figure.subplots()
    for kind in sorted({point.kind for point in points}):
        chosen = [point for point in points if point.kind == kind]
        style = "o" if kind.startswith("training") else "s"
        axes.plot([p.seconds for p in chosen], [p.errors for p in chosen], style, label=kind)
    # Neighbours get their names above and below in turn.
    for i, point in enumerate(sorted(points, key=lambda point: point.errors)):
        axes.annotate(point.name, point[1:3], (4, -9 if i % 2 else 3), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="seconds (log scale)", ylabel="test accuracy (log scale of the errors)")
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(FixedLocator([100 - mark for mark in MARKS]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda errors, _: f"{100 - errors:g} %"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.set_xlim(right=4 * max(point.seconds for point in points))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return Image.open(buffer).convert("RGB").quantize(COLOURS)


@click.command()
@click.option(
    "--save", default="docs/accuracy-seconds.png", show_default=True, type=click.Path(path_type=Path), help="File."
)
def main(save: Path) -> None:
    """Draw the picture."""
    points = [
        point
        for name, read in (("accuracy", trainings), ("speed", speed), ("training", commands))
        for point in read((RESULTS / f"{name}.md").read_text())
    ]
    draw(points).save(save, optimize=True)
    click.echo(f"{save}: {len(points)} points, {save.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

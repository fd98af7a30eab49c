"""Measure the accuracy of each network: mean and standard deviation over seeds. The test set chooses nothing.

    python -m benchmarks.accuracy [--rows cnn,mlp] [--seeds 0,1,2,3,4] [--save benchmarks/results/accuracy.md]

Each row is `mnist-train --recipe best` on all 60,000 training images, tested once, after the last epoch. Its settings
were chosen on 10,000 training images that were held out. Run folders stay in --runs: finished runs are not trained
again, stopped runs are resumed. The table shows all finished runs. A line that is already in the file --save is
replaced only if --runs has at least as many finished runs of its row.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path
from typing import Any

import click

from benchmarks.report import SaveFile, conditions, tell
from training.config import TrainConfig
from training.data.digits import Splits, load
from training.distill.ensemble import Ensemble
from training.evaluate import evaluate
from training.loop.progress import Progress
from training.loop.train import train
from training.memory import keep_freed_memory

PROTOCOL = """\
Each run trains on all 60,000 training images and is tested with the averaged weights after the last epoch. The table
gives the mean and the standard deviation over the seeds, and leaves no seed out. The test set chose no epoch and
no seed. Four rows were added or changed after other rows had been tested; docs/models.md names them. Most published
figures come from the epoch with the best test result.

- The time of a student does not include its teachers. A run of one thread shared the machine with another run. Five
  runs of "cnn" were also paused for a while; the sixth ran alone on two threads to measure its time.
- "cnn-small student", "cnn-large student", "cnn-large student with own teachers" and the teachers cnn-5x5, cnn-7x7 and
  "cnn-large with bending" ran on a machine about 1.5 times as fast as the machine of the other rows.
- "cnn-large with bending" became the third kind of teacher after two runs of cnn-5x5, two of cnn-7x7 and the ensemble
  of these four had been tested. It was not chosen by a test result, because no network with bending had been tested.
  It was chosen because bending makes digits like those of other writers.
- "cnn-large student with own teachers" was added after two other rows of cnn-large students had been tested. Its
  settings and both of its ensembles were fixed before any of its seeds was tested.
- The ensemble of its eight runs is the best of 25 ensembles that were tested, so its accuracy is a little too good. The
  ensemble of these eight and the five of "cnn-large student" makes one error more.

docs/models.md describes other rows that were tried and dropped."""


@dataclass(frozen=True)
class Row:
    """A network and how it is trained."""

    model: str
    teachers: dict[str, int] = field(default_factory=dict)
    """The rows of the teachers, and how many of each row's finished runs are teachers, the first ones by seed."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings that differ from the recipe."""
    one_each: bool = False
    """Whether a run has only one teacher of each row. Each seed then has a different combination of teachers."""

    def title(self, name: str) -> str:
        """Return the name of the row in the table."""
        if not self.teachers:
            return name
        each = "one of " if self.one_each else ""
        return f"{name} (teachers: {', '.join(f'{each}{count} {row}' for row, count in self.teachers.items())})"


WITHOUT_POOLING = {"epochs": 30, "augment": 1.5, "learning_rate": 0.003}
# The three kinds of networks make different mistakes, which makes them better teachers together than each alone.
THREE_KINDS = {"cnn-5x5": 2, "cnn-7x7": 2, "cnn-large with bending": 2}
# The teachers run once for all students and fill a teacher cache of 16 epochs of images. A student trains for 28
# epochs, so it sees most of these images twice.
CACHED = {"epochs": 28, "teacher_cache": 16, "augment": 1.5, "elastic": 0.5}
ROWS = {
    "mlp": Row("mlp"),
    "cnn-small": Row("cnn-small"),
    "cnn": Row("cnn"),
    "cnn-large": Row("cnn-large"),
    # This student trains in less time than the cnn without a teacher.
    "cnn quick student": Row("cnn", {"cnn-large": 1}, {"epochs": 20}),
    "cnn student": Row("cnn", {"cnn-large": 2}, {"epochs": 32}),
    "cnn-5x5": Row("cnn-5x5", settings=WITHOUT_POOLING),
    "cnn-7x7": Row("cnn-7x7", settings=WITHOUT_POOLING),
    # Elastic distortion bends digits, so that they look like those of other writers. Simard et al. (ICDAR 2003) bend
    # them more than twice as much.
    "cnn-large with bending": Row("cnn-large", settings={"elastic": 1.0}),
    "cnn-small student": Row("cnn-small", {"cnn-large with bending": 2}, {"teacher_cache": 16}),
    "cnn-large student": Row("cnn-large", THREE_KINDS, CACHED),
    # Students with different teachers and different cached images make fewer mistakes in common.
    "cnn-large student with own teachers": Row("cnn-large", THREE_KINDS, CACHED, one_each=True),
}
# The rows whose finished runs are tested as an ensemble too.
ENSEMBLES = ("cnn student", "cnn-large student", "cnn-large student with own teachers")


def finished(runs: Path, row: str) -> list[Path]:
    """Return the folders of a row's finished runs, by seed."""
    folders = (runs / row.replace(" ", "-")).glob("*/run.json")
    return sorted((path.parent for path in folders), key=lambda folder: int(folder.name))


def config_of(runs: Path, row: Row, seed: int) -> TrainConfig:
    """Return the settings of one run.

    Raises:
        click.ClickException: its teachers are not finished.
    """
    groups: list[list[Path]] = []
    for name, count in row.teachers.items():
        found = finished(runs, name)[:count]
        if len(found) < count:
            raise click.ClickException(f"--rows: this row needs {count} runs of {name} as teachers; train them first")
        groups.append(found)
    combinations = list(product(*groups))
    teachers = combinations[seed % len(combinations)] if row.one_each else chain(*groups)
    teacher = ",".join(map(str, teachers))
    return TrainConfig.of(recipe="best", model=row.model, seed=seed, teacher=teacher, **row.settings)


def run(runs: Path, name: str, seed: int, splits: Splits) -> None:
    """Train one seed of a row, unless it is finished."""
    folder = runs / name.replace(" ", "-") / str(seed)
    if (folder / "run.json").exists():
        return
    click.echo(f"{name}, seed {seed}")
    train(config_of(runs, ROWS[name], seed), splits, folder, resume=True, progress=Progress(sys.stdout))


def percent(accuracies: list[float]) -> str:
    """Return the mean, and the standard deviation if there are several."""
    mean = f"{statistics.mean(accuracies):.3%}".replace("%", "")
    return f"{mean} ± {statistics.stdev(accuracies):.3%}".replace("%", " %") if len(accuracies) > 1 else f"{mean} %"


def seconds(records: list[dict[str, Any]]) -> str:
    """Return the median time of a run, for each number of threads."""
    threads = sorted({record["threads"] for record in records})
    return ", ".join(
        f"{statistics.median(record['seconds'] for record in records if record['threads'] == count):.0f} on {count}"
        for count in threads
    )


def row_line(runs: Path, name: str) -> str | None:
    """Return the line of a row, or None if no run of it is finished."""
    records = [json.loads((folder / "run.json").read_text()) for folder in finished(runs, name)]
    if not records:
        return None
    tests = [record["result"]["test"] for record in records]
    return (
        f"| {ROWS[name].title(name)} | {records[0]['parameters']:,} | {records[0]['config']['epochs']} | {len(tests)} "
        f"| **{percent([test['accuracy'] for test in tests])}** "
        f"| {', '.join(str(test['errors']) for test in tests)} | {seconds(records)} |"
    )


def ensemble_title(row: str) -> str:
    """Return the name of an ensemble in the table."""
    return f"ensemble of all: {row}"


def ensemble_line(runs: Path, row: str, splits: Splits) -> str | None:
    """Return the line of an ensemble, or None if fewer than two runs of the row are finished."""
    folders = finished(runs, row)
    if len(folders) < 2:
        return None
    test = evaluate(Ensemble.load(folders), splits.test)
    errors = len(test.labels) - test.correct
    return f"| {ensemble_title(row)} | | | {len(folders)} | **{percent([test.accuracy])}** | {errors} | |"


def table(runs: Path, splits: Splits, recorded: str) -> list[str]:
    """Return the table. Each line comes from the finished runs or from ``recorded``, whichever has more runs."""
    lines = [
        "| network | parameters | epochs | seeds | test accuracy | errors in 10,000, by seed | seconds, on threads |",
        "|---|---:|---:|---:|---|---|---:|",
    ]
    kept = {line.split("|")[1].strip(): line for line in recorded.splitlines() if line.startswith("|")}
    found = {row.title(name): row_line(runs, name) for name, row in ROWS.items()}
    found |= {ensemble_title(row): ensemble_line(runs, row, splits) for row in ENSEMBLES}
    for title, line in found.items():
        choices = [choice for choice in (line, kept.get(title)) if choice]
        if choices:
            # max() returns the first of equals, which is the new line.
            lines.append(max(choices, key=lambda choice: int(choice.split("|")[4])))
    return lines


@click.command()
@click.option("--rows", default=",".join(ROWS), show_default=True, help="Rows to train, in this order.")
@click.option("--seeds", default="0,1,2,3,4", show_default=True, help="Seeds of each row.")
@click.option(
    "--runs", default="runs/accuracy", show_default=True, type=click.Path(path_type=Path), help="Run folders."
)
@click.option("--save", type=SaveFile(), help="File to write the table to, after each run.")
def main(rows: str, seeds: str, runs: Path, save: Path | None) -> None:
    """Train the runs that are not finished, and print the table."""
    names = list(filter(None, rows.split(",")))
    for name in names:
        if name not in ROWS:
            raise click.UsageError(f"--rows {name}: unknown row; choose from {', '.join(ROWS)}")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise click.UsageError(f"--seeds {seeds}: must be numbers with commas between them, such as 0,1,2") from error
    keep_freed_memory()
    splits = load("mnist")

    def text() -> str:
        recorded = save.read_text() if save and save.exists() else ""
        return "\n".join([conditions("torch", "numpy"), "", PROTOCOL, "", *table(runs, splits, recorded)])

    for name in names:
        for seed in numbers:
            run(runs, name, seed, splits)
            if save:
                save.write_text(text() + "\n")
    tell([text()], save)


if __name__ == "__main__":
    main()

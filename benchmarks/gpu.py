"""Measure training on a GPU: the accuracy of short runs against their seconds, and the whole command.

    python -m benchmarks.gpu [--rows 99.0,99.5] [--seeds 30] [--on validation] [--save FILE]

Each row is a goal: a mean test accuracy, and the seconds that it may take. The accuracy is that of the last epoch, and
no seed is left out. Choose the settings of a row with --on validation, which holds out 10,000 training images and does
not touch the test set.

A first run of each row is not counted, because CUDA loads its kernels there. The seconds "with warm-up" are those of
the epochs of a run. The seconds "without warm-up" leave out the first steps, which Python starts kernel by kernel, and
the recording of the CUDA graph.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.harness import BIN
from benchmarks.report import conditions, save_option, tell
from benchmarks.training import whole_process
from training.config import TrainConfig
from training.data.digits import Splits, load
from training.loop import graph
from training.loop.graph import CudaGraph, Work
from training.loop.train import train

HELD_OUT = 10_000
# The settings that all rows have.
FAST = {"precision": "bfloat16", "validation": 0}


@dataclass(frozen=True)
class Goal:
    """A mean test accuracy, the seconds without warm-up in which to reach it, and the settings that are tried."""

    accuracy: float
    seconds: float
    settings: dict[str, Any]


GOALS = {
    "99.0": Goal(
        0.99,
        0.10,
        {"model": "cnn-speed", "epochs": 1, "batch_size": 512, "augment": 0.0, "ema": 0.0, "label_smoothing": 0.1},
    ),
    "99.5": Goal(0.995, 0.35, {"model": "cnn", "epochs": 4, "batch_size": 512}),
    "99.7": Goal(0.997, 3.0, {"model": "cnn-large", "epochs": 16, "batch_size": 256}),
    "default": Goal(0.0, 2.0, {}),
}


class TimedGraph(CudaGraph):
    """Adds up the seconds of the warm-up and the recording of all graphs."""

    seconds = 0.0

    def warm_up(self, work: Work) -> torch.Tensor:
        return self._timed(super().warm_up, work)

    def capture(self, work: Work) -> torch.Tensor:
        return self._timed(super().capture, work)

    def _timed(self, act: Any, work: Work) -> torch.Tensor:
        torch.cuda.synchronize()
        started = time.perf_counter()
        result: torch.Tensor = act(work)
        torch.cuda.synchronize()
        TimedGraph.seconds += time.perf_counter() - started
        return result


@dataclass(frozen=True)
class Run:
    """The result of one seed."""

    accuracy: float
    with_warm_up: float
    without_warm_up: float


def run(config: TrainConfig, splits: Splits, on: str) -> Run:
    """Train on the GPU and return the accuracy on the set ``on``, test or validation, and the seconds."""
    TimedGraph.seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        train(config, splits, Path(folder) / "run", device="cuda")
        record = json.loads((Path(folder) / "run" / "run.json").read_text())
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(row["seconds"] for row in rows)
    return Run(record["result"][on]["accuracy"], seconds, seconds - TimedGraph.seconds)


def goal_line(name: str, seeds: int, on: str) -> str:
    """Return the line of a goal in the table."""
    goal = GOALS[name]
    held_out = {"validation": HELD_OUT} if on == "validation" else {}
    settings = goal.settings | ({} if name == "default" else FAST) | held_out
    splits = load("mnist", validation=TrainConfig(**settings).validation)
    run(TrainConfig(**settings, seed=seeds), splits, on)
    runs = []
    for seed in range(seeds):
        runs.append(run(TrainConfig(**settings, seed=seed), splits, on))
        click.echo(f"{name}, seed {seed}: {runs[-1].accuracy:.2%}, {runs[-1].without_warm_up:.3f} s", err=True)
    accuracies = [result.accuracy for result in runs]
    aim = f"{goal.accuracy:.1%} in {goal.seconds:.2f} s" if goal.accuracy else f"{goal.seconds:.2f} s"
    described = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in settings.items()) or "no flag"
    return (
        f"| {aim} | `{described}` | {statistics.mean(accuracies):.3%} ± {statistics.stdev(accuracies):.3%} "
        f"| {min(accuracies):.2%}, {max(accuracies):.2%} "
        f"| {statistics.median(result.without_warm_up for result in runs):.3f} "
        f"| {statistics.median(result.with_warm_up for result in runs):.3f} |"
    )


def command_lines() -> list[str]:
    """Return the times of whole commands, from the command line to the result."""
    lines = ["| whole command, data in the cache | seconds of its epochs | seconds in all |", "|---|---|---|"]
    for options in ([], ["--deterministic"], ["--no-graph"]):
        with tempfile.TemporaryDirectory() as folder:
            command = ["--device", "cuda", *options]
            output = Path(folder) / "run"
            # The first run fills the caches.
            whole_process(BIN / "mnist-train", *command, "--epochs", "1", "--output", Path(folder) / "first")
            taken, _ = whole_process(BIN / "mnist-train", *command, "--output", output)
            record = json.loads((output / "run.json").read_text())
        lines.append(f"| `mnist-train {' '.join(command)}` | {record['seconds']:.1f} | {taken.seconds:.1f} |")
    return lines


def card() -> str:
    """Return the name of the GPU, the version of its driver, and that of CUDA."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True).stdout.split("\n")[0] or "unknown"
    return f"{torch.cuda.get_device_name()}, driver {driver}, CUDA {torch.version.cuda}"


@click.command()
@click.option("--rows", default=",".join(GOALS), show_default=True, help="Goals to measure, in this order.")
@click.option("--seeds", default=30, show_default=True, type=click.IntRange(min=2), help="Runs of each goal.")
@click.option(
    "--on",
    default="test",
    show_default=True,
    type=click.Choice(["test", "validation"]),
    help="Images that the accuracy is measured on. Choose settings on the validation set.",
)
@save_option
def main(rows: str, seeds: int, on: str, save: Path | None) -> None:
    """Measure training on a GPU and print a table."""
    names = list(filter(None, rows.split(",")))
    for name in names:
        if name not in GOALS:
            raise click.UsageError(f"--rows {name}: unknown goal; choose from {', '.join(GOALS)}")
    if not torch.cuda.is_available():
        raise click.ClickException("torch finds no NVIDIA GPU here; nothing is measured, and no file is written")
    graph.CudaGraph = TimedGraph  # type: ignore[misc]
    lines = [
        conditions("torch", "numpy", also=card()),
        "",
        f"| goal | settings | mean {on} accuracy of {seeds} seeds, ± standard deviation | lowest, highest "
        "| median seconds without warm-up | with warm-up |",
        "|---|---|---|---|---|---|",
        *(goal_line(name, seeds, on) for name in names),
        "",
        *command_lines(),
    ]
    tell(lines, save)


if __name__ == "__main__":
    main()

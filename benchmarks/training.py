"""Measure training speed: whole commands, the tutorial's training loop compared with ours, the time to train the cnn.

    python -m benchmarks.training [--rounds 3] [--save benchmarks/results/training.md]
    python -m benchmarks.training --recipe speed [--seeds 30] [--save benchmarks/results/speed.md]

The first table has the times of whole commands, from the command line to the result. The tutorial's program
is benchmarks/tutorial.py.

The second table compares the loops alone. The tutorial loads its batches through a DataLoader, which opens, scales and
stacks one image after the other. Our loop takes whole batches from tensors in memory. Both use the same network,
optimizer, batch size, epochs and images.

The measurements alternate, so that other load on the machine affects all. A speed-up is the ratio of the medians. The
CPU seconds are those of all cores; other load changes them less than the seconds.

With --recipe, the program instead trains this recipe with many seeds and reports its accuracy and training time.
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import click
import torch
import torch.nn.functional as F

from benchmarks import tutorial
from benchmarks.footprint import seconds_of_ended_commands
from benchmarks.harness import BIN, ROOT, exit_at_sigterm, free_port, wait_until_ready
from benchmarks.report import conditions, save_option, tell
from training.config import RECIPES, TrainConfig
from training.data.datasets import DATASETS
from training.data.digits import Splits, load
from training.data.sources import fetch
from training.loop.optimizers import build_optimizer
from training.loop.train import train
from training.memory import keep_freed_memory
from training.networks import build, normalize, parameter_count

T = TypeVar("T")

TUTORIAL = TrainConfig.of(model="mlp", epochs=2, batch_size=128, optimizer="adam", validation=0)


class Measured(NamedTuple):
    """What a whole command took, and the test accuracy that it reports."""

    seconds: float
    """From its start to its end."""
    cpu: float
    """Seconds of the processor, on all cores, with those of the processes that the command starts."""
    accuracy: float = math.nan


def whole_process(*command: object) -> tuple[Measured, str]:
    """Return what a command took, and what it printed."""
    started, before = time.perf_counter(), seconds_of_ended_commands()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    taken = Measured(time.perf_counter() - started, seconds_of_ended_commands() - before)
    if done.returncode:
        raise click.ClickException(f"{command}: {done.stderr}")
    return taken, done.stdout


def tutorial_process(mnist: Path) -> Measured:
    """Return what the tutorial's whole program takes."""
    with tempfile.TemporaryDirectory() as output:
        taken, printed = whole_process(sys.executable, "-m", "benchmarks.tutorial", mnist, output)
    return taken._replace(accuracy=float(printed.split()[-1].rstrip("%")) / 100)


def our_process(*options: str) -> Measured:
    """Return what mnist-train takes with these options."""
    with tempfile.TemporaryDirectory() as folder:
        taken, _ = whole_process(BIN / "mnist-train", "--output", Path(folder) / "run", *options)
        record = json.loads((Path(folder) / "run" / "run.json").read_text())
    return taken._replace(accuracy=record["result"]["test"]["accuracy"])


def export_process(run: Path) -> Measured:
    """Return what mnist-export takes for a run."""
    with tempfile.TemporaryDirectory() as repository:
        return whole_process(BIN / "mnist-export", run, "--repository", repository)[0]


def make_run() -> Measured:
    """Return what `make run` takes until the service responds, with the environment there."""
    with tempfile.TemporaryDirectory() as folder:
        run, port = Path(folder) / "run", free_port()
        started, before = time.perf_counter(), seconds_of_ended_commands()
        process = subprocess.Popen(
            ["make", "run", f"RUN={run}", f"MODELS={folder}/models"],
            cwd=ROOT,
            env=os.environ | {"MNIST_PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}/v2/health/ready")
            seconds = time.perf_counter() - started
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        accuracy = json.loads((run / "run.json").read_text())["result"]["test"]["accuracy"]
    return Measured(seconds, seconds_of_ended_commands() - before, accuracy)


def processes_table(rounds: int, cnn: bool) -> list[str]:
    """Return a table of the times of whole commands; with ``cnn``, also one run of the default cnn and of make."""
    options = ("--model", "mlp", "--optimizer", "adam", "--epochs", "2", "--validation", "0")
    with tempfile.TemporaryDirectory() as folder:
        mnist, run = torchvision_folder(Path(folder)), Path(folder) / "speed"
        # This also fills the caches: MNIST, and the examples for the calibration.
        whole_process(BIN / "mnist-train", "--recipe", "speed", "--output", run)
        commands: dict[str, Callable[[], Measured]] = {
            "the tutorial's program: mlp, Adam, 2 epochs, 2 tests, 2 saves": lambda: tutorial_process(mnist),
            f"`mnist-train {' '.join(options)}`": lambda: our_process(*options),
            "`mnist-train --recipe speed`": lambda: our_process("--recipe", "speed"),
            "`mnist-export` of this run": lambda: export_process(run),
        }
        found = dict[str, Sequence[Measured]](zip(commands, measured(rounds, *commands.values()), strict=True))
        if cnn:
            found["`mnist-train`"] = [our_process()]
            found["`make run` with 4 epochs, until the service is ready"] = [make_run()]
    medians = {name: Measured(*map(statistics.median, zip(*runs, strict=True))) for name, runs in found.items()}
    theirs, ours = list(medians.values())[:2]
    lines = [
        "| whole command, from its start to its end, data in the cache | seconds | CPU seconds | test accuracy |",
        "|---|---|---|---|",
        f"| **speed-up of `mnist-train` over the tutorial, with a checkpoint, calibration and plots** | "
        f"**{theirs.seconds / ours.seconds:.1f}** | **{theirs.cpu / ours.cpu:.1f}** | |",
    ]
    for name, (seconds, cpu, accuracy) in medians.items():
        shown = "" if math.isnan(accuracy) else f"{accuracy:.2%}"
        lines.append(f"| {name} | {seconds:.1f} | {cpu:.1f} | {shown} |")
    return lines


def tutorial_loop(folder: Path) -> float:
    """Return the seconds that two epochs of the tutorial's loop take."""
    batches = tutorial.loader(folder, train=True, batch_size=TUTORIAL.batch_size)
    network = tutorial.Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    started = time.perf_counter()
    for _ in range(TUTORIAL.epochs):
        tutorial.run_epoch(network, optimizer, batches)
    return time.perf_counter() - started


def our_loop(config: TrainConfig, splits: Splits) -> float:
    """Return the seconds that the epochs of our loop take, the evaluation on the validation set included."""
    with tempfile.TemporaryDirectory() as output:
        train(config, splits, Path(output) / "run")
        rows = (Path(output) / "run" / "metrics.jsonl").read_text().splitlines()
    return math.fsum(json.loads(row)["seconds"] for row in rows)


def bare_arithmetic(config: TrainConfig, splits: Splits) -> float:
    """Return the seconds of the same epochs with the network, the loss and the optimizer alone.

    The images are not shuffled.
    """
    network = build(config.model)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # The stubs of torch lack this form.
    optimizer = build_optimizer(config, network)
    images, labels = (values.split(config.batch_size) for values in (splits.train.images, splits.train.labels))
    network.train()
    started = time.perf_counter()
    for _ in range(config.epochs):
        for batch, truth in zip(images, labels, strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(normalize(batch)), truth)
            loss.backward()
            loss.item()
            optimizer.step()
    return time.perf_counter() - started


def measured(rounds: int, *measures: Callable[[], T]) -> list[tuple[T, ...]]:
    """Return the results of each measure. The measures run in turn, ``rounds`` times."""
    return list(zip(*([measure() for measure in measures] for _ in range(rounds)), strict=True))


def torchvision_folder(folder: Path) -> Path:
    """Write MNIST into ``folder`` as torchvision lays it out, and return ``folder``."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in fetch(DATASETS["mnist"]).items():
        (raw / name).write_bytes(content)
    return folder


def recipe_table(recipe: str, seeds: int) -> list[str]:
    """Return a table of the test accuracy and the training time of a recipe over many seeds."""
    settings = TrainConfig.of(recipe=recipe)
    splits = load(settings.dataset, validation=settings.validation)
    accuracies, seconds = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as output:
            accuracies.append(train(replace(settings, seed=seed), splits, Path(output) / "run").accuracy)
            seconds.append(json.loads((Path(output) / "run" / "run.json").read_text())["seconds"])
        click.echo(f"seed {seed}: {accuracies[-1]:.2%} after {seconds[-1]:.1f} s", err=True)
    return [
        f"| `mnist-train --recipe {recipe}`: {settings.model}, {parameter_count(build(settings.model)):,} parameters, "
        f"{settings.epochs} epoch{'s' * (settings.epochs > 1)} | |",
        "|---|---|",
        f"| mean test accuracy of {seeds} seeds | **{statistics.mean(accuracies):.3%}** |",
        f"| standard deviation, lowest and highest test accuracy | {statistics.stdev(accuracies):.3%}, "
        f"{min(accuracies):.2%}, {max(accuracies):.2%} |",
        f"| median training time in seconds | **{statistics.median(seconds):.2f}** |",
        f"| shortest and longest training time in seconds | {min(seconds):.2f}, {max(seconds):.2f} |",
        "",
        "The training time starts when the images are in memory and ends when the weights are final. "
        "All seeds are included.",
    ]


def loops_table(rounds: int) -> list[str]:
    """Return a table of the times of the tutorial's loop and of ours."""
    splits = load("mnist")
    with tempfile.TemporaryDirectory() as folder:
        mnist = torchvision_folder(Path(folder))
        measures = (
            lambda: tutorial_loop(mnist),
            lambda: our_loop(TUTORIAL, splits),
            lambda: bare_arithmetic(TUTORIAL, splits),
        )
        theirs, ours, bare = map(statistics.median, measured(rounds, *measures))
    return [
        "| two epochs of the tutorial's training: mlp, Adam, learning rate 0.001, batch size 128, 60,000 images "
        "| seconds |",
        "|---|---|",
        f"| the tutorial's loop | {theirs:.2f} |",
        f"| the loop of `mnist-train` | {ours:.2f} |",
        f"| network, loss and optimizer alone, images not shuffled | {bare:.2f} |",
        f"| **speed-up of the loop** | **{theirs / ours:.1f}** |",
        f"| share of the time of `mnist-train` outside network, loss and optimizer | {1 - bare / ours:.0%} |",
    ]


@click.command()
@click.option("--recipe", type=click.Choice(list(RECIPES)), help="Measure this recipe, not the loops.")
@click.option("--seeds", default=30, show_default=True, type=click.IntRange(min=2), help="Seeds for --recipe.")
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Runs of each loop; the median counts."
)
@click.option("--cnn/--no-cnn", default=True, show_default=True, help="Also time `mnist-train` and `make run`.")
@save_option
def main(recipe: str | None, seeds: int, rounds: int, cnn: bool, save: Path | None) -> None:
    """Measure the training speed and print a table."""
    exit_at_sigterm()
    keep_freed_memory()
    header = conditions("torch", "torchvision", "numpy", also=f"{torch.get_num_threads()} threads")
    lines = [header, ""]
    lines += recipe_table(recipe, seeds) if recipe else [*processes_table(rounds, cnn), "", *loops_table(rounds)]
    tell(lines, save)


if __name__ == "__main__":
    main()

"""Measure training speed: whole commands, the tutorial's training loop compared with ours, the time to train the cnn.

    python -m benchmarks.training [--rounds 3] [--save benchmarks/results/training.md]
    python -m benchmarks.training --recipe speed [--seeds 30] [--save benchmarks/results/speed.md]

The first table has the times of whole commands, from the command line to the result. The tutorial's program
is benchmarks/tutorial.py.

The second table compares the loops alone. The tutorial loads its batches through a DataLoader, which opens, scales and
stacks one image after the other. Our loop takes whole batches from tensors in memory. Both use the same network,
optimizer, batch size, epochs and images.

The measurements alternate, so that other load on the machine affects all. A speed-up is the ratio of the medians.

With --recipe, the program instead trains this recipe with many seeds and reports its accuracy and training time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import torch
import torch.nn.functional as F

from benchmarks import tutorial
from benchmarks.harness import BIN
from benchmarks.report import conditions, tell
from training.config import RECIPES, TrainConfig
from training.data.datasets import DATASETS
from training.data.digits import Splits, load
from training.data.sources import fetch
from training.loop.optimizers import build_optimizer
from training.loop.train import train
from training.memory import keep_freed_memory
from training.networks import build, normalize, parameter_count

TUTORIAL = TrainConfig.of(model="mlp", epochs=2, batch_size=128, optimizer="adam", validation=0)


def whole_process(*command: object, **environment: str) -> float:
    """Return the seconds from the start of a command to its end."""
    started = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        raise click.ClickException(f"{command}: {done.stderr}")
    return time.perf_counter() - started


def tutorial_process(mnist: Path) -> float:
    """Return the seconds that the tutorial's whole program takes."""
    with tempfile.TemporaryDirectory() as output:
        return whole_process(sys.executable, "-m", "benchmarks.tutorial", mnist, output)


def our_process(*options: str) -> float:
    """Return the seconds that mnist-train takes with these options."""
    with tempfile.TemporaryDirectory() as output:
        return whole_process(BIN / "mnist-train", "--output", Path(output) / "run", *options)


def export_process(run: Path) -> float:
    """Return the seconds that mnist-export takes for a run."""
    with tempfile.TemporaryDirectory() as repository:
        return whole_process(BIN / "mnist-export", run, "--repository", repository)


def processes_table(rounds: int) -> list[str]:
    """Return a table of the times of whole commands, from the command line to the result."""
    options = ("--model", "mlp", "--optimizer", "adam", "--epochs", "2", "--validation", "0")
    with tempfile.TemporaryDirectory() as folder:
        mnist, run = torchvision_folder(Path(folder)), Path(folder) / "speed"
        # This also fills the caches: MNIST, and the examples for the calibration.
        whole_process(BIN / "mnist-train", "--recipe", "speed", "--output", run)
        our_process(*options)
        theirs, ours, speed, export = medians(
            rounds,
            lambda: tutorial_process(mnist),
            lambda: our_process(*options),
            lambda: our_process("--recipe", "speed"),
            lambda: export_process(run),
        )
    return [
        "| whole command, from its start to its end, data in the cache | seconds |",
        "|---|---|",
        f"| the tutorial's program: mlp, Adam, 2 epochs, 2 tests, 2 saves | {theirs:.1f} |",
        f"| `mnist-train {' '.join(options)}`: also a checkpoint, calibration, plots | {ours:.1f} |",
        f"| **speed-up of `mnist-train` over the tutorial** | **{theirs / ours:.1f}** |",
        f"| `mnist-train --recipe speed` | {speed:.1f} |",
        f"| `mnist-export` of this run | {export:.1f} |",
    ]


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
    return sum(json.loads(row)["seconds"] for row in rows)


def bare_arithmetic(config: TrainConfig, splits: Splits) -> float:
    """Return the seconds of the same epochs with the network, the loss and the optimizer alone.

    The images are not shuffled.
    """
    network = build(config.model).to(memory_format=torch.channels_last)
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


def medians(rounds: int, *measures: Callable[[], float]) -> list[float]:
    """Return the median result of each measure. The measures run in turn, ``rounds`` times."""
    results = [[measure() for measure in measures] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*results, strict=True)]


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


def loops_table(rounds: int, cnn: bool) -> list[str]:
    """Return a table of the times of the tutorial's loop and of ours, and one of the cnn if ``cnn`` is set."""
    splits = load("mnist")
    with tempfile.TemporaryDirectory() as folder:
        mnist = torchvision_folder(Path(folder))
        theirs, ours, bare = medians(
            rounds,
            lambda: tutorial_loop(mnist),
            lambda: our_loop(TUTORIAL, splits),
            lambda: bare_arithmetic(TUTORIAL, splits),
        )
    lines = [
        "| two epochs of the tutorial's training: mlp, Adam, learning rate 0.001, batch size 128, 60,000 images "
        "| seconds |",
        "|---|---|",
        f"| the tutorial's loop | {theirs:.2f} |",
        f"| the loop of `mnist-train` | {ours:.2f} |",
        f"| network, loss and optimizer alone, images not shuffled | {bare:.2f} |",
        f"| **speed-up of the loop** | **{theirs / ours:.1f}** |",
        f"| share of the time of `mnist-train` outside network, loss and optimizer | {1 - bare / ours:.0%} |",
    ]
    if cnn:
        splits = load("mnist", validation=5000)
        with tempfile.TemporaryDirectory() as output:
            started = time.perf_counter()
            result = train(TrainConfig(), splits, Path(output) / "run")
            seconds = time.perf_counter() - started
        lines += [
            "",
            "| cnn with the default settings | |",
            "|---|---|",
            f"| seconds for {TrainConfig.epochs} epochs of 55,000 images, with checkpoints and plots | {seconds:.0f} |",
            f"| test accuracy | {result.accuracy:.2%} |",
        ]
    return lines


@click.command()
@click.option("--recipe", type=click.Choice(list(RECIPES)), help="Measure this recipe, not the loops.")
@click.option("--seeds", default=30, show_default=True, type=click.IntRange(min=2), help="Seeds for --recipe.")
@click.option("--rounds", default=3, show_default=True, help="Runs of each loop; the median counts.")
@click.option("--cnn/--no-cnn", default=True, show_default=True, help="Also train the cnn with its default settings.")
@click.option("--save", type=click.Path(path_type=Path), help="Also write the table to this file.")
def main(recipe: str | None, seeds: int, rounds: int, cnn: bool, save: Path | None) -> None:
    """Measure the training speed and print a table."""
    keep_freed_memory()
    header = conditions("torch", "torchvision", "numpy", also=f"{torch.get_num_threads()} threads")
    lines = [header, ""]
    lines += recipe_table(recipe, seeds) if recipe else [*processes_table(rounds), "", *loops_table(rounds, cnn)]
    tell(lines, save)


if __name__ == "__main__":
    main()

"""Training speed: the tutorial's loop beside ours, where our time goes, and the cnn.

    python -m benchmarks.training [--rounds 3] [--save benchmarks/results/training.md]
    python -m benchmarks.training --recipe speed [--seeds 30] [--save benchmarks/results/speed.md]

The tutorial trains through a DataLoader that opens, scales and stacks each image; ours indexes whole
batches out of memory. Same network, optimizer, batch size, epochs and images; rounds alternate, so that
a noisy machine is noisy for both, and the ratio is that of the medians.

With --recipe, that recipe over many seeds instead: how exact it gets, and how long it takes.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import nn

# Run as a file, this folder comes first on the path, and this file's name hides the package.
from benchmarks.report import conditions, tell
from training.config import RECIPES, TrainConfig
from training.data import digits as data
from training.data import sources
from training.data.digits import Splits
from training.loop.optimizers import build_optimizer
from training.loop.train import train
from training.memory import keep_freed_memory
from training.networks import DEVIATION, MEAN, build, normalize, parameter_count

TUTORIAL = TrainConfig.of(model="mlp", epochs=2, batch_size=128, optimizer="adam", validation=0)


def tutorial_loop(folder: Path) -> float:
    """Seconds of two epochs the way the tutorial writes them."""
    torchvision = sources.import_torchvision()
    scale = torchvision.transforms.Compose(
        [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize((MEAN,), (DEVIATION,))]
    )
    dataset = torchvision.datasets.MNIST(str(folder), train=True, transform=scale)
    loader = torch.utils.data.DataLoader(dataset, batch_size=128, shuffle=True)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 28), nn.ReLU(), nn.Linear(28, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    started = time.perf_counter()
    for _ in range(2):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.nll_loss(F.log_softmax(network(images), dim=1), labels)
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started


def our_loop(config: TrainConfig, splits: Splits) -> float:
    """Seconds of our epochs: the sum of metrics.jsonl, whose epochs include the validation."""
    with tempfile.TemporaryDirectory() as output:
        train(config, splits, Path(output) / "run")
        record = (Path(output) / "run" / "metrics.jsonl").read_text().splitlines()
    return sum(float(line.partition('"seconds": ')[2].rstrip("}")) for line in record)


def bare_arithmetic(config: TrainConfig, splits: Splits) -> float:
    """Seconds of the same epochs with nothing but the network, its loss and its optimizer, in the images' own order."""
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
    """The median of each measure, taken in turn."""
    taken = [[measure() for measure in measures] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def torchvision_folder(folder: Path) -> Path:
    """MNIST as torchvision keeps it, from wherever we have it."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in sources.fetch(sources.DATASETS["mnist"]).items():
        (raw / name).write_bytes(content)
    return folder


def recipe_table(recipe: str, seeds: int) -> list[str]:
    """Test accuracy and seconds of a recipe over many seeds."""
    settings = TrainConfig.of(recipe=recipe)
    splits = data.load(settings.dataset, validation=settings.validation)
    accuracies, seconds = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as output:
            accuracies.append(train(replace(settings, seed=seed), splits, Path(output) / "run").accuracy)
            seconds.append(json.loads((Path(output) / "run" / "run.json").read_text())["seconds"])
        click.echo(f"seed {seed}: {accuracies[-1]:.2%} after {seconds[-1]:.1f} s", err=True)
    return [
        f"| `mnist-train --recipe {recipe}`: {settings.model}, {parameter_count(build(settings.model)):,} parameters, "
        f"epochs: {settings.epochs} | |",
        "|---|---|",
        f"| test accuracy, mean of {seeds} seeds | **{statistics.mean(accuracies):.3%}** |",
        f"| its standard deviation, the least, the most | {statistics.stdev(accuracies):.3%}, {min(accuracies):.2%}, "
        f"{max(accuracies):.2%} |",
        f"| seconds of training, median | **{statistics.median(seconds):.2f}** |",
        f"| the least, the most | {min(seconds):.2f}, {max(seconds):.2f} |",
        "",
        "Images are in memory when the clock starts; it stops when the weights are final. No seed is left out.",
    ]


def loops_table(rounds: int, cnn: bool) -> list[str]:
    """The tutorial's loop beside ours, and the cnn."""
    splits = data.load("mnist")
    with tempfile.TemporaryDirectory() as folder:
        tutorial = torchvision_folder(Path(folder))
        theirs, ours, bare = medians(
            rounds,
            lambda: tutorial_loop(tutorial),
            lambda: our_loop(TUTORIAL, splits),
            lambda: bare_arithmetic(TUTORIAL, splits),
        )
    lines = [
        "| two epochs of the tutorial's setting: mlp, Adam, rate 0.001, batch 128, 60,000 images | seconds |",
        "|---|---|",
        f"| the tutorial's loop | {theirs:.2f} |",
        f"| `mnist-train`'s loop | {ours:.2f} |",
        f"| the network's arithmetic alone, images in their own order | {bare:.2f} |",
        f"| **times as fast as the tutorial's** | **{theirs / ours:.1f}** |",
        f"| share of our time outside the arithmetic | {1 - bare / ours:.0%} |",
    ]
    if cnn:
        chosen = data.load("mnist", validation=5000)
        with tempfile.TemporaryDirectory() as output:
            started = time.perf_counter()
            result = train(TrainConfig(), chosen, Path(output) / "run")
            seconds = time.perf_counter() - started
        lines += [
            "",
            "| cnn, the default settings | |",
            "|---|---|",
            f"| seconds for {TrainConfig.epochs} epochs of 55,000 images, checkpoints and pictures included "
            f"| {seconds:.0f} |",
            f"| test accuracy | {result.accuracy:.2%} |",
        ]
    return lines


@click.command()
@click.option("--recipe", type=click.Choice(list(RECIPES)), help="Measure this recipe over --seeds instead.")
@click.option("--seeds", default=30, show_default=True, type=click.IntRange(min=2), help="Seeds 0, 1, ... of --recipe.")
@click.option("--rounds", default=3, show_default=True, help="Each measure is the median of so many.")
@click.option("--cnn/--no-cnn", default=True, show_default=True, help="Also train the cnn, 8 epochs.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the table here too.")
def main(recipe: str | None, seeds: int, rounds: int, cnn: bool, save: Path | None) -> None:
    """Measure, and print a table."""
    keep_freed_memory()
    where = conditions("torch", "torchvision", "numpy", also=f"{torch.get_num_threads()} threads")
    lines = [where, "", *(recipe_table(recipe, seeds) if recipe else loops_table(rounds, cnn))]
    tell(lines, save)


if __name__ == "__main__":
    main()

"""The seven rules of optimizers.py on real digits: which learns fastest, and which works at many learning rates?

    python examples/compare_optimizers.py [--save benchmarks/results/optimizers.png]

The network is the tutorial's, 784-28-10. Every optimizer is tried with a ladder of seven learning
rates, each about three times the one before, with the same three seeds, for 20 epochs at a constant rate. The rate with
the best accuracy on the validation set is chosen, and its accuracy on the test set is reported.

One process trains all rates of an optimizer and seed at the same time. They use the same batches, so their
networks are stacked along a first axis, and every matrix product below is one product for all of them.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import torch
from matplotlib.figure import Figure
from optimizers import RULES, Memory
from torch import Tensor

from training.data.digits import load
from training.networks import CLASSES, build, normalize

# The middle of each ladder. It was chosen by hand so that the best rate is not at an end of the ladder, because
# then a better one may lie outside.
MIDDLE_RATE = {
    "full-batch": 0.1,
    "stochastic": 0.001,
    "mini-batch": 0.1,
    "momentum": 0.1,
    "adagrad": 0.01,
    "rmsprop": 0.001,
    "adam": 0.001,
}
LADDER = torch.tensor([0.03, 0.1, 0.3, 1, 3, 10, 30])  # times the middle
BATCH = 128
VALIDATION = 5000
TRAINING_IMAGES = 60_000 - VALIDATION
REPORTED_EPOCHS = (1, 5, 20)

NOTES = """\
Test accuracy: mean over the seeds ± half the range, at the learning rate that is best on the validation set then.
Good rates: the number of the seven learning rates whose validation accuracy after the last epoch is within one
percentage point of the best. In an epoch every optimizer uses each image once: full-batch in a single step, stochastic
in one step per image. The rules are those of optimizers.py: averages keep 0.8, and Adam has no bias correction. The
batch size is 128, except for full-batch and stochastic."""

# For R rates: [R, 28, 784], [R, 28, 1], [R, 10, 28], [R, 10, 1].
Weights = list[Tensor]


def forward(weights: Weights, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden units ``[R, 28, N]`` and logits ``[R, 10, N]`` of R networks for ``images [784, N]``."""
    w1, b1, w2, b2 = weights
    hidden = (w1 @ images + b1).relu()
    return hidden, w2 @ hidden + b2


def gradients(weights: Weights, images: Tensor, truth: Tensor) -> Weights:
    """Return the gradients of each network's mean cross-entropy.

    They are written out, because autograd would take longer than the arithmetic of one image, and stochastic
    descent takes 1.1 million steps of one image.

    Args:
        truth: ``[10, N]``, with a one in the row of the true digit.
    """
    hidden, logits = forward(weights, images)
    # The gradient of softmax and cross-entropy together is this difference.
    error = (logits.softmax(dim=1) - truth) / images.shape[1]
    # Back through the second layer, and through ReLU where its input was positive.
    hidden_error = weights[2].mT @ error * (hidden > 0)
    return [
        hidden_error @ images.T,
        hidden_error.sum(dim=2, keepdim=True),
        error @ hidden.mT,
        error.sum(dim=2, keepdim=True),
    ]


def accuracy(weights: Weights, images: Tensor, labels: Tensor) -> Tensor:
    """Return the share of correct predictions of each network, ``[R]``."""
    _, logits = forward(weights, images)
    return (logits.argmax(dim=1) == labels).double().mean(dim=1)


@functools.cache
def pixels_and_labels(subset: int) -> list[tuple[Tensor, Tensor]]:
    """Return network input ``[N, 784]`` and labels ``[N]`` of the training, validation and test sets.

    Each process reads them once.
    """
    splits = load("mnist", validation=VALIDATION, subset=subset)
    return [(normalize(part.images).flatten(1), part.labels) for part in (splits.train, splits.validation, splits.test)]


def train(name: str, seed: int, epochs: int, subset: int) -> Tensor:
    """Return the accuracy ``[2, epochs, R]`` on the validation and test sets, after each epoch, at each rate."""
    torch.set_num_threads(1)  # The processes share the cores.
    (images, labels), *held_out = pixels_and_labels(subset)
    truth = torch.eye(CLASSES)[labels]  # [N, 10]
    rate = rates(name).view(-1, 1, 1)
    size = batch_size(name, len(images))
    rule = RULES[name]

    torch.manual_seed(seed)  # Decides the initial weights and the order of the images.
    # Every rate starts with the same weights. Biases become columns.
    weights = [w.detach().view(len(w), -1).repeat(len(rate), 1, 1) for w in build("mlp").parameters()]
    memories: list[Memory] = [{} for _ in weights]
    history = []
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(size):
            batch_gradients = gradients(weights, images.index_select(0, batch).T, truth.index_select(0, batch).T)
            for weight, gradient, memory in zip(weights, batch_gradients, memories, strict=True):
                weight -= rule(gradient, memory, rate)
        history.append(torch.stack([accuracy(weights, images.T, labels) for images, labels in held_out]))
    return torch.stack(history, dim=1)


def rates(name: str) -> Tensor:
    """Return the learning rates of an optimizer, ``[R]``."""
    return MIDDLE_RATE[name] * LADDER


def batch_size(name: str, count: int) -> int:
    """Return the number of images in a step, for ``count`` training images."""
    return {"full-batch": count, "stochastic": 1}.get(name, BATCH)


def best(results: Tensor, epoch: int) -> tuple[int, Tensor]:
    """Return the index of the rate that is best on the validation set after ``epoch``, and each seed's test accuracy.

    ``results`` is ``[seeds, 2, epochs, R]``. The test accuracies have no part in the choice.
    """
    validation, test = results[:, :, epoch - 1].unbind(dim=1)  # [seeds, R] each
    rung = int(validation.mean(dim=0).argmax())
    return rung, test[:, rung]


def table(results: dict[str, Tensor], count: int) -> list[str]:
    """Return the lines of a Markdown table with a row for each optimizer."""
    _, _, epochs, _ = next(iter(results.values())).shape
    reported = [epoch for epoch in REPORTED_EPOCHS if epoch <= epochs]
    head = ["optimizer", "steps per epoch", *(f"after {n} epoch{'s' * (n > 1)}" for n in reported), "good rates"]
    lines = [f"| {' | '.join(head)} |", f"|---{'|---:' * (len(head) - 1)}|"]
    for name, result in results.items():
        cells = [name, f"{math.ceil(count / batch_size(name, count)):,}"]
        for epoch in reported:
            rung, test = best(result, epoch)
            spread = 50 * (test.max() - test.min())
            cells.append(f"{100 * test.mean():.2f} ± {spread:.2f} % at {rates(name)[rung]:.1g}")
        last = result[:, 0, -1].mean(dim=0)
        cells.append(f"{int((last >= last.max() - 0.01).sum())} of {len(LADDER)}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def picture(results: dict[str, Tensor]) -> Figure:
    """Draw the test error after each epoch, and the validation error at each rate."""
    figure = Figure(figsize=(9, 3.6), dpi=80, layout="constrained")
    learning, sensitivity = figure.subplots(1, 2, sharey=True)
    for name, result in results.items():
        _, _, epochs, _ = result.shape
        rung, _ = best(result, epochs)
        error = 100 * (1 - result.mean(dim=0))  # [2, epochs, R]
        learning.plot(range(1, epochs + 1), error[1, :, rung], label=name)
        sensitivity.plot(rates(name), error[0, -1], ".-")
    learning.set(xlabel="epoch", ylabel="error (%)", title="Test, at the rate validation chose")
    sensitivity.set(xlabel="learning rate", xscale="log", title="Validation at the end, every rate")
    learning.set_yscale("log")
    learning.set_yticks([3, 5, 10, 20, 50, 90], ["3", "5", "10", "20", "50", "90"])
    learning.minorticks_off()
    for axes in (learning, sensitivity):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside right center")
    return figure


def conditions(count: int, seeds: int) -> str:
    """Return the machine, the versions and the command."""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"torch {importlib.metadata.version('torch')}; {count:,} training images, {seeds} seeds\n"
        f"`python {' '.join(sys.argv)}`"
    )


@click.command()
@click.option("--epochs", default=20, show_default=True, type=click.IntRange(1), help="Passes over the images.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each optimizer and rate.")
@click.option(
    "--subset",
    default=0,
    show_default=True,
    type=click.IntRange(0, TRAINING_IMAGES),
    help="Number of training images; 0 is all 55,000.",
)
@click.option(
    "--workers",
    default=os.cpu_count(),
    show_default="number of cores",
    type=click.IntRange(1),
    help="Processes to train in.",
)
@click.option("--save", type=click.Path(path_type=Path), help="Write the plot here, and the table beside it as .md.")
def main(epochs: int, seeds: int, subset: int, workers: int, save: Path | None) -> None:
    """Train with every optimizer, rate and seed, and print a table."""
    started = time.monotonic()
    if save:
        # Not only after hours of training, so that a plot that cannot be written is known now.
        if save.suffix[1:].lower() not in Figure().canvas.get_supported_filetypes():
            raise click.UsageError(f"--save {save}: is for the plot; name a file such as {save.with_suffix('.png')}")
        save.parent.mkdir(parents=True, exist_ok=True)
    # The longest runs start first, so that the cores finish at about the same time.
    order = sorted(RULES, key=lambda name: batch_size(name, count=10**6))
    # Workers are spawned, because a forked copy of a process with torch's threads may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        running = {name: [pool.submit(train, name, seed, epochs, subset) for seed in range(seeds)] for name in order}
        results = {}
        for name in RULES:
            results[name] = torch.stack([run.result() for run in running[name]])
            click.echo(f"{name}: done after {time.monotonic() - started:.0f} s", err=True)
    count = subset or TRAINING_IMAGES
    lines = [conditions(count, seeds), "", *table(results, count), "", NOTES]
    click.echo("\n".join(lines))
    if save:
        save.with_suffix(".md").write_text("\n".join(lines) + f"\n\n![errors]({save.name})\n")
        picture(results).savefig(save)


if __name__ == "__main__":
    main()

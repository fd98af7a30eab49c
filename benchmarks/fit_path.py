"""Fit the constants of serving/inference/path.py on rows of validation digits, and print them.

    python -m benchmarks.fit_path [--rows 40] [--epochs 24] [--signs]

The rows are drawn as in benchmarks/numbers.py and benchmarks/marks.py, with other random numbers, and single digits are
added. For each line, the best path that spells its text counts as the right one. The weights are those with which the
right paths are most probable among all paths (a conditional random field). ``ASPECT`` is measured on the training
digits. The fit moves a little with the model, whose output for the candidates is part of it. With --signs, only the
weights of signs are fitted, on the rows of benchmarks/marks.py, and the others stay as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch

from benchmarks.digits import load_digits
from benchmarks.drawings import Array
from benchmarks.marks import PATTERNS
from benchmarks.numbers import GAPS, KINDS, PHOTOS, UNEVEN, marked, page_of, saved, seed_of
from serving.contract import ModelOutput
from serving.inference.path import PLACE, WEIGHTS, arcs_of
from serving.models import repository
from serving.models.model import Model
from serving.pictures.number_form import LineParts, to_number_page
from serving.settings import RELEASE, Settings
from training.data.digits import load

BATCH, LEARNING_RATE = 32, 0.1
# The fit begins with the network's confidence.
START = np.array([float(name == "log of the confidence") for name in WEIGHTS])
SIGNS = np.array([place >= PLACE["stroke"] for place in PLACE.values()])
# The ink of a digit whose shape is measured is stronger than this.
INKED = 64


class Lattice(NamedTuple):
    """All ways through a line: its arcs, ordered by their end."""

    text: str
    begins: list[int]
    ends: list[int]
    labels: list[str]
    """The digit of each arc; empty for a mark or a part without ink."""
    properties: Array
    """``[arcs, len(WEIGHTS)]``."""


def lattice_of(line: LineParts, output: ModelOutput, text: str) -> Lattice:
    arcs, properties = arcs_of(line, output)
    digits = output.probabilities.argmax(axis=1)
    order = sorted(range(len(arcs)), key=lambda index: arcs[index].end)
    arcs = [arcs[index] for index in order]
    labels = [str(digits[arc.step]) if isinstance(arc.step, int) else "" for arc in arcs]
    return Lattice(text, [arc.begin for arc in arcs], [arc.end for arc in arcs], labels, properties[order])


def lattices(model: Model, rows: int, *, marks_only: bool) -> Iterator[Lattice]:
    """Yield the lattice of each line that was found as it was drawn."""
    images, labels = load_digits("validation")
    drawn = [] if marks_only else numbers(images, labels, rows)
    for number, (pattern, one_hand) in enumerate(itertools.product(PATTERNS.values(), (False, True))):
        random = np.random.default_rng([2, number])
        count = len(KINDS) * rows // 4
        drawn += [marked(pattern, images, labels, random, one_hand=one_hand) for _ in range(count)]
    for picture, text in drawn:
        page = to_number_page(picture, Settings.max_pixels)
        texts = text.split("\n")
        if len(page.lines) != len(texts) or not all(line.candidates for line in page.lines):
            continue
        output, begin = model.classifier.classify(page.images), 0
        for line, own in zip(page.lines, texts, strict=True):
            end = begin + len(line.candidates)
            yield lattice_of(line, output.slice(begin, end), own)
            begin = end


def numbers(images: Array, labels: Array, rows: int) -> list[tuple[bytes, str]]:
    """Return pages with numbers, rows with uneven gaps on difficult pages, and single digits, each with its text."""
    drawn = [
        draw(images, labels, gap, random)
        for number, draw in enumerate(KINDS.values())
        # In a third of the rows the gaps are uneven, as they are in real lines.
        for gap in (*GAPS, UNEVEN, UNEVEN)
        for random in [np.random.default_rng([1, number, seed_of(gap)])]
        for _ in range(rows)
    ]
    for number, draw in enumerate(PHOTOS.values()):
        random = np.random.default_rng([3, number])
        drawn += [draw(images, labels, UNEVEN, random) for _ in range(3 * rows)]
    for scale in (1, 4):
        singles = zip(images[: 12 * rows], labels[: 12 * rows], strict=True)
        drawn += [(saved(page_of(image, scale)), str(label)) for image, label in singles]
    return drawn


def expected(lattice: Lattice, weights: Array) -> tuple[Array, float]:
    """Return the mean sum of properties over all paths, and the logarithm of the sum of their exponentials."""
    scores = lattice.properties @ weights
    count = max(lattice.ends)
    forward, backward = np.full(count + 1, -np.inf), np.full(count + 1, -np.inf)
    forward[0] = backward[count] = 0.0
    arcs = list(zip(lattice.begins, lattice.ends, scores.tolist(), strict=True))
    for begin, end, score in arcs:
        forward[end] = np.logaddexp(forward[end], forward[begin] + score)
    for begin, end, score in sorted(arcs, reverse=True):
        backward[begin] = np.logaddexp(backward[begin], backward[end] + score)
    through = np.exp(forward[lattice.begins] + scores + backward[lattice.ends] - forward[count])
    return through @ lattice.properties, float(forward[count])


def right(lattice: Lattice, weights: Array) -> Array | None:
    """Return the sum of properties of the best path that spells the text, or None if no path does."""
    scores = lattice.properties @ weights
    count, length = max(lattice.ends), len(lattice.text)
    best = {(0, 0): (0.0, np.zeros(len(weights)))}
    for arc, (begin, end, label) in enumerate(zip(lattice.begins, lattice.ends, lattice.labels, strict=True)):
        for spelled in range(length + 1):
            if (begin, spelled) not in best or (label and lattice.text[spelled : spelled + 1] != label):
                continue
            score, properties = best[begin, spelled]
            place = end, spelled + bool(label)
            if place not in best or best[place][0] < score + scores[arc]:
                best[place] = score + scores[arc], properties + lattice.properties[arc]
    found = best.get((count, length))
    return None if found is None else found[1]


def fit(examples: list[Lattice], epochs: int, start: Array, moving: Array) -> Array:
    """Return the weights with which the right paths are most probable.

    Args:
        moving: which of the weights are fitted, bool ``[len(WEIGHTS)]``.
    """
    weights = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.Adam([weights], LEARNING_RATE)
    batches = torch.utils.data.DataLoader[list[Lattice]](
        examples,  # type: ignore[arg-type]  # A list serves as a data set too.
        BATCH,
        shuffle=True,
        collate_fn=list,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs * len(batches))
    for epoch in range(epochs):
        losses = []
        for batch in batches:
            gradient, now = np.zeros_like(start), weights.detach().numpy()
            for lattice in batch:
                wanted = right(lattice, now)
                if wanted is not None:
                    found, total = expected(lattice, now)
                    gradient += (found - wanted) / BATCH
                    losses.append(total - wanted @ now)
            weights.grad = torch.from_numpy(gradient * moving)
            optimizer.step()
            schedule.step()
        click.echo(f"epoch {epoch + 1}: loss {np.mean(losses):.4f} of {len(losses)} lines")
    return weights.detach().numpy()


def aspects() -> Iterator[tuple[float, float]]:
    """Yield the mean and the deviation of the logarithm of width / height of the training digits 0 to 9."""
    train = load("mnist").train
    images: Array = train.images.numpy() > INKED
    labels = train.labels.numpy()
    high, wide = (np.array([np.ptp(np.flatnonzero(line)) + 1 for line in images.any(axis=axis)]) for axis in (2, 1))
    ratio = np.log(wide / high)
    for digit in range(10):
        yield float(ratio[labels == digit].mean()), float(ratio[labels == digit].std())


@click.command()
@click.option("--rows", default=40, show_default=True, type=click.IntRange(min=1), help="Pages of each kind and gap.")
@click.option("--epochs", default=24, show_default=True, help="Passes over all lines.")
@click.option("--signs", "signs_only", is_flag=True, help="Fit only the weights of signs.")
@click.option("--repository", "folder", type=click.Path(path_type=Path), default=RELEASE, help="Model repository.")
def main(rows: int, epochs: int, signs_only: bool, folder: Path) -> None:
    """Fit the constants of serving/inference/path.py, and print them."""
    means, deviations = zip(*aspects(), strict=True)
    click.echo(f"ASPECT = {tuple(round(mean, 2) for mean in means)}")
    click.echo(f"ASPECT_DEVIATION = {tuple(round(deviation, 2) for deviation in deviations)}")
    torch.manual_seed(0)
    examples = list(lattices(repository.load(folder, "mnist"), rows, marks_only=signs_only))
    start, moving = (np.array([*WEIGHTS.values()]), SIGNS) if signs_only else (START, np.ones_like(SIGNS))
    weights = fit(examples, epochs, start, moving)
    for name, weight in zip(WEIGHTS, weights.tolist(), strict=True):
        click.echo(f'"{name}": {weight:.2f},')


if __name__ == "__main__":
    main()

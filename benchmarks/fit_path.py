"""Fit the constants of serving/inference/path.py on rows of validation digits, and print them.

    python -m benchmarks.fit_path [--rows 40] [--epochs 6]

The rows are drawn as in benchmarks/numbers.py, with other random numbers, and single digits are added. For each line,
the best path that spells its text counts as the right one. The weights are those with which the right paths are most
probable among all paths (a conditional random field, fitted with Adam). ``ASPECT`` is measured on the training digits.
The fit moves a little with the model, whose output for the candidates is part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from benchmarks.digits import load_digits
from benchmarks.drawings import Array
from benchmarks.numbers import GAPS, KINDS, UNEVEN, encode, page_of, seed_of
from serving.contract import ModelOutput
from serving.inference.path import LARGEST_MARK, MARK_CONSTANT, WEIGHTS, properties_of
from serving.models import repository
from serving.models.model import Model
from serving.pictures.number_form import LineParts, to_number_page
from serving.settings import RELEASE, Settings
from training.data.digits import load

BATCH, LEARNING_RATE, DECAY = 32, 0.05, 1e-3
# The fit begins with the network's confidence alone, and with a low score of marks.
START = np.array([0.0, 1.0, *np.zeros(len(WEIGHTS) - 2), -4.0])
# The ink of a digit whose shape is measured is stronger than this.
INKED = 64


class Lattice(NamedTuple):
    """All ways through a line: arcs between its cuts, ordered by their end."""

    text: str
    begins: list[int]
    ends: list[int]
    labels: list[str]
    """The digit of each arc; empty for a mark or a part without ink."""
    properties: Array
    """``[arcs, len(START)]``."""


def lattice_of(line: LineParts, output: ModelOutput, text: str) -> Lattice:
    arcs: list[tuple[int, int, str, Array]] = []
    digits = output.probabilities.argmax(axis=1)
    for candidate, digit, row in zip(line.candidates, digits, properties_of(line, output), strict=True):
        arcs.append((candidate.end, candidate.first, str(digit), np.append(row, 0.0)))
    for at, part in enumerate(line.parts):
        size = max(part.height, part.width)
        if size < LARGEST_MARK:
            last = MARK_CONSTANT + size if size else 0.0
            arcs.append((at + 1, at, "", np.append(np.zeros(len(WEIGHTS)), last)))
    arcs.sort(key=lambda arc: arc[:2])
    ends, begins, labels, rows = zip(*arcs, strict=True)
    return Lattice(text, list(begins), list(ends), list(labels), np.array(rows))


def lattices(model: Model, rows: int) -> Iterator[Lattice]:
    """Yield the lattice of each line that was found as it was drawn."""
    images, labels = load_digits("validation")
    drawn = [
        draw(images, labels, gap, random)
        for number, draw in enumerate(KINDS.values())
        # In a third of the rows the gaps are uneven, as they are in real lines.
        for gap in (*GAPS, UNEVEN, UNEVEN)
        for random in [np.random.default_rng([1, number, seed_of(gap)])]
        for _ in range(rows)
    ]
    for scale in (1, 4):
        singles = zip(images[: 12 * rows], labels[: 12 * rows], strict=True)
        drawn += [(encode(page_of(image, scale)), str(label)) for image, label in singles]
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


def fit(examples: list[Lattice], epochs: int) -> Array:
    """Return the weights with which the right paths are most probable."""
    random = np.random.default_rng(0)
    weights, mean, square = START.copy(), np.zeros_like(START), np.zeros_like(START)
    step = 0
    for epoch in range(epochs):
        losses = []
        for batch in np.array_split(random.permutation(len(examples)), max(1, len(examples) // BATCH)):
            gradient = DECAY * weights
            for index in batch:
                wanted = right(examples[index], weights)
                if wanted is None:
                    continue
                found, total = expected(examples[index], weights)
                gradient += (found - wanted) / BATCH
                losses.append(total - wanted @ weights)
            step += 1
            mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
            rate = LEARNING_RATE * (1 - 0.9 * epoch / epochs)
            weights = weights - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
        click.echo(f"epoch {epoch + 1}: loss {np.mean(losses):.4f} of {len(losses)} lines")
    return weights


def aspects() -> Iterator[tuple[float, float]]:
    """Yield the mean and the deviation of the logarithm of width / height of the training digits 0 to 9."""
    train = load("mnist").train
    images, labels = train.images.numpy() > INKED, train.labels.numpy()
    high, wide = (np.array([np.ptp(np.flatnonzero(line)) + 1 for line in images.any(axis=axis)]) for axis in (2, 1))
    ratio = np.log(wide / high)
    for digit in range(10):
        yield float(ratio[labels == digit].mean()), float(ratio[labels == digit].std())


@click.command()
@click.option("--rows", default=40, show_default=True, help="Pages of each kind and gap.")
@click.option("--epochs", default=6, show_default=True, help="Passes over all lines.")
@click.option("--repository", "folder", type=click.Path(path_type=Path), default=RELEASE, help="Model repository.")
def main(rows: int, epochs: int, folder: Path) -> None:
    """Fit the constants of serving/inference/path.py, and print them."""
    means, deviations = zip(*aspects(), strict=True)
    click.echo(f"ASPECT = {tuple(round(mean, 2) for mean in means)}")
    click.echo(f"ASPECT_DEVIATION = {tuple(round(deviation, 2) for deviation in deviations)}")
    weights = fit(list(lattices(repository.load(folder, "mnist"), rows)), epochs)
    *own, mark = (round(weight, 2) for weight in weights.tolist())
    click.echo(f"WEIGHTS = {tuple(own)}\nMARK_WEIGHT = {mark}")


if __name__ == "__main__":
    main()

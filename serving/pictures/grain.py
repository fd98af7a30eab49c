"""Reduce the ink of a page of numbers if grain breaks the strokes of its pencil or chalk into pieces."""

from __future__ import annotations

import numpy as np
from PIL import Image

from serving.pictures.ink import Ink
from serving.pictures.normalize import BOX
from serving.pictures.pieces import find_pieces, usual_height

# Reduced ink that is weaker than this share of the strongest is the edge of a stroke.
EDGE = 0.05
# At half the size, a whole stroke has half of its horizontal runs. Ink with grain has fewer, by this factor or more.
GRAINY = 2.15
# The most horizontal runs of ink of a picture. A page of 200 digits has about 10,000. More is a texture.
MAX_RUNS = 30_000


def without_grain(ink: Ink) -> Ink:
    """Return the ink at a half or less of its size if it has grain, as long as its digits keep ``BOX`` pixels."""
    while min(ink.shape) >= 2 * BOX:
        half = shrink(ink, 2)
        if _count_runs(ink) < GRAINY * _count_runs(half) or usual_height(find_pieces(half)) < BOX:
            break
        ink = half
    return ink


def shrink(ink: Ink, factor: float) -> Ink:
    """Return the ink averaged down by a factor of at least 1."""
    if factor == 1:
        return ink
    height, width = (max(1, round(side / factor)) for side in ink.shape)
    small = np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BOX))
    return np.where(small < EDGE * small.max(), 0, small)


def _count_runs(ink: Ink) -> int:
    """Return the number of horizontal runs of ink."""
    inked = ink > 0
    return int(np.count_nonzero(inked[:, 1:] & ~inked[:, :-1]))


def is_texture(ink: Ink) -> bool:
    """Return whether the ink has far more runs than digits have, and would take too long."""
    return _count_runs(ink) > MAX_RUNS

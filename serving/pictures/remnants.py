"""Leave out what is left of things that are broader than strokes, such as a finger at the edge of a photo.

The window that estimates the paper sees no paper on such a thing, so most of it becomes paper. At its ends and corners,
some of it is left as ink. Such ink has edges where the page is even and only the estimated paper changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.pictures.grain import is_texture
from serving.pictures.ink import Ink
from serving.pictures.morphology import grey_dilation, grey_erosion
from serving.pictures.paper import Bytes
from serving.pictures.pieces import erase, find_pieces

# Steps of the paper are looked for on a page whose longer side has about this many pixels.
STEPS_SIDE = 192
# Across an edge, the page changes by at least this share of the ink. If it does not, the edge is open.
CLOSED = 0.5
# A piece is left of something broader if at least this share of its edges is open.
OPEN = 0.4

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int32]


def without_remnants(ink: Ink, values: Bytes, paper: Bytes, least: float) -> Ink:
    """Return the ink without what is left of things that are broader than strokes.

    Args:
        values: the page, on which the ink is dark.
        paper: the estimated brightness of the paper.
        least: the ink was looked for above this contrast, so smaller steps of the paper leave nothing.
    """
    steps = _steps_of(paper, least)
    if steps is None or is_texture(ink):
        return ink
    pieces = find_pieces(ink)
    # All pieces are looked at together: the boxes around some of them may be as large as the page.
    numbers = np.full(ink.shape, len(pieces), np.int32)
    for number, piece in enumerate(pieces):
        for row, start, end in piece.runs:
            numbers[row, start:end] = number
    ends, closed = np.zeros((2, len(pieces) + 1))
    for of_ends, are_closed in (_ends_of(numbers, ink, values), _ends_of(numbers.T, ink.T, values.T)):
        ends += np.bincount(of_ends, minlength=len(ends))
        closed += np.bincount(of_ends, are_closed, len(ends))
    is_near_step = np.zeros(len(ends), bool)
    is_near_step[numbers[steps]] = True
    is_left = (is_near_step & (closed < (1 - OPEN) * ends)).tolist()
    return erase(ink, [piece for number, piece in enumerate(pieces) if is_left[number]])


def _steps_of(paper: Bytes, least: float) -> Mask | None:
    """Return the pixels near steps of the paper, or None if there are none."""
    height, width = paper.shape
    # Paper is smooth, so some of its pixels are enough.
    step = max(1, max(paper.shape) // STEPS_SIDE)
    small = paper[::step, ::step]
    steps = grey_dilation(small, 3) - grey_erosion(small, 3) > least
    if not steps.any():
        return None
    return np.asarray(Image.fromarray(steps).resize((width, height), Image.Resampling.NEAREST))


def _ends_of(numbers: Numbers, ink: Ink, page: Bytes) -> tuple[Numbers, Mask]:
    """Return for the ends of all horizontal runs of ink the number of their piece, and whether the page changes there.

    Args:
        numbers: the number of the piece of each pixel.
    """
    inked = np.pad(ink > 0, [(0, 0), (1, 1)])
    rows, starts = np.nonzero(inked[:, 1:-1] & ~inked[:, :-2])
    _, lasts = np.nonzero(inked[:, 1:-1] & ~inked[:, 2:])
    middles = (starts + lasts) // 2
    least = page[rows, middles] + CLOSED * ink[rows, middles]
    of_ends, are_closed = [], []
    for outside in (starts - 1, lasts + 1):
        # Beyond the border of the page there is nothing to compare.
        within = (outside >= 0) & (outside < ink.shape[1])
        of_ends.append(numbers[rows[within], starts[within]])
        are_closed.append(page[rows[within], outside[within]] >= least[within])
    return np.concatenate(of_ends), np.concatenate(are_closed)

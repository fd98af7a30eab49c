"""Leave out what is left of things that are broader than strokes, such as a finger at the edge of a photo.

The window that estimates the paper sees no paper on such a thing, so most of it becomes paper. At its ends and corners,
some of it is left as ink. Such ink has edges where the page is even and only the estimated paper changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.pictures.ink import Ink
from serving.pictures.morphology import grey_dilation, grey_erosion
from serving.pictures.paper import Bytes
from serving.pictures.pieces import Piece, erase, find_pieces

# Steps of the paper are looked for on a page whose longer side has about this many pixels.
STEPS_SIDE = 192
# Across an edge, the page changes by at least this share of the ink. If it does not, the edge is open.
CLOSED = 0.5
# A piece is left of something broader if at least this share of its edges is open.
OPEN = 0.3

Mask = npt.NDArray[np.bool_]


def without_remnants(ink: Ink, values: Bytes, paper: Bytes, least: float) -> Ink:
    """Return the ink without what is left of things that are broader than strokes.

    Args:
        values: the page, on which the ink is dark.
        paper: the estimated brightness of the paper.
        least: the ink was looked for above this contrast, so smaller steps of the paper leave nothing.
    """
    steps = _steps_of(paper, least)
    if steps is None:
        return ink
    return erase(ink, [piece for piece in find_pieces(ink) if _touches(piece, steps) and _is_open(piece, ink, values)])


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


def _touches(piece: Piece, steps: Mask) -> bool:
    return any(steps[row, start:end].any() for row, start, end in piece.runs)


def _is_open(piece: Piece, ink: Ink, values: Bytes) -> bool:
    """Return whether the page does not change across many of the piece's edges."""
    box = slice(max(0, piece.top - 1), piece.bottom + 1), slice(max(0, piece.left - 1), piece.right + 1)
    shown, page = np.zeros_like(ink[box]), values[box].astype(np.float32)
    for row, start, end in piece.runs:
        run = row - box[0].start, slice(start - box[1].start, end - box[1].start)
        shown[run] = ink[row, start:end]
    closed = np.concatenate([*_closed(shown, page), *_closed(shown.T, page.T)])
    return len(closed) > 0 and float(closed.mean()) <= 1 - OPEN


def _closed(ink: Ink, page: Ink) -> Iterator[Mask]:
    """Yield for the left ends, then for the right ends of all runs whether the page changes there."""
    inked = ink > 0
    width = inked.shape[1]
    rows, starts = np.nonzero(inked & ~np.pad(inked, [(0, 0), (1, 0)])[:, :-1])
    _, lasts = np.nonzero(inked & ~np.pad(inked, [(0, 0), (0, 1)])[:, 1:])
    middles = (starts + lasts) // 2
    least = page[rows, middles] + CLOSED * ink[rows, middles]
    for outside in (starts - 1, lasts + 1):
        # Beyond the border of the page there is nothing to compare.
        within = (outside >= 0) & (outside < width)
        yield page[rows[within], outside[within]] >= least[within]

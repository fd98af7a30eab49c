"""Leave out what is left on a page of numbers of things broader than strokes, such as a finger at its edge.

The window that estimates the paper sees no paper on such a thing, so most of it becomes paper. At its ends and corners,
some of it is left as ink. Such ink has edges where the page is even and only the estimated paper changes.
"""

from __future__ import annotations

import numpy as np

from serving.pictures.decode import WHITE
from serving.pictures.grain import is_texture
from serving.pictures.ink import Ink
from serving.pictures.morphology import grey_dilation, grey_erosion
from serving.pictures.page import Mask
from serving.pictures.paper import Bytes, paper_stride
from serving.pictures.pieces import Piece, cut_out, erase, find_pieces

# At a closed end of a run of ink, the page changes by at least this share of the ink.
CLOSED = 0.5
# A piece is left of something broader if less than this share of its runs is closed at both ends, as strokes are. A
# digit that lies across the edge of a shadow has some open ends, too.
LEAST_CLOSED = 0.3


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
    step = paper_stride(paper)
    near = [
        piece
        for piece in find_pieces(ink)
        if steps[piece.top // step : -(-piece.bottom // step), piece.left // step : -(-piece.right // step)].any()
    ]
    if not near:
        return ink
    # The boxes around pieces that enclose each other may be as large as the page.
    if sum(piece.height * piece.width for piece in near) > ink.size:
        return ink
    page = np.pad(values, 1, constant_values=WHITE)
    return erase(ink, [piece for piece in near if _share_of_closed_runs(piece, ink, page) < LEAST_CLOSED])


def _steps_of(paper: Bytes, least: float) -> Mask | None:
    """Return where the paper steps, for one pixel in ``paper_stride`` rows and columns, or None if it steps nowhere."""
    step = paper_stride(paper)
    small = paper[::step, ::step]
    steps = grey_dilation(small, 3) - grey_erosion(small, 3) > least
    return steps if steps.any() else None


def _share_of_closed_runs(piece: Piece, ink: Ink, page: Bytes) -> float:
    """Return the share of the horizontal and vertical runs of ink at both of whose ends the page changes.

    Args:
        page: with a border of one pixel, because a stroke that the border cuts off is closed there.
    """
    alone = cut_out(ink, [piece])
    around = page[piece.top : piece.bottom + 2, piece.left : piece.right + 2]
    are_closed = [_closed(alone, around[1:-1]), _closed(alone.T, around.T[1:-1])]
    return float(np.concatenate(are_closed).mean())


def _closed(ink: Ink, page: Bytes) -> Mask:
    """Return for each horizontal run of ink whether the page changes at both ends.

    Args:
        page: with one more column on each side.
    """
    inked = np.pad(ink > 0, [(0, 0), (1, 1)])
    rows, starts = np.nonzero(inked[:, 1:-1] & ~inked[:, :-2])
    _, lasts = np.nonzero(inked[:, 1:-1] & ~inked[:, 2:])
    middles = (starts + lasts) // 2
    least = page[rows, middles + 1] + CLOSED * ink[rows, middles]
    return np.asarray((page[rows, starts] >= least) & (page[rows, lasts + 2] >= least))

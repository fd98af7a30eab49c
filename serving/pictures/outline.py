"""Fill the outline of a digit, such as that of an outlined font or the white edge of a sticker."""

from __future__ import annotations

from operator import attrgetter

import numpy as np

from serving.pictures.ink import STROKE, Ink, breadth_of, spans_of, strongest
from serving.pictures.page import Mask
from serving.pictures.pieces import Piece, find_pieces, mask_of
from serving.pictures.sheet import area_of_hull

# A smaller picture is too coarse to tell an outline from a stroke.
LEAST_SIDE = 40
# An outline encloses paper that is at least this long, as a share of all ink. The eyes of most digits are shorter.
LONG = 0.75
# This paper is as narrow as the strokes of a digit: its breadth is at most this share of its length.
NARROW = 0.24
# It has bays: with all that it encloses, it fills less than this share of its convex hull. A circle or a box around a
# digit has none, nor has a 0. The outline of a 1 may have none either, and looks like a narrow 0.
CONVEX = 0.94


def inside_outline(ink: Ink) -> Ink | None:
    """Return what the outline of a digit encloses as ink of the same shape, or None if there is no outline."""
    if max(ink.shape) < LEAST_SIDE:
        return None
    # A thin line is weak in places. The inside of a sticker may be ink too, which is weaker than its edge.
    for least in (0.0, STROKE * strongest(ink)):
        inside = _inside(ink > least)
        if inside is not None:
            return inside.astype(np.float32)
    return None


def _inside(strokes: Mask) -> Mask | None:
    """Return the largest part of the paper that strokes enclose if it may be a digit, else None."""
    longest = LONG * max(end - begin for begin, end in spans_of(strokes))
    # Most digits enclose nothing so long, and counting takes less time than finding it.
    if max(_crossed_twice(strokes), _crossed_twice(strokes.T)) < longest:
        return None
    hole = max(_enclosed(strokes), key=attrgetter("area"), default=None)
    if hole is None or hole.length < longest:
        return None
    inside = mask_of([hole], strokes.shape)
    filled = hole.area + sum(piece.area for piece in _enclosed(inside))
    is_digit = filled < CONVEX * area_of_hull(hole) and breadth_of(inside) <= NARROW * hole.length
    return inside if is_digit else None


def _crossed_twice(strokes: Mask) -> int:
    """Return how many rows enter strokes at least twice."""
    return int(np.count_nonzero(np.count_nonzero(strokes[:, 1:] > strokes[:, :-1], axis=1) > 1))


def _enclosed(mask: Mask) -> list[Piece]:
    """Return the pieces of what is not in the mask that do not touch the border."""
    return [piece for piece in find_pieces((~mask).astype(np.float32)) if piece.is_inside(mask.shape)]

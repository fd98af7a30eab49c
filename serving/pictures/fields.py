"""Find the printed fields of a form: boxes, combs of boxes, and fields that are open at the top."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.pictures.pieces import Piece
from serving.pictures.shapes import MAX_PIECES

# The lines of a field fill at most this share of its bounding box.
HOLLOW = 0.45
# A field is at least this many times as wide as high. A 0 of straight strokes, as on a calculator, is narrower.
LEAST_WIDTH = 0.6
# A field has at least this many pixels a side. On fewer pixels, a round digit has straight sides.
LEAST_SIDE = 12
# Ink belongs to a side if it is at most this far from it, as a share of the field's shorter side, and in pixels.
NEAR, LEAST_NEAR = 0.06, 2
# The three sides of a field have ink along at least this share of their length. A round digit has less.
COVERED = 0.9
# The lower side rises or falls by at most this many rows per column.
STEEPEST = 0.25


def find_fields(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces that are fields. There are none on a page with very many pieces of their size."""
    large = [piece for piece in pieces if min(piece.height, piece.width) >= LEAST_SIDE]
    return [piece for piece in large if _is_field(piece)] if len(large) <= MAX_PIECES else []


def _is_field(piece: Piece) -> bool:
    """Return whether a piece is thin and has three straight sides with right angles: left, right and below."""
    # The bounding box of a field that is turned is no narrower than the field, compared with its height.
    if piece.area > HOLLOW * piece.height * piece.width or piece.width < LEAST_WIDTH * piece.height:
        return False
    rows, starts, ends = np.array(piece.runs).T
    slope = _slope_below(rows, starts - piece.left, ends - piece.left)
    if abs(slope) > STEEPEST:
        return False
    lengths = ends - starts
    y = np.repeat(rows - piece.top, lengths).astype(np.float64)
    x = np.arange(len(y)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts - piece.left, lengths)
    # Turned so that the lower side is level.
    x, y = x + slope * y, y - slope * x
    x, y = x - x.min(), y - y.min()
    right, bottom = x.max(), y.max()
    if right < LEAST_WIDTH * bottom:
        return False
    near = max(LEAST_NEAR, NEAR * min(right, bottom))
    return all(
        _covered(along[across <= near]) >= COVERED * length
        for along, across, length in ((y, x, bottom), (y, right - x, bottom), (x, bottom - y, right))
    )


def _slope_below(rows: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> float:
    """Return how many rows the lower side of a piece falls per column."""
    lowest = np.zeros(ends.max())
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        lowest[start:end] = row
    # Some columns at one end may show a side of a field that is turned, so the slope is a median.
    half = len(lowest) // 2
    return float(np.median(lowest[half:] - lowest[: len(lowest) - half])) / half


def _covered(places: npt.NDArray[np.float64]) -> int:
    """Return how many whole pixels the places fall on."""
    return len(np.unique(np.rint(places)))

"""Join the dots of a dotted digit, such as those of a dot-matrix display, to strokes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.pictures.ink import Ink
from serving.pictures.morphology import grey_dilation
from serving.pictures.pieces import Piece, distance, size_of

# The fewest and the most dots of a digit. The faces of dice and the cells of braille have at most 6.
LEAST, MOST = 7, 60
# The longest dot, as a share of the longer side of the digit.
LARGEST = 0.25
# Dots are alike: none is this many times as long as the median.
LONGER = 1.6
# A dot fills at least this share of its box. A diamond or a triangle fills a half, and most letters fill less.
FULL = 0.42
# The widest gap from a dot to the nearest one, in lengths of a dot.
GAP = 1.6
# This share of the dots has such a gap. The others may lie apart.
NOT_APART = 0.95


def joined_dots(ink: Ink, pieces: Sequence[Piece]) -> Ink | None:
    """Return the ink with its dots joined to strokes, or None if the pieces are not dots close to each other.

    Args:
        pieces: the pieces of the ink without specks.
    """
    if not LEAST <= len(pieces) <= MOST:
        return None
    lengths = sorted(piece.length for piece in pieces)
    usual = lengths[len(lengths) // 2]
    if lengths[-1] > min(LARGEST * max(size_of(pieces)), LONGER * usual):
        return None
    if any(piece.area < FULL * piece.height * piece.width for piece in pieces):
        return None
    gaps = sorted(min(distance(piece, other) for other in pieces if other is not piece) for piece in pieces)
    gap = gaps[int(NOT_APART * (len(gaps) - 1))]
    if gap > GAP * usual:
        return None
    size = gap + 2
    return grey_dilation(np.pad(ink, size), size)

"""Leave out solid shapes on a page of numbers that no pen draws: punched holes, buttons, a pen on the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from serving.pictures.pieces import Piece, usual_height

# A piece is looked at if it fills at least this share of its box. A bar that lies askew fills less, but it is long: at
# least this many times the usual height.
LEAST_FILLED, LONG = 0.45, 1.3
# A shape has at least this share of the area of the rectangle with the same spread of pixels. A bent stroke has less.
SOLID = 0.85
# Its outline is at most this many times as long as that of the rectangle. Eyes and bays make an outline longer.
ROUND = 1.2
# A shape is at least this many times as broad as the broadest strokes, and less broad than digits are high.
BROADER = 1.6
# The strokes are those of all pieces that are no shapes and have at least this share of the ink of the largest one.
LARGE = 0.25
# A shape that is shorter than this may be a dot between digits. This is a share of the usual height of the strokes.
LEAST_SIDE = 0.2
# A shape that is less than this many times as long as broad is no bar. If it is higher than this share of the usual
# height of the strokes, it may be a digit whose eyes are filled with ink.
BAR, HIGHEST_SPOT = 3.0, 0.7
# An upright bar may be a 1 of a broader pen if it is also at most this high.
HIGHEST_ONE = 1.4

# A piece whose longer side is shorter than this share of the usual height is dirt.
LEAST_PIECE = 0.1
# The most pieces of a page. A page of 200 digits has about 250. More is a texture, and takes too long.
MAX_PIECES = 500


def without_shapes(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces without solid shapes that are far broader than the strokes of the others."""
    if not pieces:
        return []
    usual = usual_height(pieces)
    large = [piece for piece in pieces if piece.length >= LEAST_PIECE * usual]
    if len(large) > MAX_PIECES:
        return list(pieces)
    solid = {piece: sides for piece in large if _may_be_solid(piece, usual) and (sides := _solid_sides(piece))}
    strokes = [piece for piece in large if piece not in solid]
    if not solid or not strokes:
        return list(pieces)
    height, most = usual_height(strokes), max(piece.mass for piece in strokes)

    def is_digit_or_dot(piece: Piece) -> bool:
        length, breadth = solid[piece]
        if length < LEAST_SIDE * height:
            return True
        is_spot = length < BAR * breadth
        is_one = piece.width < piece.height <= HIGHEST_ONE * height
        return piece.height > HIGHEST_SPOT * height and (is_spot or is_one)

    shapes = {piece for piece, (_, breadth) in solid.items() if breadth <= height and not is_digit_or_dot(piece)}
    if not shapes:
        return list(pieces)
    broadest = max(breadth_of_piece(piece) for piece in strokes if piece.mass >= LARGE * most)
    return [piece for piece in pieces if piece not in shapes or solid[piece][1] < BROADER * broadest]


def _may_be_solid(piece: Piece, height: float) -> bool:
    is_full = piece.area >= LEAST_FILLED * piece.height * piece.width
    return is_full or piece.length >= LONG * height


def _solid_sides(piece: Piece) -> tuple[float, float] | None:
    """Return length and breadth of a solid piece, such as a disc or a bar in any direction. Return None for others."""
    length, breadth = _sides(piece)
    if piece.area < SOLID * length * breadth:
        return None
    outline = 2 * piece.area / breadth_of_piece(piece)
    return (length, breadth) if outline <= ROUND * 2 * (length + breadth) else None


def breadth_of_piece(piece: Piece) -> float:
    """Estimate the mean breadth of the strokes of a piece as ``breadth_of`` does, from its runs."""
    rows, starts, ends = np.array(piece.runs).T
    lengths = ends - starts
    width = piece.width + 1
    # The places of all pixels, row after row, in a box with one empty column.
    begins = (rows - piece.top) * width + starts - piece.left
    places = np.repeat(begins - np.concatenate([[0], lengths.cumsum()[:-1]]), lengths) + np.arange(piece.area)
    below = np.count_nonzero(np.isin(places + width, places, assume_unique=True))
    steps = 2 * len(rows) + 2 * (piece.area - below)
    return 2 * piece.area / (steps * math.pi / 4)


def _sides(piece: Piece) -> tuple[float, float]:
    """Return the longer and the shorter side of the rectangle whose pixels spread as far as those of the piece."""
    rows, starts, ends = np.array(piece.runs, np.float64).T
    lengths = ends - starts
    shares = lengths / piece.area
    x, y = (starts + ends) / 2, rows
    x, y = x - shares @ x, y - shares @ y
    # A rectangle with sides a and b has the variances a² / 12 and b² / 12. So have a run, and the pixels of a row.
    xx, yy, xy = shares @ (x * x + lengths * lengths / 12), shares @ (y * y) + 1 / 12, shares @ (x * y)
    middle, spread = float(xx + yy) / 2, math.hypot(xx - yy, 2 * xy) / 2
    return math.sqrt(12 * (middle + spread)), math.sqrt(12 * max(0.0, middle - spread))

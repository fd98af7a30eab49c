"""Leave out pieces of ink that are no digits: dirt, the frame of a page, a desk or a shadow at its border."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.pictures.pieces import Piece

# A piece whose longer side is shorter than this share of the usual height is dirt.
LEAST_PIECE = 0.1
# The most pieces of a page. A page of 200 digits has about 250. More is a texture, and takes too long.
MAX_PIECES = 500
# A piece is the frame of the page if it is at least this share of both sides long, and ink fills no more than this.
FRAME_SIDE, FRAME_INK = 0.8, 0.2
# A piece at the border is a shadow if its ink is weaker than this share of the usual ink.
SHADOW = 0.75
# A desk, a finger or the edge of a scan touches the border with at least this share of its own longer side.
CONTACT = 0.5
# A piece at the border is still a digit if a piece inside is at most so many times as high or as low, if both share at
# least this part of the lower height, and if the piece is at most so many times as wide as the other one is high.
ALIKE, SAME_ROWS, WIDE = 1.5, 0.7, 1.5


def without_clutter(pieces: Sequence[Piece], shape: tuple[int, ...]) -> list[Piece]:
    """Return the pieces that may belong to digits.

    Args:
        shape: height and width of the page.
    """
    pieces = _without_shadows(_without_frame(pieces, shape), shape)
    along = [piece for piece in pieces if _is_along_border(piece, shape)]
    ids = {id(piece) for piece in along}
    inside = [piece for piece in pieces if id(piece) not in ids]
    if not inside:
        inside, along = along, []
    if not inside:
        return []
    least = LEAST_PIECE * usual_height(inside)
    inside, along = ([piece for piece in some if max(size_of(piece)) >= least] for some in (inside, along))
    if len(inside) + len(along) > MAX_PIECES:
        return []
    return inside + [piece for piece in along if any(_is_beside(piece, other) for other in inside)]


def size_of(piece: Piece) -> tuple[int, int]:
    return piece.bottom - piece.top, piece.right - piece.left


def usual_height(pieces: Sequence[Piece]) -> float:
    """Return the median of the heights, in which each piece counts by its ink."""
    ordered = sorted(pieces, key=lambda piece: piece.bottom - piece.top)
    masses = np.cumsum([piece.mass for piece in ordered])
    return float(size_of(ordered[int(np.searchsorted(masses, masses[-1] / 2))])[0])


def _without_frame(pieces: Sequence[Piece], shape: tuple[int, ...]) -> list[Piece]:
    def is_frame(piece: Piece) -> bool:
        height, width = size_of(piece)
        is_long = height >= FRAME_SIDE * shape[0] and width >= FRAME_SIDE * shape[1]
        return is_long and _pixels(piece) <= FRAME_INK * height * width

    rest = [piece for piece in pieces if not is_frame(piece)]
    return rest or list(pieces)


def _without_shadows(pieces: Sequence[Piece], shape: tuple[int, ...]) -> list[Piece]:
    """Return the pieces without the corners of shadows, in which the paper could not be estimated."""
    inside: list[Piece] = []
    at_edge: list[Piece] = []
    for piece in pieces:
        (at_edge if _is_at_border(piece, shape) else inside).append(piece)
    if not inside or not at_edge:
        return list(pieces)
    usual = sum(piece.mass for piece in inside) / sum(map(_pixels, inside))
    return [*inside, *(piece for piece in at_edge if piece.mass >= SHADOW * usual * _pixels(piece))]


def _pixels(piece: Piece) -> int:
    return sum(end - start for _, start, end in piece.runs)


def _is_at_border(piece: Piece, shape: tuple[int, ...]) -> bool:
    return not (piece.top > 0 and piece.bottom < shape[0] and piece.left > 0 and piece.right < shape[1])


def _is_along_border(piece: Piece, shape: tuple[int, ...]) -> bool:
    """Return whether a piece touches one side of the page with a large part of its own length."""
    if not _is_at_border(piece, shape):
        return False
    height, width = shape
    level = (sum(end - start for row, start, end in piece.runs if row == at) for at in (0, height - 1))
    upright = (sum(start <= at < end for _, start, end in piece.runs) for at in (0, width - 1))
    return max(*level, *upright) >= CONTACT * max(size_of(piece))


def _is_beside(piece: Piece, other: Piece) -> bool:
    """Return whether a piece at the border stands beside another one as a digit beside a digit."""
    (height, width), usual = size_of(piece), size_of(other)[0]
    shared = min(piece.bottom, other.bottom) - max(piece.top, other.top)
    is_alike = max(height, usual) <= ALIKE * min(height, usual) and width <= WIDE * usual
    return is_alike and shared >= SAME_ROWS * min(height, usual)

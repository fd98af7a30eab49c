"""Leave out long weak lines on a page of numbers: the ring of a cup, the shadow at the edge of a note, a crease."""

from __future__ import annotations

import numpy as np

from serving.pictures.decode import WHITE
from serving.pictures.grain import is_texture
from serving.pictures.ink import Ink
from serving.pictures.morphology import grey_dilation
from serving.pictures.page import Mask
from serving.pictures.paper import STRONG, Bytes, contrast
from serving.pictures.pieces import Piece, erase, find_pieces, touches, usual_height
from serving.pictures.shapes import breadth_of_piece

# On a page of half the size, ink in a window of this side around a strong stroke may be its blurred edge.
EDGE = 5
# The page has weak ink if this share of its ink is weak.
WEAK = 0.01
# A weak line is at least this long, and on average at most this broad, as a share of the usual height of strong ink.
LONG, BROADEST = 1.4, 0.3
# A shorter one, in pixels, is no line on any page: lower digits cannot be read.
LEAST_LONG = 20
# Its mean contrast is at most this many times the least contrast of a stroke. Most of it is too weak for a pencil.
FAINTER = 1.2
# What is left of a line is weaker than this share of the mean strength of all ink.
REST = 0.75


def without_stains(ink: Ink, paper: Bytes, least: float) -> Ink:
    """Return the ink without long weak lines.

    Args:
        ink: with what is too weak for a stroke, because most of such a line may be.
        paper: the brightness of the paper. In a shadow, also strong ink has little contrast.
        least: ink of less contrast is too weak for a stroke.
    """
    # A quarter of the pixels tells where the strong strokes are. Most pages have hardly any other ink.
    quarter = ink[::2, ::2]
    inked, near = _weak(quarter, paper[::2, ::2], least)
    if np.count_nonzero(inked & ~near) < WEAK * np.count_nonzero(inked) or is_texture(ink):
        return ink
    rows, columns = ink.shape
    beside = np.where(near.repeat(2, axis=0)[:rows].repeat(2, axis=1)[:, :columns], 0, ink)
    weak = [piece for piece in find_pieces(beside) if _may_be_line(piece, LEAST_LONG, least)]
    if not weak:
        return ink
    height = 2 * usual_height(find_pieces(np.where(inked & near, quarter, 0)))
    lines = [
        piece
        for piece in weak
        if _may_be_line(piece, LONG * height, least) and breadth_of_piece(piece) <= BROADEST * height
    ]
    if not lines:
        return ink
    rest = erase(ink, lines)
    # What is left of a line is stronger than the rest of it, but weaker than the digits that it crosses.
    touched = grey_dilation((rest != ink).astype(np.uint8), 3) > 0
    pieces = find_pieces(np.where(ink >= least, rest, 0))
    strength = REST * float(np.average([p.strength for p in pieces], weights=[p.mass for p in pieces])) if pieces else 0
    return erase(rest, [piece for piece in pieces if piece.strength < strength and touches(piece, touched)])


def _may_be_line(piece: Piece, length: float, least: float) -> bool:
    return piece.length >= length and piece.strength <= FAINTER * least


def _weak(ink: Ink, paper: Bytes, least: float) -> tuple[Mask, Mask]:
    """Return which pixels are ink of at least ``least``, and which may be the blurred edge of a strong stroke."""
    relative = ink * (np.float32(WHITE) / np.maximum(paper, 1).astype(np.float32))
    strong = relative >= STRONG * contrast(relative)
    return ink >= least, grey_dilation(strong.astype(np.uint8), EDGE) > 0

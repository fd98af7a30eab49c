"""Leave out long weak lines beside strong strokes: the ring of a cup, the shadow along the edge of a note, a crease."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.pictures.decode import WHITE
from serving.pictures.grain import is_texture
from serving.pictures.ink import Ink
from serving.pictures.morphology import grey_dilation
from serving.pictures.paper import Bytes, contrast
from serving.pictures.pieces import Piece, erase, find_pieces, usual_height
from serving.pictures.shapes import breadth_of_piece

# Ink of at least this share of the contrast belongs to strong strokes.
STRONG = 0.6
# Ink within this many pixels of a strong stroke may be its blurred edge.
EDGE = 3
# The page has weak ink if this share of its ink is weak.
WEAK = 0.003
# A weak line is at least this long, and on average at most this broad, as a share of the usual height of strong ink.
LONG, BROADEST = 1.4, 0.3
# Its mean contrast is at most this many times the least contrast of a stroke. Most of it is too weak for a pencil.
FAINTER = 1.2
# What is left of a line is weaker than this share of the mean strength of all ink.
REST = 0.75

Mask = npt.NDArray[np.bool_]


def without_stains(ink: Ink, paper: Bytes, least: float) -> Ink:
    """Return the ink without long weak lines.

    Args:
        ink: with what is too weak for a stroke, because most of such a line may be.
        paper: the brightness of the paper. In a shadow, also strong ink has little contrast.
        least: ink of less contrast is too weak for a stroke.
    """
    # A quarter of the pixels tells whether there is weak ink at all. Most pages have none.
    if not _has_weak(*_weak(ink[::2, ::2], paper[::2, ::2], least, EDGE // 2)):
        return ink
    inked, near = _weak(ink, paper, least, EDGE)
    if is_texture(ink):
        return ink
    height = usual_height(find_pieces(np.where(inked & near, ink, 0)))

    def is_line(piece: Piece) -> bool:
        is_long = max(piece.height, piece.width) >= LONG * height and piece.strength <= FAINTER * least
        return is_long and breadth_of_piece(piece) <= BROADEST * height

    lines = list(filter(is_line, find_pieces(np.where(near, 0, ink))))
    if not lines:
        return ink
    rest = erase(ink, lines)
    # What is left of a line is stronger than the rest of it, but weaker than the digits that it crosses.
    touched = grey_dilation((rest != ink).astype(np.uint8), 3) > 0
    pieces = find_pieces(np.where(inked, rest, 0))
    strength = REST * float(np.average([p.strength for p in pieces], weights=[p.mass for p in pieces])) if pieces else 0
    return erase(rest, [piece for piece in pieces if piece.strength < strength and _touches(piece, touched)])


def _touches(piece: Piece, places: Mask) -> bool:
    return any(places[row, start:end].any() for row, start, end in piece.runs)


def _weak(ink: Ink, paper: Bytes, least: float, edge: int) -> tuple[Mask, Mask]:
    """Return which pixels are ink of at least ``least``, and which are within ``edge`` pixels of a strong stroke."""
    relative = ink * (np.float32(WHITE) / np.maximum(paper, 1).astype(np.float32))
    strong = relative >= STRONG * contrast(relative)
    return ink >= least, grey_dilation(strong.astype(np.uint8), 1 + 2 * edge) > 0


def _has_weak(inked: Mask, near: Mask) -> bool:
    return bool(np.count_nonzero(inked & ~near) >= WEAK * np.count_nonzero(inked))

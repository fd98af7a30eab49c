"""Leave out pieces of ink beside a single digit or around it: holes, a finger, the corners of a shadow, a circle."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from serving.pictures.ink import Ink
from serving.pictures.pieces import DIGIT, GAP, Piece, count_large, distance, erase, split_specks

# A piece in a corner, or at the border if the digit is inside, is left by a shadow if it has less than this share of
# the digit's ink.
EDGE_MASS = 0.35
# One pen writes all digits of a page. A piece at the border is no digit if its ink is weaker than this share of that of
# the digit.
WEAKER = 0.75
# It is no digit either if its strokes are this many times as broad.
BROADER = 2.0
# A digit that the border cuts off reaches into the page by less than this share of the length of the whole digit. Most
# whole digits are broader, except for a 1.
CUT_OFF = 0.4
# The ink of a circle or a frame covers at most this share of its box. What covers more is a sheet of paper.
RING_INK = 0.4
# A ring with more large pieces in it than this encloses no digit. The eyes and the mouth of a face are three.
MOST_IN_RING = 2
# A filled shape, such as a hole, a button or a logo, covers at least this share of its box. The strokes of most digits
# cover less. An upright 1 covers as much, but its width is less than the second share of its height.
FILLED, NARROW = 0.65, 0.6
# A level line is this many times as wide as high.
LEVEL = 3.0
# It is no part of the digit above or below it if it is this many times as wide as the digit.
WIDER = 1.2
# Only this many pieces of a page are compared with each other.
MOST_COMPARED = 8


def without_neighbours(ink: Ink, pieces: Sequence[Piece], *, at_border: bool = True) -> Ink | None:
    """Return the ink of the digit alone, or None if nothing else is found.

    The digit is what a ring encloses, or else the largest piece that does not touch the border. What may be a second
    digit stays.

    Args:
        at_border: judge also what touches the border. Not if the border was changed before.
    """
    rings = rings_of(pieces)
    inner = [piece for piece in pieces if any(ring.encloses(piece) for ring in rings)] if rings else list(pieces)
    free = [piece for piece in inner if piece.is_inside(ink.shape)]
    digit = _main(free or inner)
    kept = [
        piece
        for piece in inner
        if piece is digit
        or not (
            _is_apart(piece, digit)
            or _is_line_under_or_over(piece, digit)
            or (at_border and _is_left_at_border(piece, digit, ink, bool(free)))
        )
    ]
    if len(kept) == len(pieces):
        return None
    return erase(ink, set(pieces) - set(kept))


def without_border(ink: Ink, pieces: Sequence[Piece]) -> Ink | None:
    """Return the ink without all pieces that touch the border, or None if one of them may be a whole digit.

    The border may cut off the digits beside this one, the dark corners of a photo, or the desk.
    """
    large, _ = split_specks(pieces)
    inner = [piece for piece in large if piece.is_inside(ink.shape)]
    if not inner or len(inner) == len(large):
        return None
    digit = _main(inner)
    outer = [piece for piece in large if not piece.is_inside(ink.shape)]
    if not all(_is_left_at_border(piece, digit, ink, True) or _is_cut_off(piece, digit, ink) for piece in outer):
        return None
    return erase(ink, [piece for piece in pieces if not piece.is_inside(ink.shape)])


def has_line(pieces: Sequence[Piece]) -> bool:
    """Return whether there is a line under or over the digit. The digit is the largest piece that is no line."""
    digit = _main(pieces)
    return any(_is_line_under_or_over(piece, digit) for piece in pieces)


def is_filled(piece: Piece) -> bool:
    """Return whether a piece is a filled shape, such as a hole, a button or a logo."""
    return piece.area >= FILLED * (piece.height * piece.width) and piece.width >= NARROW * piece.height


def _main(pieces: Sequence[Piece]) -> Piece:
    """Return the piece with the most ink that is neither level nor a filled shape, or else of all."""
    strokes = [piece for piece in pieces if piece.width < LEVEL * piece.height and not is_filled(piece)]
    return max(strokes or pieces, key=attrgetter("mass"))


class Ring:
    """A piece that may enclose others, as a circle or a frame does.

    It keeps where its ink begins and ends in each row and column, because it may have thousands of runs, and thousands
    of pieces may be compared with it.
    """

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self._first_end: dict[int, int] = {}
        """For each row, the end of its first run."""
        self._last_start: dict[int, int] = {}
        """For each row, the start of its last run."""
        # For each column, the first and the last row with ink in it.
        self._top, self._bottom = np.zeros(piece.width, int), np.zeros(piece.width, int)
        for row, start, end in piece.runs:
            self._first_end.setdefault(row, end)
            self._last_start[row] = start
            self._bottom[start - piece.left : end - piece.left] = row
        for row, start, end in reversed(piece.runs):
            self._top[start - piece.left : end - piece.left] = row

    def encloses(self, piece: Piece) -> bool:
        """Return whether the ring has ink on all four sides of the middle of the piece's box, outside the box."""
        if not self.piece.contains(piece):
            return False
        row, column = (piece.top + piece.bottom) // 2, (piece.left + piece.right) // 2 - self.piece.left
        # A ring is connected, so each row and each column within its box has ink.
        return (
            self._first_end[row] <= piece.left
            and self._last_start[row] >= piece.right
            and bool(self._top[column] < piece.top)
            and bool(self._bottom[column] >= piece.bottom)
        )


def rings_of(pieces: Sequence[Piece]) -> list[Ring]:
    """Return the pieces that enclose another one, as a circle or a frame does."""
    largest = sorted(pieces, key=attrgetter("mass"))[-MOST_COMPARED:]
    thin = [piece for piece in largest if piece.area <= RING_INK * (piece.height * piece.width)]
    rings = [Ring(piece) for piece in thin if any(map(piece.contains, largest))]
    return [ring for ring in rings if any(map(ring.encloses, largest))]


def encloses_several(pieces: Sequence[Piece], shape: tuple[int, ...]) -> bool:
    """Return whether a ring that lies within the page encloses more large pieces than a digit has, as a face does.

    A ring that touches the border may be the lines of squared paper.
    """
    for ring in rings_of(pieces):
        if ring.piece.is_inside(shape):
            inside = [[piece] for piece in pieces if ring.encloses(piece)]
            if count_large(inside) > MOST_IN_RING:
                return True
    return False


def _is_apart(piece: Piece, digit: Piece) -> bool:
    """Return whether a piece is too small or too full for another digit, and too far away for a part of the digit."""
    is_no_digit = piece.mass < DIGIT * digit.mass or (is_filled(piece) and piece.length < digit.length)
    return is_no_digit and distance(piece, digit) > GAP * digit.length


def _is_line_under_or_over(piece: Piece, digit: Piece) -> bool:
    """Return whether a piece is a level line, wider than the digit, that does not reach into its rows."""
    is_line = piece.width >= max(LEVEL * piece.height, WIDER * digit.width)
    middle = (piece.top + piece.bottom) / 2
    return is_line and not digit.top <= middle < digit.bottom


def _is_left_at_border(piece: Piece, digit: Piece, ink: Ink, is_inside: bool) -> bool:
    """Return whether a piece at the border is neither a part of the digit nor another digit.

    Args:
        is_inside: the digit does not touch the border.
    """
    at_side, at_end = _touched(piece, ink)
    if not (at_side or at_end):
        return False
    if (is_inside or (at_side and at_end)) and piece.mass < EDGE_MASS * digit.mass:
        return True
    return piece.strength < WEAKER * digit.strength or piece.breadth > BROADER * digit.breadth


def _is_cut_off(piece: Piece, digit: Piece, ink: Ink) -> bool:
    """Return whether a piece reaches so little into the page that the border has cut it off."""
    most = CUT_OFF * digit.length
    at_side, at_end = _touched(piece, ink)
    return (at_side and piece.width < most) or (at_end and piece.height < most)


def _touched(piece: Piece, ink: Ink) -> tuple[bool, bool]:
    """Return whether a piece touches the left or right border, and whether it touches the upper or lower one."""
    height, width = ink.shape
    return piece.left == 0 or piece.right == width, piece.top == 0 or piece.bottom == height

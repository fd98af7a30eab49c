"""Leave out ink on a page of numbers that is no digit: dirt, boxes, circles, underlines, a desk or a shadow."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from serving.pictures.close_up import CONTACT, STRIP
from serving.pictures.fields import find_fields
from serving.pictures.ink import Ink
from serving.pictures.neighbours import MOST_COMPARED, RING_INK, Ring
from serving.pictures.pieces import Piece, cut_out, find_pieces, moved, usual_height
from serving.pictures.rules import LEAST_RULED, REACH, without_rules
from serving.pictures.shapes import LEAST_PIECE, MAX_PIECES, without_shapes

# The frame of a page is at least this high and wide, as a share of the page's height and width.
FRAME_SIDE = 0.8
# The ink of a frame fills at most this share of its bounding box.
FRAME_INK = 0.2
# A ring is a box, a circle or the lines of a form if the ink inside it is at least this share of its own. The dot in
# a zero has less.
IN_RING = 0.2
# A digit that touches its box is what remains of the box without its lines. The digit is at least this high, as a share
# of the usual height.
TOUCHING = 0.6
# A digit that touches its box is at least this wide, as a share of its height. What is narrower is a rest of a line.
NARROW = 0.5
# A level piece that is this many times as wide as high does not say how high the digits are.
FLAT = 3.0
# A piece that is this many times as wide as the digits are high may be a line that joins several digits.
JOINED = 2.0
# The fields of a form for one digit each have at least this many upright lines. Fewer may be digits on an underline.
TICKS = 3
# A lower and narrow piece on a line, as a share of the usual height, is an upright line of such fields, and no 1.
TICK = 0.75
# A line under, over or between numbers is longer than a minus: at least this many times the usual height.
LONG = 1.3
# A line under, over or between numbers is at most this thick on average, as a share of the usual height.
THIN = 0.2
# Such a line deviates from a straight one by at most this, as a share of the usual height (root mean square).
STRAIGHT = 0.08
# A piece at the border, or an upright line, is a shadow if its ink is weaker than this share of the usual ink.
SHADOW = 0.75
# A piece at the border is still a digit if it stands beside a piece inside, and if the four rules that follow hold.
# The higher of the two pieces is at most this many times as high as the lower one.
ALIKE = 1.5
# The rows that the two pieces share are at least this share of the height of the lower one.
SAME_ROWS = 0.7
# The piece at the border is at most this many times as wide as the piece inside is high.
WIDE = 1.5
# The strokes of the piece at the border are at most this many times as broad as those of the piece inside.
BROADER = 2.0


def without_clutter(ink: Ink) -> tuple[list[Piece], list[Piece]]:
    """Return the pieces of the ink that may belong to digits, and the printed fields of a form."""
    every = _without_frame(find_pieces(ink), ink.shape)
    fields = find_fields(every)
    pieces = _without_rings(ink, every, fields)
    inside, along = _divided(without_shapes(pieces), ink.shape)
    if not inside and len(pieces) == len(every):
        # A page that is cropped to its digits has all of them along the border.
        inside, along = [piece for piece in along if not _is_strip(piece, ink.shape)], []
    if not inside:
        return [], fields
    inside = _without_lines(ink, inside)
    least = LEAST_PIECE * usual_height(inside)
    inside, along = ([piece for piece in some if piece.length >= least] for some in (inside, along))
    if len(inside) + len(along) > MAX_PIECES:
        return [], fields
    return inside + _beside(along, inside), fields


def _divided(pieces: list[Piece], shape: tuple[int, ...]) -> tuple[list[Piece], list[Piece]]:
    """Return the pieces that may belong to digits, and those along the border."""
    usual = _mean_strength([piece for piece in pieces if piece.is_inside(shape)])
    along = [
        piece
        for piece in pieces
        if _is_along_border(piece, shape)
        # The corner of a shadow, in which the paper could not be estimated.
        or (not piece.is_inside(shape) and piece.strength < SHADOW * usual)
    ]
    outside = set(along)
    inside = [piece for piece in pieces if piece not in outside]
    return inside, along


def _without_frame(pieces: Sequence[Piece], shape: tuple[int, ...]) -> list[Piece]:
    def is_frame(piece: Piece) -> bool:
        is_long = piece.height >= FRAME_SIDE * shape[0] and piece.width >= FRAME_SIDE * shape[1]
        return is_long and piece.area <= FRAME_INK * piece.height * piece.width

    rest = [piece for piece in pieces if not is_frame(piece)]
    return rest or list(pieces)


def _without_rings(ink: Ink, pieces: Sequence[Piece], fields: list[Piece]) -> list[Piece]:
    """Return the pieces without the fields, and without boxes and circles around others.

    A digit that touches a field or a box stays.
    """
    printed = set(fields)
    others = [piece for piece in pieces if piece not in printed]
    broadest = sorted(others, key=lambda piece: piece.height * piece.width)[-MOST_COMPARED:]
    rings = fields + [piece for piece in broadest if _is_ring(piece, pieces)]
    if not rings:
        return list(pieces)
    rest = [piece for piece in others if piece not in rings]
    least = TOUCHING * usual_height(rest or rings)
    return rest + [piece for ring in rings for piece in _touching(ink, ring, least)]


def _touching(ink: Ink, box: Piece, least: float) -> list[Piece]:
    """Return the digits that touch a box: what remains of it without its straight lines, at least ``least`` high."""
    return [
        piece
        for piece in _without_straight_lines(ink, box)
        if piece.height >= least and piece.width >= NARROW * piece.height and 2 * piece.length < box.length
    ]


def _without_straight_lines(
    ink: Ink, piece: Piece, least_down: int = 1, reach: int = REACH, *, is_flat: bool = False
) -> list[Piece]:
    """Return what remains of a piece without the lines that run from one of its sides to the other.

    Args:
        least_down, reach: see :func:`without_rules`.
        is_flat: the piece is lower than digits.
    """
    alone = cut_out(ink, [piece])
    if is_flat:
        # The lower side of a field, for example, would be too small for the rules. Small digits that touch have about
        # as many rows, but a line through all of them is no rule.
        alone = np.pad(alone, [(0, max(0, LEAST_RULED - piece.height)), (0, 0)])
    rest = find_pieces(without_rules(alone, least_down=least_down, reach=reach))
    return [moved(part, piece.top, piece.left) for part in rest]


def _without_lines(ink: Ink, pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces without long level lines, such as an underline. Digits that touch a line stay."""
    height = usual_height([piece for piece in pieces if piece.width <= FLAT * piece.height] or pieces)
    long = [piece for piece in pieces if piece.width >= JOINED * height]
    digits = [piece for piece in pieces if piece.width < JOINED * height]
    long.sort(key=attrgetter("width"), reverse=True)
    reach = max(REACH, round(THIN * height))
    rests = [
        piece
        for one in long[:MOST_COMPARED]
        for piece in _without_straight_lines(ink, one, TICKS, reach, is_flat=one.height < TICK * height)
    ]
    digits += [piece for piece in rests if piece.height >= TICK * height or piece.width >= NARROW * piece.height]
    rest = [piece for piece in digits + long[MOST_COMPARED:] if not _is_line(piece, height)]
    return _without_edges(rest, height) or list(pieces)


def _is_line(piece: Piece, height: float, *, upright: bool = False) -> bool:
    """Return whether a piece is a long, thin and straight line that is level, or upright."""
    length, across = (piece.height, piece.width) if upright else (piece.width, piece.height)
    if length < max(LONG * height, across) or piece.area > THIN * height * length:
        return False
    rows, starts, ends = np.array(piece.runs).T
    lengths = ends - starts
    y = np.repeat(rows, lengths)
    x = np.concatenate([np.arange(start, end) for _, start, end in piece.runs])
    if upright:
        x, y = y, x
    rest = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(np.sqrt(np.mean(rest * rest))) <= STRAIGHT * height


def _without_edges(pieces: Sequence[Piece], height: float) -> list[Piece]:
    """Return the pieces without the edges of a sheet, which are upright lines of weaker ink: a narrow shadow.

    A 1 that is higher than the other digits was written with the same pen.
    """
    lines = {piece for piece in pieces if _is_line(piece, height, upright=True)}
    usual = _mean_strength([piece for piece in pieces if piece not in lines])
    return [piece for piece in pieces if piece not in lines or piece.strength >= SHADOW * usual]


def _is_ring(ring: Piece, pieces: Sequence[Piece]) -> bool:
    """Return whether a piece encloses others, as a box or a circle does."""
    if ring.area > RING_INK * ring.height * ring.width:
        return False
    inside = [piece for piece in pieces if ring.contains(piece)]
    if sum(piece.mass for piece in inside) < IN_RING * ring.mass:
        return False
    return any(map(Ring(ring).encloses, sorted(inside, key=attrgetter("mass"))[-MOST_COMPARED:]))


def _mean_strength(pieces: Sequence[Piece]) -> float:
    """Return the mean ink of the pixels of all pieces together, or 0 if there are none."""
    return sum(piece.mass for piece in pieces) / max(1, sum(piece.area for piece in pieces))


def _is_along_border(piece: Piece, shape: tuple[int, ...]) -> bool:
    """Return whether a piece touches one side of the page with a large part of its own length."""
    return not piece.is_inside(shape) and max(piece.along_border(shape)) >= CONTACT * piece.length


def _is_strip(piece: Piece, shape: tuple[int, ...]) -> bool:
    """Return whether a piece along the border is a strip of a desk or a shadow, and no digit on a cropped page."""
    return min(piece.height / shape[0], piece.width / shape[1]) <= STRIP


def _beside(along: Sequence[Piece], inside: Sequence[Piece]) -> list[Piece]:
    """Return the pieces at the border that stand beside another one as a digit beside a digit."""
    heights, tops, bottoms, breadths = np.array(
        [(piece.height, piece.top, piece.bottom, piece.breadth) for piece in inside]
    ).T

    def is_beside_any(piece: Piece) -> bool:
        lower, higher = np.minimum(piece.height, heights), np.maximum(piece.height, heights)
        shared = np.minimum(piece.bottom, bottoms) - np.maximum(piece.top, tops)
        are_beside = (
            (higher <= ALIKE * lower)
            & (piece.width <= WIDE * heights)
            & (piece.breadth <= BROADER * breadths)
            & (shared >= SAME_ROWS * lower)
        )
        return bool(are_beside.any())

    # All pieces inside are compared at once: a page may have 250 of them, and as many at the border.
    return [piece for piece in along if is_beside_any(piece)]

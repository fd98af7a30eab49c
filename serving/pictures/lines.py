"""Find the lines of digits on a page, and turn each line upright."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.pictures.clutter import without_clutter
from serving.pictures.ink import Ink
from serving.pictures.pieces import Piece, cut_out, usual_height

# Sizes are shares of the usual height of a piece, unless a comment says otherwise.
# A piece that is lower than this may be a dot, a minus or a part of a digit. It does not say where its line lies.
TALL = 0.5
# A line whose pieces are all lower than this has smaller digits. The height of its own digits says which are low.
SMALLER = 0.7
# Such a line has at least this height. A lower one is dirt.
LEAST_SMALL = 0.35
# A piece belongs to a line if it shares at least this part of the lower height with the last pieces of the line.
SHARED = 0.35
# A wider gap may lie between two columns whose rows are not level with each other.
WIDE_GAP = 6.0
# A piece after such a gap belongs to a line if it shares at least this part of the lower height with the line.
SHARED_OVER_GAP = 0.7
# A field of a form with room for more than one row of digits is higher.
HIGHEST_FIELD = 2.2
# A field has room for a digit of this height.
ROOM = 1.4
# Lines whose digits have fewer pixels than this from top to bottom cannot be read.
LEAST_HEIGHT = 6
# Added to the variance of the columns of the ink, in squares of the usual height. It draws the tilt of a short line
# towards that of the page, because two digits say little about it.
LEVEL = 2.0
# The tilt of a page is that of most steps from a digit to the next one, over a gap of at most this width. Separate
# numbers that stand like stairs are farther apart.
NEAR = 0.7
# The next digit of a line is at most this many rows higher or lower per column. The page is turned by up to 31 degrees.
MOST_TILT = 0.6
# Lines that rise or fall by fewer rows per column, 8 degrees, are found without the tilt of the page. Two digits that
# differ in height may seem to be turned as much.
LEAST_PAGE_TILT = 0.15
# A line is turned if it rises or falls by more than this many rows per column.
LEAST_TILT = 0.03
# Turned ink that is weaker than this share of the strongest is the edge of a stroke.
EDGE = 0.1

Floats = npt.NDArray[np.float64]


class Line(NamedTuple):
    """A line of digits: its ink, turned upright, and where it stands on the page."""

    ink: Ink
    height: float
    """The usual height of its digits, in pixels of the ink. This is what "the height of the line" means elsewhere."""
    origin: tuple[float, float]
    """Column and row of the page at the top left corner of the ink."""
    right: tuple[float, float]
    """Columns and rows of the page per column of the ink. A row further down is this, turned by 90 degrees."""

    def box_on_page(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """Return the box on the page around a box of the ink."""
        (x, y), (a, b) = self.origin, self.right
        xs = [x + a * u - b * v for u in (left, right) for v in (top, bottom)]
        ys = [y + b * u + a * v for u in (left, right) for v in (top, bottom)]
        return min(xs), min(ys), max(xs), max(ys)


def find_lines(ink: Ink) -> Iterator[Line]:
    """Yield the lines of digits on a page, from top to bottom. Each may take as much memory as the page.

    On a page that is turned, a line may be found as several ones, and pieces of two lines as one. So the lines are then
    found again without the tilt of the page, unless this yields more lines or leaves out pieces as dirt.
    """
    pieces, fields = without_clutter(ink)
    if not pieces:
        return
    height = usual_height(pieces)
    if height < LEAST_HEIGHT:
        return
    fields = [_with_room(field, height) for field in fields if field.height <= HIGHEST_FIELD * height]
    tilt, lines = 0.0, _lines_at(0.0, pieces, fields, height)
    if len(lines) > 1 and abs(page_tilt := _page_tilt(pieces, height)) >= LEAST_PAGE_TILT:
        turned = _lines_at(page_tilt, pieces, fields, height)
        if len(turned) <= len(lines) and sum(map(len, turned)) >= sum(map(len, lines)):
            tilt, lines = page_tilt, turned
    yield from (_upright(ink, line, tilt) for line in lines)


def _lines_at(tilt: float, pieces: Sequence[Piece], fields: Sequence[Piece], height: float) -> list[list[Piece]]:
    """Return the pieces of each line of a page, from top to bottom.

    Args:
        tilt: how many rows the page falls per column. Each box is moved up by as much, and keeps its height.
    """
    moved = {_moved_up(tilt, piece): piece for piece in pieces}
    lines = _grouped(list(moved), height, [_moved_up(tilt, field) for field in fields])
    lines.sort(key=lambda line: sum((p.top + p.bottom) * p.mass for p in line) / sum(p.mass for p in line))
    return [[moved[piece] for piece in line] for line in lines]


def _moved_up(tilt: float, piece: Piece) -> Piece:
    up = round(tilt * (piece.left + piece.right) / 2)
    return replace(piece, top=piece.top - up, bottom=piece.bottom - up)


def _page_tilt(pieces: Sequence[Piece], height: float) -> float:
    """Return how many rows the lines of a page fall per column: the median over the steps from a piece to the next."""
    boxes = [(p.left, p.right, (p.left + p.right) / 2, (p.top + p.bottom) / 2) for p in _tall(pieces, height)]
    left, right, x, y = np.array(boxes).T
    across, down = x - x[:, None], y - y[:, None]  # From the piece of a row to the piece of a column.
    is_next = (across > 0) & (np.abs(down) <= MOST_TILT * across) & (left - right[:, None] <= NEAR * height)
    if not is_next.any():
        return 0.0
    first = np.flatnonzero(is_next.any(axis=1))
    nearest = np.where(is_next, np.hypot(across, down), np.inf)[first].argmin(axis=1)
    return float(np.median(down[first, nearest] / across[first, nearest]))


def _grouped(pieces: Sequence[Piece], height: float, fields: Sequence[Piece] = ()) -> list[list[Piece]]:
    """Return the pieces of each line, also of lines with smaller digits than those of the usual height.

    Args:
        fields: a row of them is a line, however far apart the digits in it are.
    """
    lines = _in_lines([*_tall(pieces, height), *fields], height)
    printed = set(fields)
    lines = [rest for line in lines if (rest := [piece for piece in line if piece not in printed])]
    apart = _add_low(lines, [piece for piece in pieces if piece.height < TALL * height], height)
    highest = [max(piece.height for piece in line) for line in lines]
    larger = [line for line, most in zip(lines, highest, strict=True) if most >= SMALLER * height]
    smaller = [line for line, most in zip(lines, highest, strict=True) if most < SMALLER * height]
    rest = [*apart, *itertools.chain.from_iterable(smaller)]
    if not rest or usual_height(rest) < LEAST_HEIGHT:
        return larger

    def is_line(line: list[Piece]) -> bool:
        # A low piece that stands alone is dirt too.
        return (len(line) > 1 or line[0].height >= TALL * height) and usual_height(line) >= LEAST_SMALL * height

    return larger + list(filter(is_line, _grouped(rest, usual_height(rest))))


def _tall(pieces: Sequence[Piece], height: float) -> list[Piece]:
    return [piece for piece in pieces if piece.height >= TALL * height]


def _with_room(field: Piece, height: float) -> Piece:
    """Return a field that is high enough for a digit. The sides of an open field may be lower."""
    return replace(field, top=min(field.top, field.bottom - round(ROOM * height)))


def _in_lines(tall: Sequence[Piece], height: float) -> list[list[Piece]]:
    """Return the pieces of each line. Each line goes on from its last pieces, so it may rise or fall.

    Each piece is compared with all lines at once: a page may have 500 pieces and 500 fields, and as many lines.
    """
    lines: list[list[Piece]] = []
    ends = np.zeros((3, len(tall)))  # Top and bottom of the end of each line, and its right end.
    for piece in sorted(tall, key=attrgetter("left")):
        tops, bottoms, rights = ends[:, : len(lines)]
        least = np.where(piece.left - rights <= WIDE_GAP * height, SHARED, SHARED_OVER_GAP)
        shared = _shared(piece, tops, bottoms)
        best = int(np.argmax(np.where(shared >= least, shared, 0))) if lines else -1
        if best < 0 or shared[best] < least[best]:
            ends[:, len(lines)] = piece.top, piece.bottom, piece.right
            lines.append([piece])
            continue
        lines[best].append(piece)
        top, bottom, right = ends[:, best]
        ends[:, best] = (top + piece.top) / 2, (bottom + piece.bottom) / 2, max(right, piece.right)
    return lines


def _add_low(lines: Sequence[list[Piece]], low: Sequence[Piece], height: float) -> list[Piece]:
    """Add each low piece to the line with the nearest piece, if that is near, and return the others."""
    others: list[Piece] = []
    boxes = np.zeros((4, sum(map(len, lines)) + len(low)))
    line_of: list[int] = []  # The line of each piece that has one, in the order of the boxes.

    def add(piece: Piece, at: int) -> None:
        boxes[:, len(line_of)] = piece.left, piece.right, piece.top, piece.bottom
        line_of.append(at)

    for at, line in enumerate(lines):
        for piece in line:
            add(piece, at)
    for piece in low:
        distances = _distances(piece, *boxes[:, : len(line_of)])
        nearest = distances.min(initial=np.inf)
        if nearest <= height / 2:
            at = min(line_of[index] for index in np.flatnonzero(distances == nearest))
            lines[at].append(piece)
            add(piece, at)
        else:
            others.append(piece)
    return others


def _shared(piece: Piece, tops: Floats, bottoms: Floats) -> Floats:
    shared: Floats = np.minimum(piece.bottom, bottoms) - np.maximum(piece.top, tops)
    return shared / np.minimum(piece.height, bottoms - tops)


def _distances(piece: Piece, lefts: Floats, rights: Floats, tops: Floats, bottoms: Floats) -> Floats:
    """Return the distances to some boxes. A distance down counts three times: a dot belongs to the digit beside it."""
    across = np.maximum(0, np.maximum(piece.left - rights, lefts - piece.right))
    down: Floats = np.maximum(0, np.maximum(piece.top - bottoms, tops - piece.bottom))
    return across + 3.0 * down


def _upright(ink: Ink, pieces: Sequence[Piece], page_tilt: float) -> Line:
    """Return the line of these pieces, turned so that it neither rises nor falls."""
    left, top = min(piece.left for piece in pieces), min(piece.top for piece in pieces)
    line = cut_out(ink, pieces)
    height = usual_height(pieces)
    tilt = _tilt(line, height, page_tilt)
    if abs(tilt) < LEAST_TILT:
        return Line(line, height, (left, top), (1.0, 0.0))
    angle = np.arctan(tilt)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    # The line turned by the tilt, about its own corner: find its new box first.
    rows, columns = np.nonzero(line)
    u = (columns + 0.5) * cosine + (rows + 0.5) * sine
    v = (rows + 0.5) * cosine - (columns + 0.5) * sine
    u0, v0 = np.floor(u.min() - 1), np.floor(v.min() - 1)
    size = int(np.ceil(u.max() + 1) - u0), int(np.ceil(v.max() + 1) - v0)
    x, y = u0 * cosine - v0 * sine, u0 * sine + v0 * cosine
    turned = Image.fromarray(line).transform(
        size, Image.Transform.AFFINE, (cosine, -sine, x, sine, cosine, y), Image.Resampling.BICUBIC
    )
    upright = np.maximum(np.asarray(turned), 0)
    upright = np.where(upright < EDGE * upright.max(), 0, upright)
    return Line(upright, height, (left + x, top + y), (cosine, sine))


def _tilt(line: Ink, height: float, page_tilt: float) -> float:
    """Return how many rows the line falls per column: the regression of the ink's rows on its columns."""
    rows, columns = np.arange(line.shape[0]), np.arange(line.shape[1])
    mass = float(line.sum())
    x = columns - float((line.sum(axis=0) * columns).sum()) / mass
    y = rows - float((line.sum(axis=1) * rows).sum()) / mass
    covariance = float(y @ line @ x) / mass
    variance = float((line.sum(axis=0) * x * x).sum()) / mass
    level = LEVEL * height * height
    return (covariance + level * page_tilt) / (variance + level)

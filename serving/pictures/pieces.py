"""Find the connected pieces of the ink, remove specks, and count digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from operator import attrgetter, itemgetter

import numpy as np

from serving.pictures.ink import Ink
from serving.pictures.page import Mask

# A piece is a speck (dirt, or a part of a shadow's edge) if it has less than this share of the largest piece's ink.
SPECK = 0.08
# Many symbols have dots that are as small as dirt: Ä, ё, ث. A speck may be such a dot if it has at least the first of
# these shares of the largest piece's ink, if its ink is at least the second share as strong, and if its distance from
# that piece is at most the third share of the length of the piece.
DOT, DOT_STRENGTH, DOT_DISTANCE = 0.01, 0.5, 0.35
# The gap between two digits is at least this share of their common height or width, whichever is smaller. The gaps
# between the strokes of one digit, for instance of a 5, are narrower.
GAP = 0.2
# A row of pieces that is at least this many times as wide as high shows several digits, however close they stand.
ROW = 1.8
# A part on one side of a gap counts as a digit only if it has at least this share of the ink of the largest part.
DIGIT = 0.25
# A text has several lines with at least this many parts side by side. The pieces of one digit are not in such lines.
LINE = 3
# A page with this many large pieces, in lines of which at least two are wider than high, shows a text too.
TEXT = 5

Run = tuple[int, int, int]
"""Row, first column and end column of a horizontal run of pixels."""


@dataclass(slots=True, eq=False)
class Piece:
    """Ink whose pixels touch at sides or corners. ``bottom``, ``right`` and the end of a run are exclusive."""

    mass: float
    """Sum of the ink."""
    top: int
    bottom: int
    left: int
    right: int
    area: int
    """Number of pixels with ink."""
    runs: list[Run]
    """The horizontal runs of pixels, from top to bottom."""

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def length(self) -> int:
        """The longer side of its box."""
        return max(self.height, self.width)

    @property
    def strength(self) -> float:
        """Mean ink of its pixels."""
        return self.mass / self.area

    @property
    def breadth(self) -> float:
        """Pixels for each row or column of the longer side: the breadth of a stroke, and more where it bends."""
        return self.area / self.length

    def is_inside(self, shape: tuple[int, ...]) -> bool:
        """Return whether the piece touches no border of a page of ``shape``."""
        return self.top > 0 and self.left > 0 and self.bottom < shape[0] and self.right < shape[1]

    def along_border(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return how many pixels it has at the top, bottom, left and right border of a page of ``shape``."""
        height, width = shape
        top, bottom = (sum(end - start for row, start, end in self.runs if row == at) for at in (0, height - 1))
        left, right = (sum(start <= at < end for _, start, end in self.runs) for at in (0, width - 1))
        return top, bottom, left, right

    def contains(self, other: Piece) -> bool:
        """Return whether the box of ``other`` lies in the box of this piece, and touches none of its sides."""
        return (
            self.top < other.top and other.bottom < self.bottom and self.left < other.left and other.right < self.right
        )


class TooManyRunsError(Exception):
    """The ink has more runs than :func:`at_most_runs` allows."""


_runs_left: ContextVar[float] = ContextVar("runs_left", default=math.inf)


@contextmanager
def at_most_runs(limit: int) -> Iterator[None]:
    """Limit the work in the ``with`` statement, most of which grows with the runs of ink.

    A picture is searched for pieces several times, and a file of a few hundred bytes may hold thousands of runs.

    Raises:
        TooManyRunsError: the calls of :func:`find_pieces` find more than ``limit`` runs together.
    """
    token = _runs_left.set(limit)
    try:
        yield
    finally:
        _runs_left.reset(token)


def find_pieces(ink: Ink) -> list[Piece]:
    """Return the connected pieces of the ink: horizontal runs of pixels, joined where they touch (union-find).

    Raises:
        TooManyRunsError: see :func:`at_most_runs`.
    """
    runs, masses = _runs(ink)
    parent = list(range(len(runs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    above = 0
    for i, (row, start, end) in enumerate(runs):
        # Skip to the first run of the row above that may touch this run or a later one.
        while runs[above][0] < row - 1 or (runs[above][0] == row - 1 and runs[above][2] < start):
            above += 1
        j = above
        while runs[j][0] == row - 1 and runs[j][1] <= end:
            parent[root(j)] = i  # The newest run is a root itself.
            j += 1
    members: dict[int, list[int]] = {}
    for i in range(len(runs)):
        members.setdefault(root(i), []).append(i)
    return [_piece([runs[i] for i in its], sum(masses[i] for i in its)) for its in members.values()]


def _piece(runs: list[Run], mass: float) -> Piece:
    left, right = min(map(itemgetter(1), runs)), max(map(itemgetter(2), runs))
    area = sum(end - start for _, start, end in runs)
    return Piece(mass, runs[0][0], runs[-1][0] + 1, left, right, area, runs)


def _runs(ink: Ink) -> tuple[list[Run], list[float]]:
    """Return the horizontal runs of ink from top to bottom, each as row, start and end column, and their masses."""
    height, width = ink.shape
    # A column without ink ends each run at the end of its row. Then starts and ends alternate.
    mask = np.zeros((height, width + 1), bool)
    np.greater(ink, 0, out=mask[:, :-1])
    flat = np.concatenate([[False], mask.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    rows, starts = np.divmod(edges[::2], width + 1)
    ends = edges[1::2] - rows * (width + 1)
    # The begin and the end of each run, among all pixels. Every other sum is that of the paper between two runs.
    places = np.stack([rows * width + starts, rows * width + ends], axis=1).ravel()
    left = _runs_left.get() - len(rows)
    if left < 0:
        raise TooManyRunsError
    _runs_left.set(left)
    sums = np.add.reduceat(np.append(ink, np.float32(0)), places, dtype=np.float64) if len(places) else places
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True)), sums[::2].tolist()


def moved(piece: Piece, down: int, right: int) -> Piece:
    """Return the piece at another place."""
    runs = [(row + down, start + right, end + right) for row, start, end in piece.runs]
    return _piece(runs, piece.mass)


def cut_out(ink: Ink, pieces: Sequence[Piece]) -> Ink:
    """Return the ink of these pieces alone, in the box around them."""
    top, left = min(piece.top for piece in pieces), min(piece.left for piece in pieces)
    alone = np.zeros(size_of(pieces), np.float32)
    for piece in pieces:
        for row, start, end in piece.runs:
            alone[row - top, start - left : end - left] = ink[row, start:end]
    return alone


def mask_of(pieces: Iterable[Piece], shape: tuple[int, ...]) -> Mask:
    """Return which pixels of a page of ``shape`` belong to these pieces."""
    mask = np.zeros(shape, bool)
    for piece in pieces:
        for row, start, end in piece.runs:
            mask[row, start:end] = True
    return mask


def touches(piece: Piece, mask: Mask) -> bool:
    """Return whether a piece has pixels of the mask."""
    return any(mask[row, start:end].any() for row, start, end in piece.runs)


def size_of(pieces: Sequence[Piece]) -> tuple[int, int]:
    """Return height and width of the box around the pieces."""
    height = max(piece.bottom for piece in pieces) - min(piece.top for piece in pieces)
    return height, max(piece.right for piece in pieces) - min(piece.left for piece in pieces)


def usual_height(pieces: Sequence[Piece]) -> float:
    """Return the median of the heights, in which each piece counts by its ink, or 0 if there are no pieces."""
    if not pieces:
        return 0.0
    ordered = sorted(pieces, key=attrgetter("height"))
    masses = np.cumsum([piece.mass for piece in ordered])
    return float(ordered[int(np.searchsorted(masses, masses[-1] / 2))].height)


def distance(a: Piece, b: Piece) -> int:
    """Return the distance of the boxes around two pieces."""
    return max(a.left - b.right, b.left - a.right, a.top - b.bottom, b.top - a.bottom, 0)


def split_specks(pieces: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Return the pieces large enough to belong to a digit, and the specks."""
    least = SPECK * max(piece.mass for piece in pieces)
    return [piece for piece in pieces if piece.mass >= least], [piece for piece in pieces if piece.mass < least]


def dots_among(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the specks among the pieces that may be dots of the symbol."""
    largest = max(pieces, key=attrgetter("mass"))
    return [
        speck
        for speck in pieces
        if DOT * largest.mass <= speck.mass < SPECK * largest.mass
        and speck.strength >= DOT_STRENGTH * largest.strength
        and distance(speck, largest) <= DOT_DISTANCE * largest.length
    ]


def erase(ink: Ink, pieces: Iterable[Piece]) -> Ink:
    """Return the ink without these pieces."""
    ink = ink.copy()
    for piece in pieces:
        for row, start, end in piece.runs:
            ink[row, start:end] = 0
    return ink


def count_digits(pieces: Sequence[Piece]) -> int:
    """Return the number of digits side by side, above each other or in lines: parts of similar mass between gaps."""
    if len(pieces) == 1:
        return 1
    height, width = size_of(pieces)
    gap = GAP * min(height, width)
    # In a row every column without ink is a gap.
    side_by_side = count_large(_between_gaps(pieces, "left", "right", 1.0 if width >= ROW * height else gap))
    above_each_other = count_large(_between_gaps(pieces, "top", "bottom", gap))
    return max(side_by_side, above_each_other, _count_in_lines(pieces), _count_in_wide_lines(pieces))


def _count_in_lines(pieces: Sequence[Piece]) -> int:
    """Return the number of parts in the lines of a text, 0 if the pieces are not in lines."""
    lines = _between_gaps(pieces, "top", "bottom", 1.0)
    counts = [count_large(_between_gaps(line, "left", "right", 1.0)) for line in lines]
    in_text = [count for count in counts if count >= LINE]
    return sum(in_text) if len(in_text) > 1 else 0


def _count_in_wide_lines(pieces: Sequence[Piece]) -> int:
    """Return the number of large pieces if they are a text by the width of its lines, else 0.

    In a small picture the letters of a word touch each other, so a whole line may be one piece.
    """
    least = DIGIT * max(piece.mass for piece in pieces)
    large = [piece for piece in pieces if piece.mass >= least]
    sizes = [size_of(line) for line in _between_gaps(large, "top", "bottom", 1.0)]
    wide = sum(width >= height for height, width in sizes)
    return len(large) if wide > 1 and len(large) >= TEXT else 0


def count_large(groups: Sequence[Sequence[Piece]]) -> int:
    """Return how many groups of pieces have enough ink for a digit."""
    masses = [sum(piece.mass for piece in group) for group in groups]
    return sum(mass >= DIGIT * max(masses) for mass in masses)


def _between_gaps(pieces: Sequence[Piece], start: str, end: str, gap: float) -> list[list[Piece]]:
    """Return the pieces in groups along one axis, between which the gap is at least ``gap``."""
    groups: list[list[Piece]] = []
    reached = -gap
    for piece in sorted(pieces, key=attrgetter(start)):
        if groups and getattr(piece, start) - reached < gap:
            groups[-1].append(piece)
        else:
            groups.append([piece])
        reached = max(reached, getattr(piece, end))
    return groups

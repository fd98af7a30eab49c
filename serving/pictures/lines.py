"""Find the lines of digits on a page, and turn each line upright."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from serving.pictures.clutter import usual_height, without_clutter
from serving.pictures.ink import Ink
from serving.pictures.pieces import Piece

# All sizes are shares of the usual height of a piece.
# A piece that is lower than this may be a dot, a minus or a part of a digit. It does not say where its line lies.
TALL = 0.5
# A piece belongs to a line if it shares at least this part of the lower height with the last pieces of the line.
SHARED = 0.35
# The widest gap inside a line.
WIDEST_GAP = 6.0
# Lines whose digits have fewer pixels than this from top to bottom cannot be read.
LEAST_HEIGHT = 6
# Ink that turns the estimate of the tilt to 0, as the variance of its columns. Two digits say little about the tilt.
LEVEL = 2.0
# A line is turned if it rises by more than this per column.
LEAST_TILT = 0.03


class Line(NamedTuple):
    """A line of digits: its ink, turned upright, and where it stands on the page."""

    ink: Ink
    height: float
    """The usual height of its digits, in pixels of the ink."""
    origin: tuple[float, float]
    """Column and row of the page at the top left corner of the ink."""
    right: tuple[float, float]
    """Columns and rows of the page per column of the ink. A column down is this, turned by 90 degrees."""

    def box_on_page(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """Return the box on the page around a box of the ink."""
        (x, y), (a, b) = self.origin, self.right
        xs = [x + a * u - b * v for u in (left, right) for v in (top, bottom)]
        ys = [y + b * u + a * v for u in (left, right) for v in (top, bottom)]
        return min(xs), min(ys), max(xs), max(ys)


def find_lines(ink: Ink) -> Iterator[Line]:
    """Yield the lines of digits on a page, from top to bottom. Each may take as much memory as the page."""
    pieces = without_clutter(ink)
    if not pieces:
        return
    height = usual_height(pieces)
    if height < LEAST_HEIGHT:
        return
    lines = [line for line in _grouped(pieces, height) if any(piece.height >= TALL * height for piece in line)]
    lines.sort(key=lambda line: sum((p.top + p.bottom) * p.mass for p in line) / sum(p.mass for p in line))
    yield from (_upright(ink, line) for line in lines)


def _grouped(pieces: Sequence[Piece], height: float) -> list[list[Piece]]:
    """Return the pieces of each line. Each line goes on from its last pieces, so it may rise or fall."""
    lines: list[list[Piece]] = []
    spans: list[tuple[float, float, int]] = []  # Top and bottom of the end of each line, and its right end.
    tall = [piece for piece in pieces if piece.height >= TALL * height]
    low = [piece for piece in pieces if piece.height < TALL * height]
    for piece in sorted(tall, key=lambda piece: piece.left):
        shared = [
            _shared(piece, top, bottom) if piece.left - right <= WIDEST_GAP * height else 0.0
            for top, bottom, right in spans
        ]
        best = int(np.argmax(shared)) if shared else -1
        if best < 0 or shared[best] < SHARED:
            lines.append([piece])
            spans.append((piece.top, piece.bottom, piece.right))
            continue
        lines[best].append(piece)
        top, bottom, right = spans[best]
        spans[best] = (top + piece.top) / 2, (bottom + piece.bottom) / 2, max(right, piece.right)
    for piece in low:
        near = [min(_distance(piece, other) for other in line) for line in lines]
        if near and min(near) <= height / 2:
            lines[int(np.argmin(near))].append(piece)
    return lines


def _shared(piece: Piece, top: float, bottom: float) -> float:
    return (min(piece.bottom, bottom) - max(piece.top, top)) / min(piece.height, bottom - top)


def _distance(a: Piece, b: Piece) -> float:
    """Return the distance of two boxes. A distance down counts three times: a dot belongs to the digit beside it."""
    across = max(0, a.left - b.right, b.left - a.right)
    down = max(0, a.top - b.bottom, b.top - a.bottom)
    return across + 3.0 * down


def _upright(ink: Ink, pieces: Sequence[Piece]) -> Line:
    """Return the line of these pieces, turned so that it neither rises nor falls."""
    left, top = min(p.left for p in pieces), min(p.top for p in pieces)
    right, bottom = max(p.right for p in pieces), max(p.bottom for p in pieces)
    line = np.zeros((bottom - top, right - left), np.float32)
    for piece in pieces:
        for row, start, end in piece.runs:
            line[row - top, start - left : end - left] = ink[row, start:end]
    height = usual_height(pieces)
    tilt = _tilt(line, height)
    if abs(tilt) < LEAST_TILT:
        return Line(line, height, (left, top), (1.0, 0.0))
    cosine, sine = float(np.cos(np.arctan(tilt))), float(np.sin(np.arctan(tilt)))
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
    upright = np.where(upright < 0.1 * upright.max(), 0, upright)
    return Line(upright, height, (left + x, top + y), (cosine, sine))


def _tilt(line: Ink, height: float) -> float:
    """Return how many rows the line falls per column: the regression of the ink's rows on its columns."""
    rows, columns = np.arange(line.shape[0]), np.arange(line.shape[1])
    mass = float(line.sum())
    x = columns - float((line.sum(axis=0) * columns).sum()) / mass
    y = rows - float((line.sum(axis=1) * rows).sum()) / mass
    covariance = float(y @ line @ x) / mass
    variance = float((line.sum(axis=0) * x * x).sum()) / mass
    return covariance / (variance + LEVEL * height * height)

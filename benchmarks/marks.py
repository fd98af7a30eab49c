"""Draw rows of digits with the marks that people write between them: dates, times, prices, phone numbers and sums.

The digits are MNIST's. The marks are drawn as polylines, and each differs at random in size, place, lean and tremor.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.drawings import Array
from benchmarks.polylines import Stroke, arc

Random = np.random.Generator

# Pixels of the page per pixel of MNIST, and the height of a digit in pixels of the page.
SCALE = 4
HEIGHT = 20 * SCALE
# Marks are drawn at this many times the size, and then averaged.
FINE = 4
# The pen of the marks of a row, as a share of a digit's height.
PEN = 0.08, 0.16
# The gap on both sides of a digit or mark, and that of a space.
GAP, SPACE = (0.06, 0.3), (0.5, 0.9)
# The largest changes: of the size of a digit and of a mark, and of the place from top to bottom.
DIGIT_SIZE, MARK_SIZE, PLACE = 0.08, 0.2, 0.04
# The largest change of the size of each digit in a row of one hand: some people write long 1s, for example.
OWN_SIZE = 0.13
# The largest lean of the marks of a row, and the standard deviations of each mark's own lean and of its points.
LEAN, OWN_LEAN, TREMOR = 0.12, 0.03, 0.015
# The slashes or brackets of a row go beyond the digits by up to this much, above and below, and by what each differs.
BEYOND, OWN_BEYOND = 0.25, 0.04

MARKS: dict[str, tuple[Stroke, ...]] = {
    ".": ([(0, 0.97), (0.02, 0.98)],),
    ",": ([(0.05, 0.92), (0, 1.12)],),
    ":": ([(0, 0.35), (0.02, 0.36)], [(0, 0.82), (0.02, 0.83)]),
    "-": ([(0, 0.52), (0.35, 0.52)],),
    "+": ([(0, 0.55), (0.5, 0.55)], [(0.25, 0.3), (0.25, 0.8)]),
    "x": ([(0, 0.32), (0.42, 0.8)], [(0.42, 0.32), (0, 0.8)]),
    "=": ([(0, 0.42), (0.45, 0.42)], [(0, 0.65), (0.45, 0.65)]),
    "/": ([(0.4, 0), (0, 1)],),
    "(": (arc(0.3, 0.5, 0.5, 1.05, -110, -250),),
    ")": (arc(0, 0.5, 0.5, 1.05, -70, 70),),
}
"""Strokes, as shares of a digit's height: 0 is the top of the digits, and 1 is their foot."""

TALL = frozenset("/()")

PATTERNS = {
    "date with dots": "##.##.####",
    "date with minus signs": "####-##-##",
    "date with slashes": "##/##/####",
    "time": "##:##",
    "price": "###,##",
    "negative number": "-##",
    "phone number with brackets": "(###) #######",
    "phone number with minus signs": "###-###-####",
    "sum": "##+##=##",
    "product": "#x#=##",
    "number without marks": "########",
    "number with 1s in the places of slashes": "##1##1####",
    "fraction": "#/##",
    "item of a list": "#) ###",
}
"""Each # stands for a random digit, and a 1 for a 1."""
DIGIT = frozenset("#1")


class Hand(NamedTuple):
    """How somebody writes marks."""

    pen: float
    """In pixels of the page."""
    size: float
    lean: float
    above: float
    """How far slashes and brackets go beyond the digits, as a share of a digit's height."""
    below: float


def marked_row(digits: list[Array], pattern: str, random: Random, sizes: list[float] | None = None) -> Array:
    """Return the ink of a pattern with these digits, 0 to 255, without a margin.

    Args:
        sizes: those of the digits, as factors; None draws each at random.
    """
    hand = Hand(
        pen=random.uniform(*PEN) * HEIGHT,
        size=1 + random.uniform(-MARK_SIZE, MARK_SIZE),
        lean=random.uniform(-LEAN, LEAN),
        above=random.uniform(0, BEYOND),
        below=random.uniform(0, BEYOND),
    )
    sizes = sizes or [1 + random.uniform(-DIGIT_SIZE, DIGIT_SIZE) for _ in digits]
    rest = zip(digits, sizes, strict=True)
    row = np.zeros((2 * HEIGHT, 0), np.uint8)
    for character in pattern:
        if character == " ":
            row = np.pad(row, [(0, 0), (0, round(random.uniform(*SPACE) * HEIGHT))])
            continue
        ink = _digit(*next(rest), random) if character in DIGIT else _mark(character, hand, random)
        columns = np.flatnonzero(ink.any(axis=0))
        gap = round(random.uniform(*GAP) * HEIGHT)
        row = np.concatenate([row, np.pad(ink[:, columns[0] : columns[-1] + 1], [(0, 0), (gap, 0)])], axis=1)
    rows = np.flatnonzero(row.any(axis=1))
    return row[rows[0] : rows[-1] + 1]


def _digit(digit: Array, size: float, random: Random) -> Array:
    """Return a digit in the middle of a strip that is twice as high."""
    side = round(28 * SCALE * size)
    ink = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))
    top = round(HEIGHT - side / 2 + random.uniform(-PLACE, PLACE) * HEIGHT)
    return np.pad(ink, [(top, 2 * HEIGHT - top - side), (0, 0)])


def _mark(character: str, hand: Hand, random: Random) -> Array:
    """Return a mark in a strip that is twice as high as a digit, in the middle."""
    canvas = Image.new("L", (2 * HEIGHT * FINE, 2 * HEIGHT * FINE))
    draw = ImageDraw.Draw(canvas)
    is_tall = character in TALL
    lean = hand.lean + random.normal(0, OWN_LEAN)
    longer = 1 + hand.above + hand.below + random.normal(0, OWN_BEYOND) if is_tall else hand.size
    shift = random.uniform(-PLACE, PLACE) + ((hand.below - hand.above) / 2 if is_tall else 0)
    for stroke in MARKS[character]:
        x, y = np.array(stroke).T
        middle = 0.5 if is_tall else y.mean()
        y = middle + (y - middle) * longer + shift
        x = 0.5 + x * hand.size + lean * (middle - y)
        points = (np.column_stack([x, y + 0.5]) + random.normal(0, TREMOR, (len(x), 2))) * HEIGHT * FINE
        draw.line([tuple(point) for point in points], 255, round(hand.pen * FINE), joint="curve")
        radius = hand.pen * FINE * (0.6 if character in ".:" else 0.5)
        for x, y in (points[0], points[-1]):  # Round ends.
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
    return np.asarray(canvas.reduce(FINE))

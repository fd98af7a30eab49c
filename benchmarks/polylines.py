"""Draw digits as people draw them at 28x28 pixels in a paint program: polylines of a pen of 1 to 3 pixels.

Each digit has several styles: a 7 with and without a bar, an open and a closed 4, a 1 with and without an upstroke.
Every style is drawn with each pen, with and without anti-aliasing, in the middle and elsewhere, dark on white and white
on black. Size, width, slant and every point vary at random.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from benchmarks.drawings import encode
from serving.contract import IMAGE_SIZE

Points = npt.NDArray[np.float64]
"""``[N, 2]``: x and y of each point. A digit lies between (0, 0), top left, and (1, 1)."""

PENS = (1, 2, 3)
# Anti-aliased lines are drawn at this many times the size, and then averaged.
FINE = 8
# Bounds of the random height in pixels, of the width as a share of the height, and of the slant.
HEIGHT, WIDTH, SLANT = (15, 22), (0.5, 0.8), (-0.05, 0.25)
# Standard deviation by which each point is moved, as a share of the height.
TREMOR = 0.012


def arc(x: float, y: float, width: float, height: float, begin: float, end: float) -> list[tuple[float, float]]:
    """Return points on an ellipse around (x, y), between two angles in degrees. 0 is right, and 90 is down."""
    angles = np.radians(np.linspace(begin, end, max(2, int(abs(end - begin) / 20))))
    return [(x + width / 2 * np.cos(angle), y + height / 2 * np.sin(angle)) for angle in angles]


Stroke = Sequence[tuple[float, float]]

STYLES: dict[int, tuple[tuple[Stroke, ...], ...]] = {
    0: (
        (arc(0.5, 0.5, 1, 1, -90, 270),),
        (arc(0.5, 0.5, 0.7, 1, -70, 270),),
        ([(0.4, 0), (0.1, 0.25), (0.1, 0.7), (0.4, 1), (0.8, 0.9), (0.95, 0.5), (0.8, 0.1), (0.4, 0)],),
        ([*arc(0.5, 0.5, 1, 1, -110, 235), (0.45, 0.1)],),
    ),
    1: (
        ([(0.5, 0), (0.5, 1)],),
        ([(0.25, 0.2), (0.55, 0), (0.55, 1)],),
        ([(0.1, 0.4), (0.6, 0), (0.6, 1)],),
        ([(0.25, 0.2), (0.5, 0), (0.5, 1)], [(0.2, 1), (0.8, 1)]),
        ([(0.65, 0), (0.4, 1)],),
    ),
    2: (
        ([*arc(0.5, 0.28, 0.8, 0.56, -170, 40), (0.1, 1), (0.95, 1)],),
        ([(0.1, 0.15), (0.5, 0), (0.85, 0.2), (0.8, 0.45), (0.05, 1), (1, 0.98)],),
        ([*arc(0.5, 0.25, 0.8, 0.5, -180, 50), *arc(0.2, 0.87, 0.35, 0.25, 90, 300), (0.6, 0.95), (1, 0.9)],),
        ([(0.05, 0.05), (0.9, 0), (0.8, 0.4), (0.05, 1), (0.95, 1)],),
    ),
    3: (
        ([*arc(0.42, 0.25, 0.8, 0.5, -150, 80), *arc(0.42, 0.73, 1, 0.54, -85, 150)],),
        ([(0.05, 0), (0.9, 0), (0.4, 0.4), *arc(0.42, 0.7, 1, 0.6, -80, 150)],),
        ([(0.1, 0.1), (0.6, 0), (0.85, 0.2), (0.4, 0.47), (0.95, 0.7), (0.6, 1), (0.05, 0.92)],),
        ([*arc(0.4, 0.24, 0.75, 0.48, -140, 70), (0.3, 0.48), *arc(0.4, 0.74, 0.95, 0.52, -60, 140)],),
    ),
    4: (
        ([(0.3, 0), (0.05, 0.6), (0.95, 0.6)], [(0.75, 0.25), (0.7, 1)]),
        ([(0.7, 1), (0.7, 0), (0.05, 0.65), (1, 0.65)],),
        ([(0.1, 0), (0.1, 0.5), (0.85, 0.5)], [(0.85, 0), (0.85, 1)]),
        ([(0.15, 0.05), (0.12, 0.45), (0.85, 0.48)], [(0.9, 0), (0.7, 1)]),
        ([(0.65, 0), (0.05, 0.65), (1, 0.65)], [(0.65, 0), (0.65, 1)]),
    ),
    5: (
        ([(0.9, 0), (0.15, 0), (0.1, 0.45), *arc(0.4, 0.68, 1, 0.62, -110, 140)],),
        ([(0.2, 0.02), (0.15, 0.42), *arc(0.4, 0.7, 0.95, 0.6, -100, 150)], [(0.2, 0), (0.95, 0)]),
        ([(0.95, 0), (0.1, 0.03), (0.1, 0.45), (0.65, 0.42), (0.95, 0.65), (0.8, 0.95), (0.05, 1)],),
        ([(0.9, 0.02), (0.35, 0), (0.2, 0.4), (0.7, 0.5), (0.85, 0.75), (0.6, 1), (0.1, 0.9)],),
    ),
    6: (
        ([(0.75, 0), *arc(0.5, 0.68, 0.9, 0.64, -190, -540)],),
        ([(0.3, 0), (0.08, 0.7), *arc(0.5, 0.72, 0.84, 0.55, 160, -190)],),
        ([(0.85, 0.05), (0.4, 0.15), (0.08, 0.6), (0.2, 0.95), (0.7, 1), (0.95, 0.7), (0.6, 0.5), (0.12, 0.7)],),
        ([*arc(0.6, 0.5, 1.1, 1, -60, -180), *arc(0.5, 0.72, 0.9, 0.56, 180, -170)],),
    ),
    7: (
        ([(0.05, 0), (0.95, 0), (0.35, 1)],),
        ([(0.05, 0), (0.95, 0), (0.35, 1)], [(0.25, 0.5), (0.9, 0.5)]),
        ([(0.05, 0.2), (0.08, 0), (0.95, 0.02), (0.5, 0.5), (0.4, 1)],),
        ([(0.05, 0.05), (0.3, 0.1), (0.9, 0), (0.45, 1)], [(0.3, 0.55), (0.85, 0.45)]),
    ),
    8: (
        (arc(0.5, 0.25, 0.75, 0.5, 90, 450), arc(0.5, 0.75, 0.95, 0.5, -90, 270)),
        (
            [
                *arc(0.5, 0.25, 0.8, 0.5, -30, -230),
                *arc(0.5, 0.75, 0.9, 0.5, -40, 220),
                *arc(0.5, 0.25, 0.8, 0.5, 50, -30),
            ],
        ),
        ([(0.85, 0.1), (0.3, 0), (0.15, 0.25), (0.85, 0.7), (0.6, 1), (0.15, 0.9), (0.2, 0.65), (0.85, 0.1)],),
        (arc(0.5, 0.22, 0.7, 0.44, -80, 280), arc(0.5, 0.72, 1, 0.56, -80, 280)),
    ),
    9: (
        ([*arc(0.5, 0.28, 0.85, 0.56, -10, -360), (0.92, 0.28), (0.85, 1)],),
        ([*arc(0.5, 0.28, 0.85, 0.56, -20, -370), *arc(0.45, 0.6, 0.95, 0.78, -20, 140)],),
        ([(0.9, 0.1), (0.4, 0), (0.08, 0.25), (0.35, 0.5), (0.85, 0.35), (0.9, 0.1), (0.6, 1)],),
        ([*arc(0.5, 0.25, 0.8, 0.5, 0, -360), (0.9, 0.8), *arc(0.5, 0.8, 0.8, 0.4, 20, 160)],),
    ),
}


def draw_polylines(copies: int = 1) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """Return PNG files of 28x28 pixels, ``copies`` of each combination, and the digit in each of them."""
    random = np.random.default_rng(0)
    pictures, digits = [], []
    kinds = (PENS, (False, True), (False, True), (False, True), range(copies))
    for digit, styles in STYLES.items():
        for style, (pen, smooth, centred, bright, _) in itertools.product(styles, itertools.product(*kinds)):
            ink = _draw(_place(style, pen, centred, random), pen, smooth)
            pictures.append(encode(ink if bright else 255 - ink))
            digits.append(digit)
    return pictures, np.array(digits)


def _place(style: Sequence[Stroke], pen: int, centred: bool, random: np.random.Generator) -> list[Points]:
    """Return the strokes in pixels: scaled, slanted, with a tremor, and with room for the pen at the border."""
    height = random.uniform(*HEIGHT)
    width, slant = height * random.uniform(*WIDTH), random.uniform(*SLANT)
    strokes = []
    for stroke in style:
        points = (np.array(stroke) + random.normal(0, TREMOR, (len(stroke), 2))) * (width, height)
        points[:, 0] += slant * (height - points[:, 1])
        strokes.append(points)
    every = np.concatenate(strokes)
    low, high = every.min(axis=0), every.max(axis=0)
    room = IMAGE_SIZE - (high - low) - pen - 1
    corner = room / 2 if centred else random.uniform(0, 1, 2) * room
    return [stroke - low + corner + (pen + 1) / 2 for stroke in strokes]


def _draw(strokes: Sequence[Points], pen: int, smooth: bool) -> npt.NDArray[np.uint8]:
    """Return the ink, white on black. Without anti-aliasing, a square pen is set down at each pixel of the line."""
    factor = FINE if smooth else 1
    page = Image.new("L", (IMAGE_SIZE * factor,) * 2)
    canvas = ImageDraw.Draw(page)
    for stroke in strokes:
        for (x0, y0), (x1, y1) in itertools.pairwise(stroke * factor):
            steps = 1 + int(max(abs(x1 - x0), abs(y1 - y0)))
            for x, y in zip(np.linspace(x0, x1, steps + 1), np.linspace(y0, y1, steps + 1), strict=True):
                if smooth:
                    radius = pen * FINE / 2
                    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
                else:
                    left, top = round(x - pen / 2), round(y - pen / 2)
                    canvas.rectangle((left, top, left + pen - 1, top + pen - 1), 255)
    return np.asarray(page.reduce(factor) if smooth else page)

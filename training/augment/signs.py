"""More outliers: printed signs, drawn signs and faces, words, and plots.

Everything is drawn here or comes from the fonts in matplotlib's package. Signs that people also write as a digit are
left out: a slash or a bar is a 1, a ring is a 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from training.augment.fonts import ImageArray, Random, frame_as_mnist, render_character
from training.glyphs import print_font, print_fonts

GREEK = "ΓΔΛΞΠΣΦΨΩαβγδεηκλμνξπτυφχψω"
ARITHMETIC = "+-=×÷%±≠≈<>"
SYMBOLS = "#$&@*?^~{}[]§¶€£¥★☆♥♦♣♠☎✓✗✔✘→←↑↓♪♫☀☁☂☃⚑⚠⚡✂✈✉∞∑√∂∇"
FACES = "☹☺☻" + "".join(map(chr, range(0x1F600, 0x1F624)))
# Fonts that have these characters, each in most of its styles.
SIGN_FONTS = {
    GREEK: ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "STIXGeneralItalic", "DejaVuSans-Oblique"),
    ARITHMETIC: ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "DejaVuSans-Bold"),
    SYMBOLS: ("DejaVuSans", "DejaVuSans-Bold"),
    FACES: ("DejaVuSans", "DejaVuSans-Bold"),
}
CANVAS_SIDE = 64  # pixels
# Bounds of the random pen of drawings, and of their share of the canvas.
PEN, SIZE = (3, 9), (0.6, 0.95)
# Standard deviation by which each point of a drawing is moved, as a share of its size.
TREMOR = 0.02

T = TypeVar("T")
Points = Sequence[tuple[float, float]]


def printed_sign(digits: ImageArray, random: Random) -> ImageArray:
    """Return a Greek letter, a sign of arithmetic, another symbol or a face, as a font has it."""
    characters = _one(tuple(SIGN_FONTS), random)
    font = print_fonts() / f"{_one(SIGN_FONTS[characters], random)}.ttf"
    return render_character(font, _one(characters, random), random)


def drawn_sign(digits: ImageArray, random: Random) -> ImageArray:
    """Return a sign or a face of a few pen strokes, as people draw them."""
    drawing = _Drawing(random)
    _one(DRAWINGS, random)(drawing, random)
    return frame_as_mnist(drawing.canvas)


def words(digits: ImageArray, random: Random) -> ImageArray:
    """Return one to four lines of printed text."""
    name = _one(SIGN_FONTS[GREEK], random)
    font = print_font(int(random.integers(12, 40)), name)
    lines = []
    for _ in range(random.integers(1, 5)):
        letters = random.choice(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPRSTUVW "), random.integers(3, 12))
        lines.append("".join(letters))
    canvas = Image.new("L", (480, 200))
    ImageDraw.Draw(canvas).multiline_text((8, 8), "\n".join(lines), 255, font)
    return frame_as_mnist(canvas)


def plot(digits: ImageArray, random: Random) -> ImageArray:
    """Return a plot: a curve, bars, points, a histogram or a pie, mostly with axes."""
    canvas = Image.new("L", (CANVAS_SIDE, CANVAS_SIDE))
    draw = ImageDraw.Draw(canvas)
    width = int(random.integers(1, 4))
    left, top, right, bottom = 6, int(random.integers(4, 24)), CANVAS_SIDE - 6, CANVAS_SIDE - 8
    kind = random.integers(5)
    if kind == 4:
        start = random.uniform(0, 360)
        for share in np.sort(random.uniform(0, 360, random.integers(2, 6))):
            draw.pieslice((left, top, right, bottom), start, start + share, int(random.integers(40, 256)), 255, width)
        return frame_as_mnist(canvas)
    if random.random() < 0.7:
        draw.line([(left, top), (left, bottom), (right, bottom)], 255, width)
        if random.random() < 0.6:
            draw.rectangle((left, top, right, bottom), None, 255, width)
    count = int(random.integers(3, 12)) if kind in (1, 2) else int(random.integers(8, 40))
    x = np.linspace(left + 3, right - 3, count)
    values = random.normal(size=count).cumsum() if random.random() < 0.5 else np.sin(x * random.uniform(0.05, 0.6))
    y = top + 3 + (bottom - top - 6) * (1 - (values - values.min()) / max(1e-6, float(np.ptp(values))))
    if kind == 0:
        draw.line(list(zip(x, y, strict=True)), 255, width)
    elif kind == 3:
        for point in zip(x, random.permutation(y), strict=True):
            draw.ellipse(_around(point, random.uniform(1, 2.5)), 255)
    else:
        half = (right - left) / count * random.uniform(0.2, 0.5)
        for middle, height in zip(x, y, strict=True):
            draw.rectangle((middle - half, height, middle + half, bottom), int(random.integers(90, 256)))
    return frame_as_mnist(canvas)


class _Drawing:
    """A canvas on which pen strokes are drawn with a tremor. Coordinates run from 0 to 1, from the top left."""

    def __init__(self, random: Random) -> None:
        self.canvas = Image.new("L", (CANVAS_SIDE, CANVAS_SIDE))
        self._draw = ImageDraw.Draw(self.canvas)
        self._random = random
        self._pen = int(random.integers(*PEN))
        self._scale = CANVAS_SIDE * random.uniform(*SIZE, 2)
        self._corner = (CANVAS_SIDE - self._scale) / 2

    def line(self, points: Points) -> None:
        moved = np.array(points) + self._random.normal(0, TREMOR, (len(points), 2))
        at = [tuple(point) for point in moved * self._scale + self._corner]
        self._draw.line(at, 255, self._pen, joint="curve")
        for end in (at[0], at[-1]):
            self._draw.ellipse(_around(end, self._pen / 2), 255)

    def arc(self, middle: tuple[float, float], radius: float, begin: float = 0, end: float = 360) -> None:
        """Draw a part of a circle. Angles are in degrees: 0 is right, and 90 is down."""
        angles = np.radians(np.linspace(begin, end, 20))
        self.line([(middle[0] + radius * np.cos(angle), middle[1] + radius * np.sin(angle)) for angle in angles])

    def dot(self, middle: tuple[float, float]) -> None:
        self._draw.ellipse(_around(tuple(np.array(middle) * self._scale + self._corner), self._pen * 0.6), 255)


def _face(drawing: _Drawing, random: Random) -> None:
    drawing.arc((0.5, 0.5), 0.47)
    height, distance = random.uniform(0.33, 0.45), random.uniform(0.12, 0.2)
    for x in (0.5 - distance, 0.5 + distance):
        if random.random() < 0.75:
            drawing.dot((x, height))
        else:
            drawing.line([(x, height - 0.06), (x, height + 0.06)])
    mouth = random.integers(4)
    if mouth == 0:
        drawing.arc((0.5, 0.5), random.uniform(0.2, 0.28), 25, 155)
    elif mouth == 1:
        drawing.arc((0.5, 0.88), random.uniform(0.2, 0.28), 210, 330)
    elif mouth == 2:
        drawing.line([(0.35, 0.7), (0.65, random.uniform(0.64, 0.76))])
    else:
        drawing.arc((0.5, 0.7), random.uniform(0.06, 0.12))


def _flower(drawing: _Drawing, random: Random) -> None:
    drawing.arc((0.5, 0.5), 0.12)
    count = int(random.integers(5, 9))
    for angle in np.arange(count) * 2 * np.pi / count:
        direction = np.array((np.cos(angle), np.sin(angle)))
        if count % 2:
            drawing.arc(tuple(0.5 + 0.32 * direction), 0.14)
        else:
            drawing.line([tuple(0.5 + radius * direction) for radius in (0.24, 0.48)])


def _circled(drawing: _Drawing, random: Random) -> None:
    drawing.arc((0.5, 0.5), 0.47)
    for stroke in _one(("+", "x", "check"), random), _one(("+", "x"), random):
        for points in STROKES[stroke]:
            drawing.line([(0.5 + 0.5 * (x - 0.5), 0.5 + 0.5 * (y - 0.5)) for x, y in points])


def _percent(drawing: _Drawing, random: Random) -> None:
    drawing.line([(0.8, 0), (0.2, 1)])
    for middle in ((0.2, 0.2), (0.8, 0.8)):
        drawing.arc(middle, random.uniform(0.1, 0.18))


def _divided(drawing: _Drawing, random: Random) -> None:
    drawing.line([(0, 0.5), (1, 0.5)])
    for y in (0.2, 0.8):
        drawing.dot((0.5, y))


STROKES: dict[str, tuple[Points, ...]] = {
    "+": ([(0, 0.5), (1, 0.5)], [(0.5, 0), (0.5, 1)]),
    "-": ([(0, 0.5), (1, 0.5)],),
    "x": ([(0.1, 0), (0.9, 1)], [(0.9, 0), (0.1, 1)]),
    "=": ([(0, 0.35), (1, 0.35)], [(0, 0.65), (1, 0.65)]),
    "heart": (
        [(0.5, 1), (0.05, 0.45), (0.05, 0.15), (0.2, 0), (0.4, 0.05), (0.5, 0.25)],
        [(0.5, 0.25), (0.6, 0.05), (0.8, 0), (0.95, 0.15), (0.95, 0.45), (0.5, 1)],
    ),
    "star": ([(0.5, 0), (0.8, 1), (0, 0.38), (1, 0.38), (0.2, 1), (0.5, 0)],),
    "arrow": ([(0, 0.5), (1, 0.5)], [(0.65, 0.2), (1, 0.5), (0.65, 0.8)]),
    "up": ([(0.5, 1), (0.5, 0)], [(0.15, 0.35), (0.5, 0), (0.85, 0.35)]),
    "check": ([(0, 0.55), (0.35, 1), (1, 0)],),
    "house": ([(0.1, 1), (0.1, 0.4), (0.5, 0), (0.9, 0.4), (0.9, 1), (0.1, 1)],),
    "square": ([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)],),
    "triangle": ([(0.5, 0), (1, 1), (0, 1), (0.5, 0)],),
    "diamond": ([(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5), (0.5, 0)],),
    "hash": ([(0.3, 0), (0.25, 1)], [(0.75, 0), (0.7, 1)], [(0, 0.3), (1, 0.3)], [(0, 0.7), (1, 0.7)]),
    "lightning": ([(0.6, 0), (0.2, 0.55), (0.8, 0.45), (0.4, 1)],),
    "tree": ([(0.5, 1), (0.5, 0)], [(0.1, 0.4), (0.5, 0.15), (0.9, 0.4)], [(0, 0.7), (0.5, 0.4), (1, 0.7)]),
    "man": ([(0.2, 1), (0.5, 0.65), (0.8, 1)], [(0.5, 0.65), (0.5, 0.25)], [(0.1, 0.4), (0.9, 0.4)]),
    "fish": ([(0, 0.3), (0.3, 0.6), (0.7, 0.7), (1, 0.5), (0.7, 0.3), (0.3, 0.4), (0, 0.7), (0, 0.3)],),
    "wave": ([(0, 0.6), (0.2, 0.35), (0.4, 0.6), (0.6, 0.35), (0.8, 0.6), (1, 0.35)],),
}


def _strokes(drawing: _Drawing, random: Random) -> None:
    for points in STROKES[_one(tuple(STROKES), random)]:
        drawing.line(points)


# drawn_sign() takes one of them. Faces and plain strokes are what people draw most.
DRAWINGS: tuple[Callable[[_Drawing, Random], None], ...] = (
    *(_face, _face, _face, _face, _flower, _circled, _percent, _divided),
    *(_strokes, _strokes, _strokes, _strokes, _strokes, _strokes, _strokes, _strokes),
)


def _around(point: Sequence[float] | npt.NDArray[np.float64], radius: float) -> tuple[float, float, float, float]:
    x, y = float(point[0]), float(point[1])
    return x - radius, y - radius, x + radius, y + radius


def _one(choices: Sequence[T], random: Random) -> T:
    return choices[int(random.integers(len(choices)))]

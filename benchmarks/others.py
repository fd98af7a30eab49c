"""Draw pictures that show no digit, as people send them, for benchmarks/acceptance.py.

The fonts, the words, the faces and the plots are not those of training/augment, except that DejaVu and STIX are there
too: every package of matplotlib has them. The strokes are drawn here in other proportions and with other pens.
"""

from __future__ import annotations

import io
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.drawings import LETTERS_LIKE_DIGITS, Random, encode
from benchmarks.paper import BLANK, blank

mpl.use("agg")

LETTERS = "".join(letter for letter in string.ascii_letters if letter not in LETTERS_LIKE_DIGITS)
# Without those that look like a digit or like one of these letters: Β Ζ Θ Ι Ο and θ ι ο ρ ς σ.
GREEK = "ΑΓΔΕΗΚΛΜΝΞΠΡΣΤΥΦΧΨΩαβγδεζηκλμνξπτυφχψω"
# The slash has a row of its own: many people write their 1 so.
ARITHMETIC, SLASH = "+-−x=%×÷", "/"
SIGNS = "#$&@*?<>^~{}[]§¶€£¥★☆♥♦♣♠☎✓✗✔✘→←↑↓♪♫☀☁☂☃⚑⚠⚡✂✈✉∞∑√Ω±≈≠"
FACES = "".join(map(chr, (0x2639, 0x263A, 0x263B, *range(0x1F600, 0x1F624))))

TTF = Path(mpl.get_data_path()) / "fonts" / "ttf"
PRINT = [TTF / f"{name}.ttf" for name in ("DejaVuSansMono-Bold", "DejaVuSerif-Bold", "STIXGeneralBolIta", "cmb10")]
WITH_GREEK = [
    TTF / f"{name}.ttf"
    for name in (
        "DejaVuSans",
        "DejaVuSerif",
        "DejaVuSansMono",
        "STIXGeneral",
        "DejaVuSans-BoldOblique",
        "DejaVuSerif-Bold",
    )
]
WITH_FACES = [TTF / f"{name}.ttf" for name in ("DejaVuSans", "DejaVuSans-Bold")]
WORDS = ("hello", "digit", "reads", "people", "send", "whole", "numbers", "a", "model", "quick", "brown", "fox", "dog")

Stroke = Sequence[tuple[float, float]]


def printed(fonts: Iterable[Path], characters: str, size: int = 96) -> Iterator[bytes]:
    """Yield each character in each font that has it, dark on white."""
    for path in fonts:
        font = ImageFont.truetype(str(path), size)
        missing = bytes(font.getmask("\uffff"))
        for character in characters:
            if bytes(font.getmask(character)) not in (missing, b""):
                page = Image.new("L", (180, 180), 255)
                ImageDraw.Draw(page).text((90, 90), character, 0, font, anchor="mm")
                yield encode(np.asarray(page))


def ring(x: float, y: float, radius: float, begin: float = 0, end: float = 360) -> Stroke:
    """Return points on a circle, between two angles in degrees. 0 is right, and 90 is down."""
    angles = np.radians(np.linspace(begin, end, 24))
    return [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for angle in angles]


def _face(mouth: Stroke) -> Sequence[Stroke]:
    return ring(0.5, 0.5, 0.38), ring(0.37, 0.4, 0.03), ring(0.63, 0.4, 0.03), mouth


DRAWN_ARITHMETIC: dict[str, Sequence[Stroke]] = {
    "+": ([(0.2, 0.5), (0.8, 0.5)], [(0.5, 0.2), (0.5, 0.8)]),
    "-": ([(0.2, 0.5), (0.8, 0.5)],),
    "x": ([(0.25, 0.2), (0.75, 0.8)], [(0.75, 0.2), (0.25, 0.8)]),
    "=": ([(0.2, 0.4), (0.8, 0.4)], [(0.2, 0.6), (0.8, 0.6)]),
    "%": ([(0.7, 0.2), (0.3, 0.8)], ring(0.3, 0.3, 0.08), ring(0.7, 0.7, 0.08)),
}
DRAWN_SLASH: dict[str, Sequence[Stroke]] = {"/": ([(0.65, 0.2), (0.35, 0.8)],)}
DRAWN_FACES: dict[str, Sequence[Stroke]] = {
    "smile": _face(ring(0.5, 0.55, 0.18, 20, 160)),
    "frown": _face(ring(0.5, 0.8, 0.18, 200, 340)),
    "straight": _face([(0.37, 0.66), (0.63, 0.66)]),
}
DRAWN_SIGNS: dict[str, Sequence[Stroke]] = {
    "heart": (
        [(0.5, 0.8), (0.2, 0.45), (0.25, 0.25), (0.4, 0.22), (0.5, 0.38), (0.6, 0.22), (0.75, 0.25), (0.8, 0.45)],
        [(0.8, 0.45), (0.5, 0.8)],
    ),
    "star": ([(0.5 + 0.4 * np.sin(0.8 * np.pi * i), 0.5 - 0.4 * np.cos(0.8 * np.pi * i)) for i in range(6)],),
    "arrow": ([(0.15, 0.5), (0.85, 0.5)], [(0.6, 0.25), (0.85, 0.5), (0.6, 0.75)]),
    "check": ([(0.2, 0.55), (0.4, 0.78), (0.8, 0.2)],),
    "house": ([(0.2, 0.8), (0.2, 0.45), (0.5, 0.2), (0.8, 0.45), (0.8, 0.8), (0.2, 0.8)],),
    "square": ([(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8), (0.2, 0.2)],),
    "triangle": ([(0.5, 0.2), (0.8, 0.8), (0.2, 0.8), (0.5, 0.2)],),
}


def drawn(kinds: dict[str, Sequence[Stroke]], copies: int, random: Random) -> Iterator[bytes]:
    """Yield each kind ``copies`` times, drawn with a random pen and a tremor on 28x28 to 280x280 pixels."""
    for strokes in kinds.values():
        for _ in range(copies):
            side, fine = int(random.choice((28, 64, 140, 280))), 4
            pen = max(1.0, side * random.uniform(0.04, 0.11)) * fine
            page = Image.new("L", (side * fine, side * fine), 255)
            canvas = ImageDraw.Draw(page)
            for stroke in strokes:
                points = (np.array(stroke) + random.normal(0, 0.012, (len(stroke), 2))) * side * fine
                canvas.line([tuple(point) for point in points], 0, round(pen), joint="curve")
                for x, y in points[[0, -1]]:
                    canvas.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), 0)
            yield encode(np.asarray(page.reduce(fine)))


def texts(fonts: Sequence[Path], count: int, random: Random) -> Iterator[bytes]:
    """Yield pages of one to five lines of words."""
    for _ in range(count):
        font = ImageFont.truetype(str(fonts[int(random.integers(len(fonts)))]), int(random.integers(14, 50)))
        lines = [" ".join(random.choice(WORDS, random.integers(1, 5))) for _ in range(random.integers(1, 6))]
        text = "\n".join(lines)
        left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((20, 20), text, font)
        page = Image.new("L", (int(right - left) + 40, int(bottom - top) + 40), 255)
        ImageDraw.Draw(page).multiline_text((40 - left, 40 - top), text, 0, font)
        yield encode(np.asarray(page))


def plots(count: int, random: Random) -> Iterator[bytes]:
    """Yield figures of matplotlib: curves, bars, points, pies and histograms, with and without axes and titles."""
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    x = np.linspace(0, 10, 50)
    kinds: list[Callable[[Axes], object]] = [
        lambda axes: axes.plot(x, np.cumsum(random.normal(size=50))),
        lambda axes: axes.bar(range(6), random.random(6)),
        lambda axes: axes.scatter(*random.random((2, 40))),
        lambda axes: axes.pie(random.random(4) + 0.1),
        lambda axes: axes.hist(random.normal(size=200)),
        lambda axes: axes.plot(x, np.sin(x * random.uniform(0.5, 3))),
    ]
    for i in range(count):
        figure, axes = plt.subplots(figsize=(3, 2.5), dpi=100)
        kinds[i % len(kinds)](axes)
        style = random.integers(3)
        if style == 0:
            axes.set(title="loss", xlabel="epoch")
        elif style == 1:
            axes.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer)
        plt.close(figure)
        yield buffer.getvalue()


GOALS = {
    "letters": 0.95,
    "Greek letters": 0.9,
    "signs of arithmetic": 0.95,
    "faces": 0.95,
    "signs": 0.95,
    "text": 0.99,
    "plots": 0.99,
}
"""The least share of each kind that should be rejected. A row begins with the name of its kind."""


def other_pictures(hand: Sequence[Path], copies: int = 20) -> dict[str, list[bytes]]:
    """Return pictures that show no digit, by kind.

    Args:
        hand: handwriting fonts; rows that need them are left out if there are none.
        copies: number of drawings of each sign.
    """
    random = np.random.default_rng(0)
    sets = {
        "letters, printed": printed(PRINT, LETTERS),
        "letters, handwriting fonts": printed(hand, LETTERS),
        "Greek letters, printed": printed(WITH_GREEK, GREEK),
        "signs of arithmetic, printed": printed(WITH_GREEK, ARITHMETIC),
        "signs of arithmetic, handwriting fonts": printed(hand, ARITHMETIC),
        "signs of arithmetic, drawn": drawn(DRAWN_ARITHMETIC, copies, random),
        "faces, printed": printed(WITH_FACES, FACES),
        "faces, drawn": drawn(DRAWN_FACES, 2 * copies, random),
        "signs, printed": printed(WITH_GREEK, SIGNS),
        "signs, handwriting fonts": printed(hand, SIGNS),
        "signs, drawn": drawn(DRAWN_SIGNS, copies, random),
        "text": texts([*WITH_GREEK, *hand], 5 * copies, random),
        "plots": plots(3 * copies, random),
        "(look-alikes) letters that look like a digit": printed([*PRINT, *hand], LETTERS_LIKE_DIGITS),
        "(look-alikes) slash": [*printed(WITH_GREEK, SLASH), *drawn(DRAWN_SLASH, copies, random)],
        "blank paper": (blank(kind, random, photo=False) for kind in copies // 2 * list(BLANK)),
        "blank paper, photos": (blank(kind, random, photo=True) for kind in copies * list(BLANK)),
    }
    return {name: made for name, pictures in sets.items() if (made := list(pictures))}

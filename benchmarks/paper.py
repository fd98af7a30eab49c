"""Draw printed paper, clean or photographed: blank sheets, and fields of a form with and without digits in them."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.drawings import Array, Random

SIZES = ((280, 280), (640, 480), (800, 600), (480, 640), (1000, 700))
"""Widths and heights of blank sheets."""

Draw = ImageDraw.ImageDraw
Colour = tuple[int, int, int]
Print = Callable[[Draw, int, int, "Pen", Random], None]
"""Prints something on a sheet of a width and a height."""


class Pen:
    """The colour and the thickness of printed lines."""

    def __init__(self, random: Random) -> None:
        shade = int(random.integers(60, 200))
        self.colour = (shade, shade, min(255, shade + 40))
        self.width = int(random.integers(1, 4))


def spacing(width: int, height: int, random: Random) -> int:
    return int(min(width, height) * random.uniform(0.04, 0.2))


def ruled(draw: Draw, width: int, height: int, pen: Pen, random: Random, *, squared: bool = False) -> None:
    step = spacing(width, height, random)
    for y in range(int(step * random.uniform(0.3, 1)), height, step):
        draw.line((0, y, width, y), pen.colour, pen.width)
    if squared:
        for x in range(int(step * random.uniform(0.3, 1)), width, step):
            draw.line((x, 0, x, height), pen.colour, pen.width)


def with_margin(draw: Draw, width: int, height: int, pen: Pen, random: Random) -> None:
    ruled(draw, width, height, pen, random)
    draw.line((width // 6, 0, width // 6, height), (220, 60, 60), pen.width)


def dotted(draw: Draw, width: int, height: int, pen: Pen, random: Random) -> None:
    step = spacing(width, height, random)
    for y in range(step // 2, height, step):
        for x in range(step // 2, width, step):
            draw.ellipse((x - pen.width, y - pen.width, x + pen.width, y + pen.width), pen.colour)


def box(draw: Draw, width: int, height: int, pen: Pen, random: Random) -> None:
    side = min(width, height) // 2
    left, top = (width - side) // 2, (height - side) // 2
    draw.rectangle((left, top, left + side, top + side), outline=pen.colour, width=pen.width)


def line(draw: Draw, width: int, height: int, pen: Pen, random: Random) -> None:
    draw.line((width // 6, height * 2 // 3, width * 5 // 6, height * 2 // 3), pen.colour, pen.width)


def dashes(draw: Draw, width: int, height: int, pen: Pen, random: Random) -> None:
    for x in range(width // 6, width * 5 // 6, 6 * pen.width):
        draw.line((x, height * 2 // 3, x + 3 * pen.width, height * 2 // 3), pen.colour, pen.width)


def table(draw: Draw, width: int, height: int, pen: Pen, random: Random) -> None:
    rows, columns = random.integers(2, 6, 2)
    for y in np.linspace(0.1, 0.9, rows + 1) * height:
        draw.line((width * 0.1, y, width * 0.9, y), pen.colour, pen.width)
    for x in np.linspace(0.1, 0.9, columns + 1) * width:
        draw.line((x, height * 0.1, x, height * 0.9), pen.colour, pen.width)


def folds(draw: Draw, width: int, height: int, pen: Pen, random: Random) -> None:
    draw.line((width // 2, 0, width // 2, height), pen.colour, pen.width)
    draw.line((0, height // 2, width, height // 2), pen.colour, pen.width)


def holes(draw: Draw, width: int, height: int, pen: Pen, random: Random) -> None:
    radius = height * 0.02
    for y in height * np.linspace(0.2, 0.8, int(random.integers(2, 5))):
        draw.ellipse((width * 0.05 - radius, y - radius, width * 0.05 + radius, y + radius), pen.colour)


def nothing(draw: Draw, width: int, height: int, pen: Pen, random: Random) -> None:
    pass


BLANK: dict[str, Print] = {
    "plain": nothing,
    "ruled": ruled,
    "ruled, with a margin": with_margin,
    "squared": functools.partial(ruled, squared=True),
    "dotted": dotted,
    "box": box,
    "line to write on": line,
    "dashes to write on": dashes,
    "table": table,
    "folds": folds,
    "punched holes": holes,
}
"""Sheets without a digit."""


def sheet(width: int, height: int, random: Random) -> Image.Image:
    """Return an empty sheet of a light colour."""
    colour = tuple(random.integers(215, 256, 3).tolist())
    return Image.new("RGB", (width, height), colour)


def blank(name: str, random: Random, *, photo: bool) -> bytes:
    """Return a picture file of a sheet of ``BLANK``."""
    width, height = SIZES[random.integers(len(SIZES))]
    page = sheet(width, height, random)
    BLANK[name](ImageDraw.Draw(page), width, height, Pen(random), random)
    return photographed(page, random) if photo else saved(page, "PNG")


def photographed(page: Image.Image, random: Random) -> bytes:
    """Return a photo of a sheet, turned by up to 4 degrees: light from one side, often a shadow, grain and blur."""
    height, width = page.height, page.width
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    turn = random.uniform(0, 2 * np.pi)
    light = 0.85 + 0.15 * (np.cos(turn) * (2 * x - 1) + np.sin(turn) * (2 * y - 1)) / 2
    if random.random() < 0.4:
        far = (x - random.uniform(0.2, 0.8)) * width + random.uniform(-0.5, 0.5) * (y - 0.5) * height
        light = light * (1 - 0.35 / (1 + np.exp(-np.clip(far / random.uniform(3, 30), -50, 50))))
    values = np.asarray(page, np.float32) * light[..., None]
    values += random.normal(0, random.uniform(1, 5), values.shape)
    values = np.clip(values, 0, 255).astype(np.uint8)
    blurred = Image.fromarray(values).filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1)))
    corner = tuple(values[0, 0].tolist())
    return saved(blurred.rotate(random.uniform(-4, 4), Image.Resampling.BICUBIC, fillcolor=corner), "JPEG")


def saved(page: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    page.save(buffer, form, **({"quality": 90} if form == "JPEG" else {}))
    return buffer.getvalue()


FORMS = ("comb of boxes", "boxes", "open comb", "open boxes")
"""Fields for one digit each: side by side or apart, and with four sides or with short ones and no upper one."""


def form(
    style: str, images: Array, labels: Array, random: Random, *, filled: float = 1.0, photo: bool = False
) -> tuple[bytes, str]:
    """Return a picture file with 3 to 9 fields of a form, and the digits in them.

    Args:
        images: digits to choose from, uint8 ``[N, 28, 28]``.
        filled: the share of the fields that have a digit.
    """
    count = int(random.integers(3, 10))
    wide = int(random.integers(40, 90))
    high = int(wide * random.uniform(1, 1.5))
    step = wide if "comb" in style else int(wide * random.uniform(1.1, 1.35))
    width, height = int(count * step + wide * random.uniform(1, 2.5)), int(high * random.uniform(2, 5))
    page = sheet(width, height, random)
    draw, pen = ImageDraw.Draw(page), Pen(random)
    ink: Colour = tuple(random.integers(0, 90, 3).tolist())
    top, text = (height - high) // 2, ""
    for left in range((width - count * step) // 2, (width - count * step) // 2 + count * step, step):
        right, bottom = left + wide, top + high
        if "open" in style:
            upper = bottom - high // 3
            draw.line([(left, upper), (left, bottom), (right, bottom), (right, upper)], pen.colour, pen.width)
        else:
            draw.rectangle((left, top, right, bottom), outline=pen.colour, width=pen.width)
        if random.random() < filled:
            chosen = int(random.integers(len(images)))
            side = int(wide * random.uniform(0.8, 1))
            digit = Image.fromarray(images[chosen]).resize((side, side), Image.Resampling.BICUBIC)
            x, y = left + (wide - side) // 2, top + (high - side) // 2
            page.paste(ink, (x + int(random.integers(-2, 3)), y + int(random.integers(-3, 4))), digit)
            text += str(labels[chosen])
    return photographed(page, random) if photo else saved(page, "PNG"), text

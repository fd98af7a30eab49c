"""Characters drawn from fonts in the form of MNIST's digits.

The novelty score learns from the letters as examples of what is not a digit. The network and the novelty score learn
from the digits as more examples of digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.networks import IMAGE_SIZE
from training.reports import Report, no_report

ImageArray = npt.NDArray[np.uint8]
"""One image, uint8 ``[28, 28]``, or several, uint8 ``[N, 28, 28]``."""
Random = np.random.Generator

FONT_SUFFIXES = (".ttf", ".otf", ".woff")
FONT_SIZE = 40
CANVAS_SIDE = 96  # pixels
BOX_SIDE = 20  # pixels; MNIST scales every digit into a box of this size
REPORT_EVERY = 250  # images
CENTRE = IMAGE_SIZE // 2  # the row and the column of the pixel that holds the centre of mass


def find_fonts(folder: Path) -> list[Path]:
    """Return one font of each folder below ``folder``, sorted by path.

    Fonts without Latin letters and digits are left out. If a folder holds several fonts, the upright one of regular
    weight is chosen.
    """
    chosen: dict[Path, Path] = {}
    files = (path for path in folder.rglob("*") if path.suffix.lower() in FONT_SUFFIXES)
    # The npm packages named in fonts.txt mark the upright, regular font by "400-normal" in its file name.
    for path in sorted(files, key=lambda path: ("400-normal" not in path.name, path)):
        if path.parent not in chosen and _is_latin(path):
            chosen[path.parent] = path
    return sorted(chosen.values())


def _is_latin(path: Path) -> bool:
    try:
        font = _font(path)
    except OSError:  # The file is damaged or is not a font.
        return False
    missing = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(character)) not in (missing, b"") for character in "07aZ")


@cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), FONT_SIZE)


def render_characters(
    fonts: Sequence[Path], characters: str, count: int, seed: int, report: Report = no_report
) -> Tensor:
    """Return ``count`` images of the characters in turn, each in a random font, uint8 ``[count, 28, 28]``.

    Args:
        report: called now and then with the share that is drawn, 0..1.
    """
    random = np.random.default_rng(seed)
    images = []
    for i in range(count):
        if i % REPORT_EVERY == 0:
            report(i / count)
        font = fonts[int(random.integers(len(fonts)))]
        images.append(render_character(font, characters[i % len(characters)], random))
    return torch.from_numpy(np.stack(images))


def render_character(font: Path, character: str, random: Random) -> ImageArray:
    """Return an image of the character, randomly slanted, rotated, stretched and thickened."""
    canvas = Image.new("L", (CANVAS_SIDE, CANVAS_SIDE))
    middle = CANVAS_SIDE / 2
    thickening = int(random.choice([0, 0, 1, 2]))
    ImageDraw.Draw(canvas).text((middle, middle), character, 255, _font(font), anchor="mm", stroke_width=thickening)
    angle, shear, aspect = random.normal(0, 0.12), random.normal(0, 0.15), np.exp(random.normal(0, 0.12))
    cos, sin = np.cos(angle), np.sin(angle)
    a, b, d, e = cos * aspect, cos * shear - sin, sin * aspect, sin * shear + cos
    matrix = (a, b, middle * (1 - a - b), d, e, middle * (1 - d - e))
    return frame_as_mnist(canvas.transform(canvas.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def frame_as_mnist(canvas: Image.Image) -> ImageArray:
    """Return the drawing on the canvas in MNIST's form, or an empty image if nothing is drawn.

    MNIST's form is: the drawing fills a box of 20x20 pixels, its brightest ink is 255, and its centre of mass is at
    pixel (14, 14) of the 28x28.
    """
    box = canvas.getbbox()
    if box is None:
        return np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    factor = BOX_SIDE / max(box[2] - box[0], box[3] - box[1])
    width, height = (max(1, round(side * factor)) for side in (box[2] - box[0], box[3] - box[1]))
    ink = np.asarray(canvas.resize((width, height), Image.Resampling.BOX, box=box)).astype(np.float32)
    ink *= 255 / max(1.0, ink.max())
    rows, columns = (ink.sum(axis=axis) / max(1.0, ink.sum()) for axis in (1, 0))
    top = int(CENTRE + 0.5 - rows @ np.arange(height))
    left = int(CENTRE + 0.5 - columns @ np.arange(width))
    top, left = min(max(top, 0), IMAGE_SIZE - height), min(max(left, 0), IMAGE_SIZE - width)
    frame = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    frame[top : top + height, left : left + width] = ink.round()
    return frame

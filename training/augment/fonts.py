"""Characters of fonts, drawn as MNIST has its digits: letters to refuse, and digits to keep accepting beside them."""

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

Picture = npt.NDArray[np.uint8]
Random = np.random.Generator

FONT_SUFFIXES = (".ttf", ".otf", ".woff")
POINTS = 40
CANVAS = 96
BOX = 20
CENTRE = IMAGE_SIZE // 2  # the pixel with the centre of mass


def find_fonts(folder: Path) -> list[Path]:
    """The upright, regular font of each folder below ``folder`` that has Latin letters and digits, by name."""
    chosen: dict[Path, Path] = {}
    files = (path for path in folder.rglob("*") if path.suffix in FONT_SUFFIXES)
    for path in sorted(files, key=lambda path: ("400-normal" not in path.name, path)):
        if path.parent not in chosen and _is_latin(path):
            chosen[path.parent] = path
    return sorted(chosen.values())


def _is_latin(path: Path) -> bool:
    try:
        font = _font(path)
    except OSError:  # damaged, or not a font after all
        return False
    missing = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(character)) not in (missing, b"") for character in "07aZ")


@cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), POINTS)


def render_characters(fonts: Sequence[Path], characters: str, count: int, seed: int) -> Tensor:
    """``count`` images of the characters in turn, each in any of the fonts, uint8 ``[count, 28, 28]``."""
    random = np.random.default_rng(seed)
    made = [
        render_character(fonts[int(random.integers(len(fonts)))], characters[i % len(characters)], random)
        for i in range(count)
    ]
    return torch.from_numpy(np.stack(made))


def render_character(font: Path, character: str, random: Random) -> Picture:
    """A character slanted, turned, stretched and thickened a little."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    middle = CANVAS / 2
    thicker = int(random.choice([0, 0, 1, 2]))
    ImageDraw.Draw(canvas).text((middle, middle), character, 255, _font(font), anchor="mm", stroke_width=thicker)
    angle, shear, aspect = random.normal(0, 0.12), random.normal(0, 0.15), np.exp(random.normal(0, 0.12))
    cos, sin = np.cos(angle), np.sin(angle)
    a, b, d, e = cos * aspect, cos * shear - sin, sin * aspect, sin * shear + cos
    matrix = (a, b, middle * (1 - a - b), d, e, middle * (1 - d - e))
    return framed(canvas.transform(canvas.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


def framed(canvas: Image.Image) -> Picture:
    """What is drawn on the canvas as MNIST has it: full ink, in a box of 20, its centre of mass at pixel (14, 14)."""
    box = canvas.getbbox()
    if box is None:
        return np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    factor = BOX / max(box[2] - box[0], box[3] - box[1])
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

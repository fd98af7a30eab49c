"""Draw digits and letters as the pictures that people send, for benchmarks/robustness.py."""

from __future__ import annotations

import io
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from skimage.morphology import skeletonize
from sklearn.datasets import load_digits

SCALE = 6
# These letters look like digits when they are written by hand.
LETTERS_LIKE_DIGITS = "BbDgGIiJjlOoqQSsZz"

Array = Any
Random = np.random.Generator
Pictures = tuple[Sequence[bytes], Array]
"""Picture files and the label of each."""


def encode(image: Array, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def large(digit: Array, scale: float = SCALE) -> Array:
    """Return the digit as dark ink on white paper, enlarged ``scale`` times."""
    side = round(28 * scale)
    return 255 - np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def small(digit: Array, random: Random) -> bytes:
    """Draw the digit at 28x28, dark on white, up to 3 pixels off the centre."""
    return encode(255 - np.roll(digit, random.integers(-3, 4, 2), axis=(0, 1)))


def stroke(size: int) -> Callable[[Array, Random], bytes]:
    """Return a function that draws the digit at 4 times MNIST's scale and widens its stroke.

    The filter that widens it has ``size`` pixels. A negative ``size`` narrows the stroke.
    """
    chosen = ImageFilter.MinFilter(size) if size > 0 else ImageFilter.MaxFilter(-size)
    return lambda digit, _: encode(np.asarray(Image.fromarray(large(digit, 4)).filter(chosen)))


def hairline(digit: Array, _: Random) -> bytes:
    """Draw only the middle line of the stroke, one pixel wide, at 8 times MNIST's scale."""
    line = skeletonize(np.kron(digit, np.ones((8, 8))) > 100)
    return encode(np.where(line, 0, 255).astype(np.uint8))


def placed(digit: Array, random: Random) -> bytes:
    """Draw the digit at a random place on a page of 600x800 pixels."""
    page, drawn = np.full((600, 800), 255, np.uint8), large(digit, 3)
    y, x = random.integers(0, (600 - len(drawn), 800 - len(drawn)))
    page[y : y + len(drawn), x : x + len(drawn)] = drawn
    return encode(page)


def coloured(digit: Array, random: Random) -> bytes:
    """Draw in two random colours, ink and paper, whose brightness differs by at least 80."""
    while True:
        colour, paper = random.integers(0, 256, (2, 3))
        if abs(float((colour - paper) @ [0.299, 0.587, 0.114])) >= 80:
            break
    share = large(digit)[..., None] / 255
    return encode((paper * share + colour * (1 - share)).astype(np.uint8))


def dusty(digit: Array, random: Random) -> bytes:
    """Draw the digit on a page with six dark specks of 2 to 6 pixels, like dirt on a scanner's glass."""
    page, drawn = np.full((400, 400), 255, np.uint8), large(digit, 8)
    y, x = random.integers(0, 400 - len(drawn), 2)
    page[y : y + len(drawn), x : x + len(drawn)] = drawn
    for _ in range(6):
        y, x = random.integers(0, 390, 2)
        side = random.integers(2, 7)
        page[y : y + side, x : x + side] = 60
    return encode(page)


def photographed(digit: Array, random: Random) -> bytes:
    """Imitate a photo: grey ink, light from one side, the edge of a shadow, grain, JPEG compression."""
    page = large(digit, 8).astype(float)
    y, x = np.mgrid[0 : 1 : len(page) * 1j, 0 : 1 : len(page) * 1j]
    turn = random.uniform(0, 2 * np.pi)
    light = 0.75 + 0.2 * (np.cos(turn) * (2 * x - 1) + np.sin(turn) * (2 * y - 1))
    light *= np.where(x + random.uniform(-1, 1) * y > random.uniform(0.3, 1), 1, 0.75)
    page = np.clip((60 + 0.6 * page) * light + random.normal(0, 5, page.shape), 0, 255)
    return encode(page.astype(np.uint8), "JPEG", quality=60)


DRAWINGS: dict[str, Callable[[Array, Random], bytes]] = {
    "as PNG": lambda digit, _: encode(digit),
    "28x28, dark on white, off centre": small,
    "56x56": lambda digit, _: encode(large(digit, 2)),
    "420x420": lambda digit, _: encode(large(digit, 15)),
    "somewhere on 600x800": placed,
    "light on dark": lambda digit, _: encode(255 - large(digit)),
    "thinner stroke": stroke(-3),
    "wider stroke": stroke(5),
    "hairline": hairline,
    "two colours": coloured,
    "JPEG of quality 10": lambda digit, _: encode(large(digit), "JPEG", quality=10),
    "specks of dust": dusty,
    "photo: shadow, grain, JPEG": photographed,
}


def draw(name: str, digits: Array) -> list[bytes]:
    """Return each digit drawn by ``DRAWINGS[name]``, always with the same random numbers."""
    random = np.random.default_rng(0)
    return [DRAWINGS[name](digit, random) for digit in digits]


def render(fonts: list[Path], characters: str) -> Pictures:
    """Draw each character in each font, dark on white; the labels are the characters."""
    pictures = []
    for path in fonts:
        font = ImageFont.truetype(str(path), 96)
        for character in characters:
            page = Image.new("L", (180, 180), 255)
            ImageDraw.Draw(page).text((90, 90), character, 0, font, anchor="mm")
            pictures.append(encode(np.asarray(page)))
    return pictures, np.array(list(characters) * len(fonts))


def render_digits(fonts: list[Path]) -> Pictures:
    pictures, characters = render(fonts, string.digits)
    return pictures, characters.astype(int)


def blank_pages(count: int) -> list[bytes]:
    """Return grey pages of 60x80 pixels with grain and nothing on them."""
    random = np.random.default_rng(0)
    pages = random.normal(200, 10, (count, 60, 80)).clip(0, 255).astype(np.uint8)
    return [encode(page) for page in pages]


def scans() -> Pictures:
    """Return scikit-learn's load_digits as pictures: 1,797 scanned digits by 13 people, 8x8 pixels each."""
    scanned = load_digits()
    return [encode((digit * 255 / 16).astype(np.uint8)) for digit in scanned.images], scanned.target

"""Compose real digits into photos in colour: pens and papers of many colours, and lamps whose light is tinted."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.drawings import Array, Random, encode

Photo = Callable[[Array, Random], bytes]

# Height and width of the photos.
SIZES = (240, 320), (480, 640), (640, 480), (720, 960)
# The longer side of the digit, as a share of the shorter side of the photo.
SHARE = 0.3, 0.7
WHITE = 1.0, 1.0, 1.0


def _colour(random: Random, saturation: tuple[float, float], brightness: tuple[float, float]) -> Array:
    """Return red, green and blue from 0 to 255 of a random hue."""
    return 255 * np.array(
        colorsys.hsv_to_rgb(random.random(), random.uniform(*saturation), random.uniform(*brightness))
    )


def _light(page: Array, random: Random) -> Array:
    """Return the light of a lamp from one side, ``[H, W, 1]``: 1 at its brightest, with a soft shadow in a third."""
    height, width = page.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    turn, depth = random.uniform(0, 2 * np.pi), random.uniform(0.05, 0.35)
    light = 1 - depth / 2 * (1 + (np.cos(turn) * x + np.sin(turn) * y) / np.sqrt(2))
    if random.random() < 1 / 3:
        edge = (x - random.uniform(-0.7, 0.7) + random.uniform(-1, 1) * y) / random.uniform(0.03, 0.3)
        light = light * (1 - random.uniform(0.1, 0.35) / (1 + np.exp(-edge.clip(-50, 50))))
    return light[..., None]


def _tint(random: Random, most: float = 0.1) -> Array:
    """Return how much of red, green and blue a lamp or a camera keeps."""
    return 1 - random.uniform(0, most, 3)


def _taken(page: Array, random: Random) -> bytes:
    """Photograph a page: a tint, blur, grain in brightness and in colour, and JPEG."""
    page = page * _tint(random)
    blurred = Image.fromarray(page.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(random.uniform(0.3, 1.2))
    )
    grain = random.uniform(1, 5)
    noise = grain * random.normal(size=(*page.shape[:2], 1)) + 0.4 * grain * random.normal(size=page.shape)
    photo = (np.asarray(blurred) + noise).clip(0, 255).astype(np.uint8)
    return encode(photo, "JPEG", quality=int(random.integers(50, 93)))


def _drawn(digit: Array, paper: Array, ink: Array, random: Random, size: tuple[int, int] | None = None) -> Array:
    """Return a page ``[H, W, 3]`` with the digit at a random place.

    Args:
        paper: a colour, or the colour of each pixel.
        size: height and width of the page; None is one of ``SIZES``.
    """
    height, width = size or SIZES[int(random.integers(len(SIZES)))]
    page = np.broadcast_to(paper, (height, width, 3)).astype(float)
    side = int(random.uniform(*SHARE) * min(height, width) * 28 / 20)
    side = min(side, height - 4, width - 4)
    share = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))[..., None] / 255
    top, left = (int(random.integers(0, room - side + 1)) for room in (height, width))
    part = page[top : top + side, left : left + side]
    part += (ink - part) * share
    return page


def _pen(random: Random) -> Array:
    return _colour(random, (0, 1), (0.05, 0.65))


def _paper(random: Random) -> Array:
    return _colour(random, (0, 0.06), (0.85, 1))


def pen_on_paper(digit: Array, random: Random) -> bytes:
    """Photograph a digit of a pen of any colour on white paper, lit from one side."""
    page = _drawn(digit, _paper(random), _pen(random), random)
    return _taken(page * _light(page, random), random)


def coloured_paper(digit: Array, random: Random) -> bytes:
    """Photograph a digit on a coloured note, cardboard or envelope."""
    page = _drawn(digit, _colour(random, (0.1, 0.6), (0.65, 1)), _colour(random, (0, 1), (0.05, 0.4)), random)
    return _taken(page * _light(page, random), random)


def two_lamps(digit: Array, random: Random) -> bytes:
    """Photograph a digit in the light of a window from one side and of a warm lamp from another."""
    page = _drawn(digit, _paper(random), _pen(random), random)
    lamps = [_light(page, random) * _tint(random, 0.2) for _ in range(2)]
    return _taken(page * sum(lamps) / 2, random)


def highlighted(digit: Array, random: Random) -> bytes:
    """Photograph a digit with the stripe of a highlighter across it, which ends on the page or goes beyond it."""
    page = _drawn(digit, _paper(random), _pen(random), random)
    height, width = page.shape[:2]
    stripe = np.ones((height, width, 1))
    high = int(random.uniform(0.3, 0.8) * height)
    top, left, right = int(random.integers(height - high)), *np.sort(random.integers(-width // 4, width * 5 // 4, 2))
    stripe[top : top + high, max(0, left) : max(0, right)] = 0
    return _taken(page * np.where(stripe, 1, _colour(random, (0.3, 0.8), (0.95, 1)) / 255), random)


def small_photo(digit: Array, random: Random) -> bytes:
    """Save a small photo as a messenger does: few pixels and a low quality."""
    side = int(random.integers(48, 110))
    page = _drawn(digit, _paper(random), _pen(random), random, (side, side))
    lit = page * _light(page, random) * _tint(random) + random.normal(0, 2, (side, side, 1))
    return encode(lit.clip(0, 255).astype(np.uint8), "JPEG", quality=int(random.integers(25, 75)))


def colour_map(digit: Array, random: Random) -> bytes:
    """Show the digit as a plot library does, in the colours of a colour map, with its pixels as squares."""
    import matplotlib as mpl

    names = "viridis", "plasma", "magma", "inferno", "hot", "Blues", "jet", "YlOrRd"
    colours = mpl.colormaps[names[int(random.integers(len(names)))]](digit)[..., :3]
    scale = int(random.integers(1, 12))
    return encode(np.kron(colours * 255, np.ones((scale, scale, 1))).astype(np.uint8))


COLOUR_MAP = "colour map"
PHOTOS: dict[str, Photo] = {
    "pen on paper": pen_on_paper,
    "coloured paper": coloured_paper,
    "two lamps": two_lamps,
    "highlighter": highlighted,
    "small photo": small_photo,
    COLOUR_MAP: colour_map,
}

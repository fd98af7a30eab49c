"""Outliers: generated images that are not digits.

The novelty score, which says how much an image differs from digits, is fitted on digits and on outliers. With
``--outliers`` the network learns to be unsure about them too (outlier exposure: Hendrycks et al., arXiv:1812.04606).
Nothing is downloaded: the letters come from the fonts in matplotlib's package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from training.augment.fonts import ImageArray, Random, frame_as_mnist, render_character
from training.augment.signs import drawn_sign, plot, printed_sign, words
from training.glyphs import print_fonts
from training.networks import IMAGE_SIZE
from training.reports import Report, no_report

# Letters that can be mistaken for a digit are left out: B D I J O S Z b g i j l o q s z.
UNLIKE_DIGITS = "ACEFGHKLMNPQRTUVWXYacdefhkmnprtuvwxy"
# Signs that every Latin font has, and that nobody writes as a digit.
FONT_SIGNS = "#$%&*+<=>?@[]^{}~"
PRINT_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralItalic",
    "STIXGeneralBol",
    "cmr10",
    "cmti10",
    "cmss10",
    "cmtt10",
)
CANVAS_SIDE = 64  # pixels
HALF = IMAGE_SIZE // 2
# How many images are drawn between two reports.
REPORT_EVERY = 250


def outliers(
    digits: Tensor,
    count: int,
    seed: int,
    report: Report = no_report,
    *,
    with_symbols: bool = True,
) -> Tensor:
    """Return ``count`` images that are not digits, uint8 ``[count, 28, 28]``, in the proportions of KINDS.

    Args:
        digits: real digits, from which the spoiled ones are made, uint8 ``[N, 28, 28]``.
        report: called now and then with the share that is drawn, 0..1.
        with_symbols: whether SYMBOLS may be among them. A class that is no digit may be such a symbol.
    """
    random = np.random.default_rng(seed)
    real = digits.cpu().numpy()
    kinds = [kind for kind in KINDS if with_symbols or kind not in SYMBOLS]
    images = []
    for i in range(count):
        if i % REPORT_EVERY == 0:
            report(i / count)
        images.append(kinds[i % len(kinds)](real, random))
    return torch.from_numpy(np.stack(images))


def letter(digits: ImageArray, random: Random) -> ImageArray:
    """Return a printed letter."""
    font = print_fonts() / f"{PRINT_FONTS[random.integers(len(PRINT_FONTS))]}.ttf"
    return render_character(font, UNLIKE_DIGITS[random.integers(len(UNLIKE_DIGITS))], random)


def scribble(digits: ImageArray, random: Random) -> ImageArray:
    """Return a few pen strokes through random points."""
    canvas = Image.new("L", (CANVAS_SIDE, CANVAS_SIDE))
    draw = ImageDraw.Draw(canvas)
    width = int(random.integers(4, 10))
    for _ in range(random.integers(1, 5)):
        points = random.uniform(6, CANVAS_SIDE - 6, (random.integers(2, 6), 2))
        if len(points) > 2 and random.random() < 0.6:
            for _ in range(3):
                points = _cut_corners(points)
        draw.line([tuple(point) for point in points], 255, width, joint="curve")
    return frame_as_mnist(canvas)


def _cut_corners(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the line through ``points [N, 2]`` with rounder corners (Chaikin's algorithm), ``[2 (N - 1), 2]``."""
    start, end = points[:-1], points[1:]
    return np.stack([0.75 * start + 0.25 * end, 0.25 * start + 0.75 * end], 1).reshape(-1, 2)


def shape(digits: ImageArray, random: Random) -> ImageArray:
    """Return filled rectangles, ellipses and polygons, shaded or plain, over the whole image or in its 20x20 box."""
    canvas = Image.new("L", (CANVAS_SIDE, CANVAS_SIDE))
    draw = ImageDraw.Draw(canvas)
    for _ in range(random.integers(1, 5)):
        grey = int(random.integers(60, 256))
        (x0, x1), (y0, y1) = np.sort(random.uniform(0, CANVAS_SIDE, (2, 2)), axis=1)
        kind = random.integers(3)
        if kind == 0:
            draw.rectangle((x0, y0, x1 + 6, y1 + 6), grey)
        elif kind == 1:
            draw.ellipse((x0, y0, x1 + 6, y1 + 6), grey)
        else:
            draw.polygon([tuple(point) for point in random.uniform(0, CANVAS_SIDE, (random.integers(3, 7), 2))], grey)
    image = np.asarray(canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)).astype(np.float32)
    if random.random() < 0.5:
        image *= 1 + 0.5 * (_smooth(random, int(random.integers(3, 14))) - 0.5)
    # Half of the images are made symmetric, because many real objects are, for example clothes.
    if random.random() < 0.5:
        image = np.maximum(image, image[:, ::-1])
    made = np.clip(image, 0, 255).astype(np.uint8)
    # Raw pixels sent to the service can fill the whole image. The service scales a picture file into the 20x20 box.
    return frame_as_mnist(Image.fromarray(made)) if random.random() < 0.5 else made


def spoiled(digits: ImageArray, random: Random) -> ImageArray:
    """Return a spoiled digit: two laid over each other, two halves joined, quarters swapped, or parts inverted."""
    one, other = digits[random.integers(len(digits), size=2)]
    kind = random.integers(4)
    if kind == 0:
        shift = random.integers(-5, 6, size=2)
        overlaid: ImageArray = np.maximum(one, np.roll(other, shift, axis=(0, 1)))
        return overlaid
    if kind == 1:
        top, bottom = (one, other[::-1]) if random.random() < 0.5 else (other.T, one)
        return np.concatenate([top[:HALF], bottom[HALF:]]).astype(np.uint8)
    if kind == 2:
        quarters = [one[y : y + HALF, x : x + HALF] for y in (0, HALF) for x in (0, HALF)]
        order = (1, 0, 3, 2) if random.random() < 0.5 else (3, 2, 1, 0)
        a, b, c, d = (quarters[i] for i in order)
        return np.block([[a, b], [c, d]]).astype(np.uint8)
    inverted: ImageArray = np.where(_smooth(random, 5) > 0.5, one, 255 - one).astype(np.uint8)
    return inverted


def noise(digits: ImageArray, random: Random) -> ImageArray:
    """Return random noise, coarse or fine, grey or nearly black and white, over the whole image or inside a margin."""
    field = _smooth(random, int(random.integers(3, IMAGE_SIZE + 1)))
    if random.random() < 0.5:
        field = np.clip((field - random.uniform(0.3, 0.7)) * 8, 0, 1)
    if random.random() < 0.5:
        margin = int(random.integers(2, 7))
        field = np.pad(field[margin:-margin, margin:-margin], margin)
    return (field * random.uniform(100, 255)).astype(np.uint8)


Maker = Callable[[ImageArray, Random], ImageArray]

# outliers() repeats this list. The kinds that are hardest to tell from digits appear most often.
KINDS: tuple[Maker, ...] = (
    *(letter, scribble, printed_sign, letter, drawn_sign, shape, letter, spoiled, plot, letter),
    *(printed_sign, noise, shape, drawn_sign, shape, words),
)
# The kinds that have a meaning of their own.
SYMBOLS: tuple[Maker, ...] = (letter, printed_sign, drawn_sign, words)


def _smooth(random: Random, cells: int) -> npt.NDArray[np.float32]:
    """Return a random field ``[28, 28]`` in 0..1, enlarged smoothly from ``cells`` by ``cells`` values."""
    field = random.random((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(field).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))

"""What is no digit, made up: letters in print, scribbles, shapes, spoiled digits, noise.

A network that has seen none of it is asked how unlike digits an image is, and needs examples of both to
learn it (outlier exposure: Hendrycks et al., arXiv:1812.04606). Nothing here is downloaded; the letters are
of the fonts that matplotlib brings along.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from training.augment.fonts import Picture, Random, framed, render_character
from training.networks import IMAGE_SIZE

# Without those that are a digit to the eye: B b D g I i l J O o q S s Z z, and 1, 2, 7 in disguise.
LETTERS = "ACEFGHKLMNPQRTUVWXYacdefhkmnprtuvwxy"
FONTS: tuple[str, ...] = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
)
FONTS += ("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "cmr10", "cmti10", "cmss10", "cmtt10")

CANVAS = 64


def outliers(digits: Tensor, count: int, seed: int) -> Tensor:
    """``count`` images of no digits, uint8 ``[count, 28, 28]``, each kind as often as the others.

    Args:
        digits: real ones to spoil, uint8 ``[N, 28, 28]``.
    """
    random = np.random.default_rng(seed)
    real = digits.cpu().numpy()
    made = [KINDS[i % len(KINDS)](real, random) for i in range(count)]
    return torch.from_numpy(np.stack(made))


def letter(real: Picture, random: Random) -> Picture:
    """A letter in print."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = folder / f"{FONTS[random.integers(len(FONTS))]}.ttf"
    return render_character(font, LETTERS[random.integers(len(LETTERS))], random)


def scribble(real: Picture, random: Random) -> Picture:
    """A few strokes of a pen through random points."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(canvas)
    width = int(random.integers(4, 10))
    for _ in range(random.integers(1, 5)):
        points = random.uniform(6, CANVAS - 6, (random.integers(2, 6), 2))
        if len(points) > 2 and random.random() < 0.6:  # round the corners off (Chaikin)
            for _ in range(3):
                ahead = points[1:]
                points = np.stack([0.75 * points[:-1] + 0.25 * ahead, 0.25 * points[:-1] + 0.75 * ahead], 1).reshape(
                    -1, 2
                )
        draw.line([tuple(point) for point in points], 255, width, joint="curve")
    return framed(canvas)


def shape(real: Picture, random: Random) -> Picture:
    """Filled patches, shaded, from wall to wall or not."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(canvas)
    for _ in range(random.integers(1, 5)):
        grey = int(random.integers(60, 256))
        (x0, x1), (y0, y1) = np.sort(random.uniform(0, CANVAS, (2, 2)), axis=1)
        kind = random.integers(3)
        if kind == 0:
            draw.rectangle((x0, y0, x1 + 6, y1 + 6), grey)
        elif kind == 1:
            draw.ellipse((x0, y0, x1 + 6, y1 + 6), grey)
        else:
            draw.polygon([tuple(point) for point in random.uniform(0, CANVAS, (random.integers(3, 7), 2))], grey)
    image = np.asarray(canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)).astype(np.float32)
    if random.random() < 0.5:
        image *= 1 + 0.5 * (_smooth(random, int(random.integers(3, 14))) - 0.5)
    if random.random() < 0.5:  # symmetric, as clothes, shoes aside, and much else is
        image = np.maximum(image, image[:, ::-1])
    made = np.clip(image, 0, 255).astype(np.uint8)
    # As pixels they fill the frame, as pictures they are brought into the box.
    return framed(Image.fromarray(made)) if random.random() < 0.5 else made


def spoiled(real: Picture, random: Random) -> Picture:
    """Real digits laid over each other, cut and glued, or with their parts exchanged."""
    one, other = real[random.integers(len(real), size=2)]
    half = IMAGE_SIZE // 2
    kind = random.integers(4)
    if kind == 0:
        shift = random.integers(-5, 6, size=2)
        laid: Picture = np.maximum(one, np.roll(other, shift, axis=(0, 1)))
        return laid
    if kind == 1:
        top, bottom = (one, other[::-1]) if random.random() < 0.5 else (other.T, one)
        return np.concatenate([top[:half], bottom[half:]]).astype(np.uint8)
    if kind == 2:
        parts = [one[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        a, b, c, d = (parts[i] for i in (1, 0, 3, 2)) if random.random() < 0.5 else (parts[i] for i in (3, 2, 1, 0))
        return np.block([[a, b], [c, d]]).astype(np.uint8)
    mixed: Picture = np.where(_smooth(random, 5) > 0.5, one, 255 - one).astype(np.uint8)
    return mixed


def noise(real: Picture, random: Random) -> Picture:
    """Fields, coarse to fine, grey or cut at a threshold, over the frame or the box."""
    field = _smooth(random, int(random.integers(3, IMAGE_SIZE + 1)))
    if random.random() < 0.5:
        field = np.clip((field - random.uniform(0.3, 0.7)) * 8, 0, 1)
    if random.random() < 0.5:
        margin = int(random.integers(2, 7))
        field = np.pad(field[margin:-margin, margin:-margin], margin)
    return (field * random.uniform(100, 255)).astype(np.uint8)


# The hardest to tell come oftenest.
KINDS: tuple[Callable[[Picture, Random], Picture], ...] = (
    *(letter, scribble, letter, shape, letter, spoiled, letter, noise, shape, shape),
)


def _smooth(random: Random, size: int) -> npt.NDArray[np.float32]:
    """A random field of ``size`` by ``size`` cells in 0..1, ``[28, 28]``."""
    field = random.random((size, size), dtype=np.float32)
    return np.asarray(Image.fromarray(field).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))

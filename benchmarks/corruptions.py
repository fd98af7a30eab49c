"""Recreate the fifteen corruptions of MNIST-C from their published parameters.

Source: Mu and Gilmer, MNIST-C: A Robustness Benchmark for Computer Vision (arXiv:1906.02337). The parameters are the
defaults of ``corruptions.py`` in google-research/mnist-c. The published arrays come from the same distributions, but
their generator was not seeded, so the individual images differ. Motion blur follows ImageMagick: a one-sided Gaussian
along the direction of motion.

Every corruption takes a uint8 image ``[28, 28]``, bright ink on black, and a random generator, and returns an image of
the same form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from skimage.feature import canny
from skimage.filters import gaussian
from skimage.transform import AffineTransform, warp

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Random = np.random.Generator
Corruption = Callable[[Image, Random], Image]

SIZE = 28
MIDDLE = (SIZE - 1) / 2


def _bytes(x: Floats) -> Image:
    """Convert 0..1 to 0..255, rounded down as in the published arrays."""
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def shot_noise(image: Image, random: Random) -> Image:
    return _bytes(random.poisson(image / 255 * 3) / 3)


def impulse_noise(image: Image, random: Random) -> Image:
    x = image / 255
    hit, salt = random.random(x.shape) < 0.17, random.random(x.shape) < 0.5
    return _bytes(np.where(hit, salt, x))


def glass_blur(image: Image, random: Random) -> Image:
    x = _bytes(gaussian(image / 255, sigma=0.7))
    for _ in range(2):
        for row in range(SIZE - 1, 1, -1):
            for column in range(SIZE - 1, 1, -1):
                if random.random() < 0.5:
                    dx, dy = random.integers(-1, 1, size=2)
                    other = row + dy, column + dx
                    x[row, column], x[other] = x[other], x[row, column]
    return _bytes(gaussian(x / 255, sigma=0.7))


def motion_blur(image: Image, random: Random) -> Image:
    steps = np.arange(21)
    weights = np.exp(-(steps**2) / (2 * 3**2))
    angle = math.radians(random.uniform(-45, 45))
    x = np.zeros(image.shape)
    index = np.arange(SIZE)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        dx, dy = (math.ceil(step * part - 0.5) for part in (math.cos(angle), math.sin(angle)))
        rows, columns = (np.clip(index + shift, 0, SIZE - 1) for shift in (dy, dx))
        x += weight * image[np.ix_(rows, columns)]
    return _bytes(x / 255)


def _affine(image: Image, matrix: Floats) -> Image:
    """Take each pixel from the place that ``matrix`` ``[2, 2]`` maps it to, relative to the middle of the image."""
    whole = np.eye(3)
    whole[:2, :2] = matrix
    whole[:2, 2] = MIDDLE - matrix.sum(axis=1) * MIDDLE
    return _bytes(warp(image / 255, AffineTransform(matrix=whole)))


def _sign(random: Random) -> float:
    return float(random.choice([-1, 1]))


def shear(image: Image, random: Random) -> Image:
    amount = 0.4 * _sign(random)
    return _affine(image, np.array([[1, -math.sin(amount)], [0, math.cos(amount)]]))


def scale(image: Image, random: Random) -> Image:
    return _affine(image, np.eye(2) / 0.7)


def rotate(image: Image, random: Random) -> Image:
    angle = 0.4 * _sign(random)
    cos, sin = math.cos(angle), math.sin(angle)
    return _affine(image, np.array([[cos, -sin], [sin, cos]]))


def translate(image: Image, random: Random) -> Image:
    shift = AffineTransform(translation=[3 * _sign(random), 3 * _sign(random)])
    return _bytes(warp(image / 255, shift))


def brightness(image: Image, random: Random) -> Image:
    return _bytes(image / 255 + 0.5)


def stripe(image: Image, random: Random) -> Image:
    x = image.copy()
    x[:, :7] = 255 - x[:, :7]
    x[:, 21:] = 255 - x[:, 21:]
    return x


def plasma(random: Random, size: int = 256, decay: float = 1.4) -> Floats:
    """Return a plasma fractal in 0..1, float64 ``[size, size]``, by the diamond-square algorithm with wrapped edges.

    The amplitude of the noise falls by the square of ``decay`` from one octave to the next.
    """
    heights = np.zeros((size, size))
    step, wibble = size, 100.0
    while step >= 2:
        half = step // 2

        def mean(four: Floats, amplitude: float = wibble) -> Floats:
            return four / 4 + amplitude * random.uniform(-amplitude, amplitude, four.shape)

        corners = heights[::step, ::step]
        rows = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = mean(rows + np.roll(rows, -1, axis=1))
        centres, corners = heights[half::step, half::step], heights[::step, ::step]
        heights[::step, half::step] = mean(
            centres + np.roll(centres, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        )
        heights[half::step, ::step] = mean(
            centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        )
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return heights / float(heights.max())


def fog(image: Image, random: Random) -> Image:
    x = image / 255
    top = x.max()
    return _bytes((x + 3 * plasma(random)[:SIZE, :SIZE]) * top / (top + 3))


def spatter(image: Image, random: Random) -> Image:
    liquid = gaussian(random.normal(0.65, 0.3, image.shape), sigma=1)
    mud = gaussian((liquid > 0.65).astype(float), sigma=1.5)
    mud[mud < 0.8] = 0
    return _bytes(image / 255 * (1 - mud) + 63 / 255 * mud)


def _line(column0: float, row0: float, column1: float, row1: float) -> Floats:
    """Return an image of a line between two points, in 0..1, whose ink fades over 2.3 pixels to each side."""
    if column0 == column1:
        return np.zeros((SIZE, SIZE))
    columns, rows = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    slope = (row1 - row0) / (column1 - column0)
    distance = np.clip(np.abs(rows - (slope * (columns - column0) + row0)), 0, 2.3 - 1e-10)
    ink: Floats = np.clip(np.log(1 - distance / 2.3) + 1, 0, 1)
    ink[:, : math.floor(column0)] = 0
    ink[:, math.ceil(column1) :] = 0
    return ink


def dotted_line(image: Image, random: Random) -> Image:
    row0, row1 = random.integers(0, 27, size=2)
    ink = _line(0, row0, 27, row1)
    for start in range(0, 28, 4):
        ink[:, start : start + 2] = 0
    return _bytes(image / 255 + ink)


def zigzag(image: Image, random: Random) -> Image:
    row0 = int(random.integers(0, 27))
    row1 = row0 + int(random.integers(-5, 5))
    angle = math.atan((row1 - row0) / (25 - 2))
    length = (25 - 2) / math.cos(angle)
    points = [(0.0, 0.0)]
    for i in range(int((length - 2) // 4) + 1):
        points.append(((2 * i + 1) * 2.0, (-1) ** i * 2.0))
    rest = length - 4 * (length // 4)
    if rest:
        points.append((length, points[-1][1] / (2 * rest)))
    cos, sin = math.cos(angle), math.sin(angle)
    turned = [(cos * x - sin * y + 2, sin * x + cos * y + row0) for x, y in points]
    x = image / 255
    for (c0, r0), (c1, r1) in itertools.pairwise(turned):
        x = np.clip(x + _line(c0, r0, c1, r1), 0, 1)
    return _bytes(x)


def canny_edges(image: Image, random: Random) -> Image:
    return _bytes(canny(image / 255).astype(float))


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        *(shot_noise, impulse_noise, glass_blur, motion_blur, shear, scale, rotate, brightness),
        *(translate, stripe, fog, spatter, dotted_line, zigzag, canny_edges),
    )
}


def corrupt(name: str, images: Image, seed: int) -> Image:
    """Corrupt every image of ``[N, 28, 28]``. The result for an image depends only on its index and the seed."""
    function = CORRUPTIONS[name]
    return np.stack([function(image, np.random.default_rng((seed, index))) for index, image in enumerate(images)])

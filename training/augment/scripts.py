"""Digits drawn with a pen in the forms that are taught at schools of several countries.

MNIST's writers come from one country. Elsewhere a 1 has a long upstroke, a 7 a bar, a 9 a curl, and a 4 is open at the
top. ``scripts.txt`` holds such forms as curves. Each drawing varies the form, the slant, the proportions, the pen and
the speed of the hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.augment.fonts import BOX_SIDE, CENTRE, Random
from training.networks import IMAGE_SIZE

Floats = npt.NDArray[np.float32]
Lines = npt.NDArray[np.float64]
"""Lines as their starts and ends, ``[2, N, S, 2]``: S lines of each of N drawings, as x and y."""

FORMS = Path(__file__).with_suffix(".txt")
# Points of a curve between two points of a form.
STEPS = 6
# Standard deviations of the random changes, as shares of the height.
POINT_DEVIATION = 0.035
SLANT_DEVIATION = 0.22
ROTATION_DEVIATION = 0.10  # radians
LOG_WIDTH_DEVIATION = 0.22
# The ends of a stroke are drawn too long or too short by up to this share of its first or last part.
END_CHANGE = 0.25
# Half the breadth of the pen, in pixels of an image whose digits are 20 high.
HALF_BREADTH = (0.6, 1.9)
# A quick hand writes the middle of a stroke thinner than its ends, or the other way round, by up to this share.
SPEED_EFFECT = 0.35


@dataclass(frozen=True)
class Form:
    """One form of a digit."""

    digit: int
    weight: float
    strokes: tuple[tuple[Floats, frozenset[int]], ...]
    """For each stroke its points ``[P, 2]`` as x and y, and the indices of the points that are corners."""


@cache
def forms() -> tuple[Form, ...]:
    """Return the forms in ``scripts.txt``."""
    lines = FORMS.read_text(encoding="ascii").splitlines()
    return tuple(_form(line) for line in lines if line and not line.startswith("#"))


def _form(line: str) -> Form:
    digit, weight, *words = line.split()
    first = next(i for i, word in enumerate(words) if "," in word and word[0] in ".0123456789")
    strokes = []
    for stroke in " ".join(words[first:]).split("/"):
        points = stroke.split()
        corners = frozenset(i for i, point in enumerate(points) if point.endswith("!"))
        coordinates = [[float(value) for value in point.rstrip("!").split(",")] for point in points]
        strokes.append((np.array(coordinates, np.float32), corners))
    return Form(int(digit), float(weight), tuple(strokes))


def draw_scripts(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return ``count`` drawings in MNIST's form, uint8 ``[count, 28, 28]``, and their digits, int64 ``[count]``."""
    random = np.random.default_rng(seed)
    # As many drawings of each digit, so that a digit of many forms does not appear more often.
    digits = random.permutation(np.arange(count) % 10)
    weights = np.array([[form.weight * (form.digit == digit) for form in forms()] for digit in range(10)])
    weights /= weights.sum(axis=1, keepdims=True)
    chosen = np.array([random.choice(len(forms()), p=weights[digit]) for digit in digits], int)
    images = np.zeros((count, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for i, form in enumerate(forms()):
        places = np.flatnonzero(chosen == i)
        if len(places):
            images[places] = _draw(form, len(places), random)
    return torch.from_numpy(images), torch.from_numpy(digits)


def _draw(form: Form, count: int, random: Random) -> npt.NDArray[np.uint8]:
    """Return ``count`` drawings of a form, uint8 ``[count, 28, 28]``."""
    starts, ends, breadths = [], [], []
    half_breadth = random.uniform(*HALF_BREADTH, (count, 1))
    effect = random.uniform(-SPEED_EFFECT, SPEED_EFFECT, (count, 1))
    for points, corners in form.strokes:
        curve = _curve(_varied(points, count, random), corners)
        starts.append(curve[:, :-1])
        ends.append(curve[:, 1:])
        progress = np.linspace(-1, 1, curve.shape[1] - 1)
        breadths.append(half_breadth * (1 + effect * (1 - 2 * progress**2)))
    lines = np.stack([np.concatenate(starts, axis=1), np.concatenate(ends, axis=1)])
    half_breadths = np.concatenate(breadths, axis=1)
    return _ink(_framed(_slanted(lines, random), half_breadths.max(axis=1, keepdims=True)), half_breadths)


def _varied(points: Floats, count: int, random: Random) -> npt.NDArray[np.float64]:
    """Return ``count`` variations of a stroke, ``[count, P, 2]``."""
    varied = points + random.normal(0, POINT_DEVIATION, (count, *points.shape))
    for end, neighbour in ((0, 1), (-1, -2)):
        change = random.uniform(-END_CHANGE, END_CHANGE, (count, 1))
        varied[:, end] += change * (varied[:, end] - varied[:, neighbour])
    return varied


def _curve(points: npt.NDArray[np.float64], corners: frozenset[int]) -> npt.NDArray[np.float64]:
    """Return points of the smooth curve through ``points [N, P, 2]``: a Catmull-Rom spline between two corners."""
    last = points.shape[1] - 1
    t = (np.arange(STEPS) / STEPS)[:, None]
    pieces = []
    for i in range(last):
        p1, p2 = points[:, i, None], points[:, i + 1, None]
        p0 = p1 if i == 0 or i in corners else points[:, i - 1, None]
        p3 = p2 if i + 1 == last or i + 1 in corners else points[:, i + 2, None]
        a, b, c = p2 - p0, 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - p0 - 3 * p2 + p3
        pieces.append(p1 + (a * t + b * t**2 + c * t**3) / 2)
    return np.concatenate([*pieces, points[:, -1:]], axis=1)


def _slanted(lines: Lines, random: Random) -> Lines:
    """Return the lines, each drawing slanted, rotated and stretched by its own random amounts."""
    count = lines.shape[1]
    slant, angle, log_width = (
        random.normal(0, deviation, (count, 1)).clip(-2 * deviation, 2 * deviation)
        for deviation in (SLANT_DEVIATION, ROTATION_DEVIATION, LOG_WIDTH_DEVIATION)
    )
    x, y = lines[..., 0] * np.exp(log_width), lines[..., 1]
    x = x - slant * y
    return np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], axis=-1)


def _framed(lines: Lines, half_breadth: npt.NDArray[np.float64]) -> Lines:
    """Return the lines in pixels: the ink fills MNIST's box of 20x20, and its centre of mass is in the middle."""
    low, high = lines.min(axis=(0, 2)), lines.max(axis=(0, 2))
    scale = (BOX_SIDE - 2 * half_breadth) / (high - low).max(axis=1, keepdims=True)
    lines = lines * scale[:, None]
    lengths = np.hypot(*np.moveaxis(lines[1] - lines[0], -1, 0))[..., None] + 1e-6
    centre = (lines.mean(axis=0) * lengths).sum(axis=1) / lengths.sum(axis=1)
    framed: Lines = lines + (CENTRE + 0.5 - centre)[:, None]
    return framed


def _ink(lines: Lines, half_breadths: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Draw the lines with a round pen of the given half breadths ``[N, S]``."""
    pixels = np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5
    start = lines[0].astype(np.float32)
    along = (lines[1] - lines[0]).astype(np.float32)
    squared = (along**2).sum(axis=-1) + 1e-9
    ink = np.full((lines.shape[1], IMAGE_SIZE, IMAGE_SIZE), -1e3, np.float32)
    for s in range(lines.shape[2]):
        dx = pixels - start[:, s, :1]
        dy = pixels - start[:, s, 1:]
        (ax, ay), length = along[:, s].T[:, :, None, None], squared[:, s, None, None]
        share = ((dx[:, None, :] * ax + dy[:, :, None] * ay) / length).clip(0, 1)
        distance = np.hypot(dx[:, None, :] - share * ax, dy[:, :, None] - share * ay)
        np.maximum(ink, half_breadths[:, s, None, None].astype(np.float32) - distance, out=ink)
    return ((ink + 0.5).clip(0, 1) * 255).round().astype(np.uint8)

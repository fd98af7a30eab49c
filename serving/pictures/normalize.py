"""Bring the ink of one digit to the size and the place that MNIST's digits have.

    widen thin strokes -> shrink to 20x20 -> centre in 28x28

The last two steps are the steps that made MNIST itself, as reconstructed for QMNIST (Yadav and Bottou,
arXiv:1905.10498). The box around the ink is made square, averaged down to 20x20 and stretched to the full range of
brightness. Then it is pasted into 28x28 so that the centre of mass lies in the middle.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from serving.contract import IMAGE_SIZE, Images
from serving.pictures.ink import Ink, breadth_of, spans_of, strongest
from serving.pictures.morphology import grey_dilation
from serving.pictures.page import resize

# The longer side of a digit in an image of MNIST, in pixels.
BOX = 20
# MNIST shifts by whole pixels, so that the centre of mass lies between 14 and 15, counted from the image's edge.
CENTRE = 14.5
# An image counts as MNIST's form if its centre of mass differs from CENTRE by at most this many pixels. MNIST's own
# images differ by at most 0.5, but other programs that centre by mass round differently.
CENTRE_TOLERANCE = 0.75
# Pixels by which the digit of such an image may be longer than BOX, because other programs round differently.
BOX_TOLERANCE = 1
# Strokes are widened to at least this many pixels of MNIST's box. The median stroke of MNIST is 2.5 pixels wide.
LEAST_STROKE = 2.0
# Before strokes are widened, ink whose longer side has fewer pixels than this is enlarged. Strokes can only grow by
# whole pixels, and one pixel of the enlarged ink is only a third of a pixel of the box.
WIDENING_SIDE = 3 * BOX


def is_mnist_form(image: Ink) -> bool:
    """Return whether a 28x28 image has MNIST's form already: black paper, the digit in its box and centred by mass."""
    if image.min() < 0 or not image.any():
        return False
    fits = _longer_side(image) <= BOX + BOX_TOLERANCE
    return fits and all(abs(centre - CENTRE) <= CENTRE_TOLERANCE for centre in _centre_of_mass(image))


def widen_strokes(ink: Ink) -> Ink:
    """Return the ink with strokes of at least ``LEAST_STROKE`` pixels, measured in MNIST's box of 20.

    A thin pen on a large page would otherwise fade to nothing when the page is shrunk.
    """
    side = _longer_side(ink)
    missing = LEAST_STROKE * side / BOX - stroke_width(ink)
    if missing <= 0:
        return ink
    if side < WIDENING_SIDE:
        factor = WIDENING_SIDE / side
        ink, missing = np.maximum(resize(ink, factor), 0), missing * factor
    size = 1 + round(missing)
    return grey_dilation(np.pad(ink, size), size)


def stroke_width(ink: Ink) -> float:
    """Return the mean breadth of the strokes, in pixels."""
    return breadth_of(ink > 0.5 * strongest(ink))


def shrink_to_box(ink: Ink) -> Ink:
    """Return the square around the ink, averaged to float32 ``[20, 20]`` and stretched to 0 to 255."""
    rows, columns = (slice(*span) for span in spans_of(ink))
    digit = ink[rows, columns]
    height, width = digit.shape
    side = max(height, width)
    y, x = (side - height) // 2, (side - width) // 2
    shrink = _to_box(side)
    # The rest of the square is empty, so the columns of the matrix for it are left out.
    small = shrink[:, y : y + height] @ digit @ shrink[:, x : x + width].T
    stretched: Ink = np.clip(small * (255 / small.max()), 0, 255)
    return stretched


@lru_cache(maxsize=128)
def _to_box(side: int) -> Ink:
    """Return the matrix ``[20, side]`` that resizes a line of ``side`` pixels to 20, with the weights of Pillow."""
    method = Image.Resampling.BOX if side >= BOX else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.eye(side, dtype=np.float32)).resize((side, BOX), method))


def centre_in_frame(digit: Ink) -> Images:
    """Paste ``[20, 20]`` into ``[28, 28]`` by whole pixels, so that the centre of mass lies at pixel (14, 14)."""
    frame = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    # The limits keep the box inside the frame if most of the ink lies in a corner of the box.
    y, x = (min(max(int(np.floor(CENTRE + 0.5 - centre)), 0), IMAGE_SIZE - BOX) for centre in _centre_of_mass(digit))
    frame[y : y + BOX, x : x + BOX] = np.rint(digit)
    return frame


def _longer_side(ink: Ink) -> int:
    """Return the longer side of the box around the ink."""
    return max(end - begin for begin, end in spans_of(ink))


def _centre_of_mass(ink: Ink) -> tuple[float, float]:
    """Return row and column of the centre of mass, counted from the image's edge: the middle of pixel i is i + 0.5."""
    total = float(ink.sum())
    rows, columns = (
        float((ink.sum(axis=1 - axis) * (np.arange(ink.shape[axis]) + 0.5)).sum()) / total for axis in (0, 1)
    )
    return rows, columns

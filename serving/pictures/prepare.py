"""Bring a picture to the 28x28 pixels of a model, in the way that its manifest names.

Training uses this function too, so a network learns from exactly what it will be given.

    symbol   find the ink, scale it and centre it as MNIST did: for digits and other lone symbols
    dotted   the same, and keep small pieces near the symbol, which may be its dots: for Ä, ё, ث or the pips of dice
    as-is    the whole picture, scaled down: for photos, clothes and textures
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from serving.contract import AS_IS, DOTTED, IMAGE_SIZE, SYMBOL, Preparation
from serving.pictures.decode import decode_grey
from serving.pictures.ink import shade_of_border
from serving.pictures.mnist_form import Digit, to_mnist_form
from serving.pictures.page import Page
from serving.settings import Settings


def prepare(content: bytes, how: Preparation = SYMBOL, max_pixels: int = Settings.max_pixels) -> Digit:
    """Return a picture file as a 28x28 image.

    Args:
        how: as the manifest of the model says.
        max_pixels: limit on width times height.

    Raises:
        InputTooLargeError: the picture has more than ``max_pixels`` pixels.
        PictureError: the bytes are not a picture in a known format, or they are damaged.
    """
    if how == AS_IS:
        return _whole_picture(content, max_pixels)
    return to_mnist_form(content, max_pixels, is_dotted=how == DOTTED)


def _whole_picture(content: bytes, max_pixels: int) -> Digit:
    """Return the whole picture in 28x28 pixels. A picture that is not square gets a margin in the shade of its border.

    Raises: as :func:`prepare`.
    """
    page = decode_grey(content, max_pixels)
    height, width = page.shape
    factor = IMAGE_SIZE / max(height, width)
    rows, columns = (max(1, round(side * factor)) for side in (height, width))
    if isinstance(page, Page):
        small = page.reduced(rows, columns)
    else:
        method = Image.Resampling.BOX if factor <= 1 else Image.Resampling.BICUBIC
        small = np.asarray(Image.fromarray(page).resize((columns, rows), method))
    frame = np.full((IMAGE_SIZE, IMAGE_SIZE), shade_of_border(small), np.float32)
    top, left = (IMAGE_SIZE - rows) // 2, (IMAGE_SIZE - columns) // 2
    frame[top : top + rows, left : left + columns] = small
    return Digit(np.rint(np.clip(frame, 0, 255)).astype(np.uint8))

"""A page is the grey values of a picture: an array, or a picture that stays with Pillow until they are needed.

A large picture is converted part by part, so that its grey values are never all in memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

T = TypeVar("T", bound=np.generic)
Grey = npt.NDArray[np.float32]
"""Brightness from 0 to 255, ``[H, W]``."""
Colours = npt.NDArray[np.uint8]
"""Red, green and blue from 0 to 255, ``[H, W, 3]``."""
Mask = npt.NDArray[np.bool_]
"""Some of the pixels of a page, bool ``[H, W]``."""

# A part that is converted at once has about this many pixels. Converting takes up to 20 bytes per pixel.
PART_PIXELS = 1 << 18

# Pillow first reduces a picture by a whole number, which is fast, and then averages with BOX. Between the two steps,
# each side has at least this many times its final length.
REDUCING_GAP = 2.0
# The modes in which the mean of some pixels has the mean of their grey values.
AVERAGED_MODES = ("L", "F", "RGB")


class Orientation(NamedTuple):
    """How to turn a picture upright: first swap rows and columns, then mirror."""

    swap: bool = False
    upside_down: bool = False
    left_right: bool = False


ORIENTATIONS = {
    1: Orientation(),
    2: Orientation(left_right=True),
    3: Orientation(upside_down=True, left_right=True),
    4: Orientation(upside_down=True),
    5: Orientation(swap=True),
    6: Orientation(swap=True, left_right=True),
    7: Orientation(swap=True, upside_down=True, left_right=True),
    8: Orientation(swap=True, upside_down=True),
}
"""By the value of EXIF's orientation."""


def upright(values: npt.NDArray[T], orientation: Orientation) -> npt.NDArray[T]:
    """Return ``[H, W]`` or ``[H, W, channels]`` turned upright."""
    if orientation.swap:
        values = values.swapaxes(0, 1)
    if orientation.upside_down:
        values = values[::-1]
    if orientation.left_right:
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


class Page:
    """A picture, or a part of one. It has a shape and can be sliced, like an array of grey values.

    Args:
        picture: in any of Pillow's modes, not yet turned upright.
        tone: converts a part of the picture to grey values.
        orientation: how to turn the picture upright.
        box: the part of the picture: left, top, right, bottom. None is the whole picture.
    """

    def __init__(
        self,
        picture: Image.Image,
        tone: Callable[[Image.Image], Grey],
        orientation: Orientation,
        box: tuple[int, int, int, int] | None = None,
    ) -> None:
        self._picture, self._tone, self._orientation = picture, tone, orientation
        self._box = box or (0, 0, *picture.size)
        left, top, right, bottom = self._box
        sides = (bottom - top, right - left)
        self.shape = sides[::-1] if orientation.swap else sides

    def __getitem__(self, part: tuple[slice, slice]) -> Page:
        """Return a part of the upright page. It shares the picture."""
        spans = [span.indices(size)[:2] for span, size in zip(part, self.shape, strict=True)]
        for axis, mirrored in enumerate((self._orientation.upside_down, self._orientation.left_right)):
            if mirrored:
                begin, end = spans[axis]
                spans[axis] = self.shape[axis] - end, self.shape[axis] - begin
        (top, bottom), (left, right) = spans[::-1] if self._orientation.swap else spans
        x, y = self._box[:2]
        return Page(self._picture, self._tone, self._orientation, (x + left, y + top, x + right, y + bottom))

    def grey(self) -> Grey:
        """Return the grey values of the page."""
        return upright(self._tone(self._picture.crop(self._box)), self._orientation)

    def reduced(self, height: int, width: int) -> Grey:
        """Return the page averaged down to ``[height, width]``, as Pillow does it: first blocks of pixels, then BOX.

        Pillow can average grey values and colours itself. Other pictures are converted to grey values and averaged by
        blocks, some rows of the result at a time. So are colours if the blocks would take much memory.
        """
        rows, columns = self.shape
        block = max(1, int(columns / width / REDUCING_GAP)), max(1, int(rows / height / REDUCING_GAP))
        # Rows of the result whose blocks take little memory.
        step = max(1, height * PART_PIXELS // max(1, rows // block[1] * (columns // block[0])))
        is_averaged = self._picture.mode in AVERAGED_MODES and (self._picture.mode != "RGB" or step >= height)
        if is_averaged and not self._picture.has_transparency_data:
            size = (height, width) if self._orientation.swap else (width, height)
            small = self._picture.resize(size, Image.Resampling.BOX, self._box, REDUCING_GAP)
            return upright(self._tone(small), self._orientation)
        result = np.empty((height, width), np.float32)
        ratio = rows / block[1] / height  # Rows of blocks per row of the result.
        for top in range(0, height, step):
            end = min(top + step, height)
            first, last = int(top * ratio), math.ceil(end * ratio)
            blocks = self[first * block[1] : last * block[1], :]._in_blocks(block)
            box = (0, top * ratio - first, columns / block[0], min(end * ratio - first, blocks.height))
            result[top:end] = np.asarray(blocks.resize((width, end - top), Image.Resampling.BOX, box))
        return result

    def _in_blocks(self, block: tuple[int, int]) -> Image.Image:
        """Return the mean grey value of each block of these columns and rows."""
        rows, columns = self.shape
        blocks = Image.new("F", (-(-columns // block[0]), -(-rows // block[1])))
        # Parts of whole blocks: some rows of blocks, or a piece of one row if the rows are long.
        high = max(1, PART_PIXELS // columns // block[1]) * block[1]
        wide = max(1, PART_PIXELS // high // block[0]) * block[0]
        for top, left in itertools.product(range(0, rows, high), range(0, columns, wide)):
            part = Image.fromarray(self[top : top + high, left : left + wide].grey())
            blocks.paste(part.reduce(block), (left // block[0], top // block[1]))
        return blocks


def parts_of(picture: Image.Image) -> Iterator[Image.Image]:
    """Yield the picture in parts of some rows."""
    step = max(1, PART_PIXELS // picture.width)
    if step >= picture.height:
        yield picture
        return
    for top in range(0, picture.height, step):
        yield picture.crop((0, top, picture.width, min(top + step, picture.height)))


def pad_to(page: Grey, side: int) -> Grey:
    """Repeat the last row and column until both sides have at least ``side`` pixels."""
    if min(page.shape) >= side:
        return page
    return np.pad(page, [(0, max(0, side - size)) for size in page.shape], mode="edge")


def resize(page: Grey, factor: float, method: Image.Resampling = Image.Resampling.LANCZOS) -> Grey:
    """Scale both sides by ``factor``."""
    height, width = (max(1, round(size * factor)) for size in page.shape)
    return np.asarray(Image.fromarray(page).resize((width, height), method))


def reduce(page: Grey | Page, longest: int) -> Grey:
    """Average a page down so that no side has more than ``longest`` pixels. A smaller page keeps its size."""
    factor = max(page.shape) / longest
    if factor <= 1:
        return page.grey() if isinstance(page, Page) else page
    height, width = (max(1, round(size / factor)) for size in page.shape)
    if isinstance(page, Page):
        return page.reduced(height, width)
    return np.asarray(Image.fromarray(page).resize((width, height), Image.Resampling.BOX, reducing_gap=REDUCING_GAP))

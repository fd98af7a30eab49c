"""Filters over small square windows, in numpy and Pillow.

The names, the windows and the results are those of ``scipy.ndimage`` with ``mode="nearest"`` (a pixel beyond the edge
counts as the nearest pixel inside). The service does not depend on scipy, because scipy is far larger than the rest of
the service. Every function takes and returns float32 ``[H, W]``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Floats = npt.NDArray[np.float32]


def grey_erosion(x: Floats, size: int) -> Floats:
    """Replace each pixel by the minimum over a ``size`` x ``size`` window."""
    before = size // 2
    return _running(np.minimum, _running(np.minimum, x, size, before).T, size, before).T


def grey_dilation(x: Floats, size: int) -> Floats:
    """Replace each pixel by the maximum over a ``size`` x ``size`` window, the mirror of the erosion's window."""
    before = size - 1 - size // 2
    return _running(np.maximum, _running(np.maximum, x, size, before).T, size, before).T


def grey_opening(x: Floats, size: int) -> Floats:
    """Erode, then dilate: bright parts narrower than ``size`` pixels vanish, and broader ones keep their shape."""
    return grey_dilation(grey_erosion(x, size), size)


def uniform_filter(x: Floats, size: int) -> Floats:
    """Replace each pixel by the mean over a ``size`` x ``size`` window."""
    before, after = size // 2, size - 1 - size // 2
    for _ in range(2):  # First along the columns, then, transposed, along the rows.
        sums = np.pad(x, [(before + 1, after), (0, 0)], mode="edge").cumsum(axis=0, dtype=np.float64)
        x = ((sums[size:] - sums[:-size]) / size).T
    return x.astype(np.float32)


def median_filter(x: Floats) -> Floats:
    """Replace each pixel by the median over a 3x3 window."""
    return np.asarray(Image.fromarray(x).filter(ImageFilter.MedianFilter(3)))


def _running(extreme: np.ufunc, x: Floats, size: int, before: int) -> Floats:
    """Return the minimum or maximum of ``size`` neighbours along the columns, ``before`` of them above the pixel.

    The number of operations per pixel does not depend on the size: the algorithm of van Herk and of Gil and Werman.
    The column is cut into blocks of ``size`` pixels. Every window covers the end of one block and the start of the
    next, so two accumulated extremes are enough: one from the start of each block and one from its end.
    """
    length = len(x)
    blocks = -(-(length + size - 1) // size)
    padded = np.pad(x, [(before, blocks * size - length - before), (0, 0)], mode="edge").reshape(blocks, size, -1)
    from_start = extreme.accumulate(padded, axis=1).reshape(blocks * size, -1)
    to_end = extreme.accumulate(padded[:, ::-1], axis=1)[:, ::-1].reshape(blocks * size, -1)
    result: Floats = extreme(to_end[:length], from_start[size - 1 : size - 1 + length])
    return result

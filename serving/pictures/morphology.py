"""Filters over small windows of ``[H, W]``, in numpy.

A filter that ``scipy.ndimage`` has too gives the results of its namesake with ``mode="nearest"`` (a pixel beyond the
edge counts as the nearest pixel inside). The service does not depend on scipy, because scipy is far larger than the
rest of the service.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

Value = TypeVar("Value", np.float32, np.uint8)


def grey_erosion(x: npt.NDArray[Value], size: int) -> npt.NDArray[Value]:
    """Replace each pixel by the minimum over a ``size`` x ``size`` window."""
    return _extreme(np.minimum, x, size, size // 2)


def erosion_along(x: npt.NDArray[Value], size: int, axis: int) -> npt.NDArray[Value]:
    """Replace each pixel by the minimum over ``size`` pixels along one axis."""
    return _extreme_along(np.minimum, x, size, size // 2, axis)


def grey_dilation(x: npt.NDArray[Value], size: int) -> npt.NDArray[Value]:
    """Replace each pixel by the maximum over a ``size`` x ``size`` window, the mirror of the erosion's window."""
    return _extreme(np.maximum, x, size, size - 1 - size // 2)


def grey_opening(x: npt.NDArray[Value], size: int) -> npt.NDArray[Value]:
    """Erode, then dilate: bright parts narrower than ``size`` pixels vanish, and broader ones keep their shape."""
    return grey_dilation(grey_erosion(x, size), size)


def opening_along(x: npt.NDArray[Value], size: int, axis: int) -> npt.NDArray[Value]:
    """Open along one axis: bright parts that are shorter than ``size`` pixels in this direction vanish."""
    return _extreme_along(np.maximum, erosion_along(x, size, axis), size, size - 1 - size // 2, axis)


def grey_closing(x: npt.NDArray[Value], size: int) -> npt.NDArray[Value]:
    """Dilate, then erode: dark parts narrower than ``size`` pixels vanish, and broader ones keep their shape.

    This is the opening of the inverted picture. With an even ``size``, scipy has other windows at the edges.
    """
    return _extreme(np.minimum, _extreme(np.maximum, x, size, size // 2), size, size - 1 - size // 2)


def uniform_filter(x: Floats, size: int) -> Floats:
    """Replace each pixel by the mean over a ``size`` x ``size`` window."""
    before, after = size // 2, size - 1 - size // 2
    for _ in range(2):  # First along the columns, then, transposed, along the rows.
        rows = np.arange(-before - 1, len(x) + after).clip(0, len(x) - 1)
        sums = x[rows].cumsum(axis=0, dtype=np.float64)
        x = ((sums[size:] - sums[:-size]) / size).T
    return x.astype(np.float32)


def median_filter(x: Floats) -> Floats:
    """Replace each pixel by the median over a 3x3 window.

    Each column of the window is sorted. The median of the nine is then the median of three values: the largest of the
    columns' minima, the median of their medians, and the smallest of their maxima.
    """
    rows = np.concatenate([x[:1], x, x[-1:]])
    x = np.concatenate([rows[:, :1], rows, rows[:, -1:]], axis=1)
    low, high = np.minimum(x[:-2], x[1:-1]), np.maximum(x[:-2], x[1:-1])
    middle = np.minimum(high, x[2:])
    least, middle, most = np.minimum(low, middle), np.maximum(low, middle), np.maximum(high, x[2:])
    return _median_of_three(
        np.maximum(np.maximum(least[:, :-2], least[:, 1:-1]), least[:, 2:]),
        _median_of_three(middle[:, :-2], middle[:, 1:-1], middle[:, 2:]),
        np.minimum(np.minimum(most[:, :-2], most[:, 1:-1]), most[:, 2:]),
    )


def _median_of_three(a: Floats, b: Floats, c: Floats) -> Floats:
    median: Floats = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    return median


def _extreme(extreme: np.ufunc, x: npt.NDArray[Value], size: int, before: int) -> npt.NDArray[Value]:
    """Return the minimum or maximum of a ``size`` x ``size`` window that begins ``before`` pixels above and left."""
    return _extreme_along(extreme, _extreme_along(extreme, x, size, before, 1), size, before, 0)


def _extreme_along(extreme: np.ufunc, x: npt.NDArray[Value], size: int, before: int, axis: int) -> npt.NDArray[Value]:
    """Return the minimum or maximum of ``size`` pixels along an axis, of which ``before`` are above or left."""
    height, width = x.shape
    # A window always holds a pixel of the page, so beyond the edge any value will do that is not the extreme one.
    least, most = (-np.inf, np.inf) if x.dtype.kind == "f" else (0, 255)
    neutral = most if extreme is np.minimum else least
    if axis == 0:
        padded = np.full((height + size - 1, width), neutral, x.dtype)
        padded[before : before + height] = x
        return _over_windows(extreme, padded, size)
    # NumPy is faster with all rows in one. Then the windows that begin in the padding of a row reach into the next row,
    # so the last row needs one after it.
    padded = np.full((height + 1, width + size - 1), neutral, x.dtype)
    padded[:height, before : before + width] = x
    values = _over_windows(extreme, padded.ravel(), size)
    return values[: height * padded.shape[1]].reshape(height, -1)[:, :width]


def _over_windows(extreme: np.ufunc, x: npt.NDArray[Value], size: int) -> npt.NDArray[Value]:
    """Return the minimum or maximum of each ``size`` values that follow each other on the first axis.

    The window doubles in each step, so the number of operations per value grows only with the logarithm of the size.
    """
    covered = 1
    while covered < size:
        step = min(covered, size - covered)
        x = extreme(x[:-step], x[step:])
        covered += step
    return x

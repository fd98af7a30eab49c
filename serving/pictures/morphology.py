"""Filters over small square windows, in numpy.

The names, the windows and the results are those of ``scipy.ndimage`` with ``mode="nearest"`` (a pixel beyond the edge
counts as the nearest pixel inside). The service does not depend on scipy, because scipy is far larger than the rest of
the service. Every function takes and returns float32 ``[H, W]``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def grey_erosion(x: Floats, size: int) -> Floats:
    """Replace each pixel by the minimum over a ``size`` x ``size`` window."""
    return _extreme(np.minimum, x, size, size // 2)


def erosion_along(x: Floats, size: int, axis: int) -> Floats:
    """Replace each pixel by the minimum over ``size`` pixels along one axis."""
    columns = _extreme_along_columns(np.minimum, x if axis == 0 else x.T, size, size // 2)
    return columns if axis == 0 else columns.T


def grey_dilation(x: Floats, size: int) -> Floats:
    """Replace each pixel by the maximum over a ``size`` x ``size`` window, the mirror of the erosion's window."""
    return _extreme(np.maximum, x, size, size - 1 - size // 2)


def grey_opening(x: Floats, size: int) -> Floats:
    """Erode, then dilate: bright parts narrower than ``size`` pixels vanish, and broader ones keep their shape."""
    return grey_dilation(grey_erosion(x, size), size)


def opening_along(x: Floats, size: int, axis: int) -> Floats:
    """Open along one axis: bright parts that are shorter than ``size`` pixels in this direction vanish."""
    before, after = size // 2, size - 1 - size // 2
    columns = x if axis == 0 else x.T
    columns = _extreme_along_columns(np.minimum, columns, size, before)
    columns = _extreme_along_columns(np.maximum, columns, size, after)
    return columns if axis == 0 else columns.T


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


def _extreme(extreme: np.ufunc, x: Floats, size: int, before: int) -> Floats:
    """Return the minimum or maximum of a ``size`` x ``size`` window that begins ``before`` pixels above and left.

    The window doubles in each step, so the number of operations per pixel grows only with the logarithm of the size.
    """
    columns = _extreme_along_columns(extreme, x, size, before)
    return np.ascontiguousarray(_extreme_along_columns(extreme, columns.T, size, before).T)


def _extreme_along_columns(extreme: np.ufunc, x: Floats, size: int, before: int) -> Floats:
    height, width = x.shape
    # A window always holds a pixel of the page, so beyond the edge any value will do that is not the extreme one.
    neutral = np.inf if extreme is np.minimum else -np.inf
    padded = np.full((height + size - 1, width), neutral, np.float32)
    padded[before : before + height] = x
    covered = 1
    while covered < size:
        step = min(covered, size - covered)
        padded = extreme(padded[:-step], padded[step:])
        covered += step
    return padded

"""Cut a line of digits into small parts, of which one or several neighbours make a digit (over-segmentation).

A cut is a path from the top to the bottom of the line that crosses as little ink as possible. It may lean by up to 45
degrees, so it also passes between slanted digits and between digits whose boxes overlap. Cuts that cross no ink lie in
the gaps between digits. The others lie where two digits may touch. Which parts belong together is decided later, by the
network: ``serving/inference/path.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.pictures.ink import Ink, breadth_of

# All lengths are shares of the height of the line, which is the usual height of its digits.
# Ink that a cut may cross.
MOST_CROSSED = 0.6
# A cut that crosses less ink than this lies in a gap.
GAP_CROSSED = 0.02
# Distance within which only the best cut through ink is kept.
NEAREST = 0.06
# Cuts through ink between two gaps, per height of their distance, if they are less than a height apart.
MOST_CUTS = 4
# Cost of one step to the side.
LEAN = 0.04
# The median stroke of MNIST. To cross a thinner stroke costs as much as to cross one of this breadth.
STROKE = 0.125

# Every candidate compares the pixels of its parts, which is faster with small integers. A line has at most 1024 parts.
Integers = npt.NDArray[np.int16]


class Cuts(NamedTuple):
    """The cuts of a line, from left to right. Cut ``i`` lies between part ``i`` and part ``i + 1``."""

    part_of: Integers
    """``[H, W]``: the part of each pixel."""
    crossed: list[float]
    """The ink that each cut crosses, as a share of the line's height. Thin strokes count as broader ones."""
    gaps: list[float]
    """The width of the gap around each cut, as a share of the line's height: 0 for a cut through ink."""


def find_cuts(ink: Ink, height: float) -> Cuts:
    """Return the cuts of a line, and the parts between them.

    Args:
        ink: the line, upright.
        height: the height of a digit, in pixels.
    """
    cost = _cost_of(ink, height)
    middle = len(cost) // 2
    lean = LEAN * height
    down, from_above = _paths(cost[: middle + 1], lean)
    up, from_below = _paths(cost[middle:][::-1], lean)
    crossed = (down + up - cost[middle]) / height
    columns, gaps = _places(crossed, height)
    # Two cuts may cross. Sorted in each row they are still paths, and the parts stay in order.
    seams = np.sort(_trace(columns, from_above, from_below), axis=1)
    every = np.arange(cost.shape[1])
    part_of = np.array([np.searchsorted(row, every, "right") for row in seams], np.int16)
    return Cuts(part_of, [float(crossed[column]) for column in columns], gaps)


def _cost_of(ink: Ink, height: float) -> Ink:
    """Return the cost of each pixel for a cut.

    To cross a stroke costs the same with every thin pen. Otherwise a cut through a hairline, whose ink is weak when the
    line was reduced, would cost no more than one through a gap.
    """
    cost: Ink = ink / max(float(ink.max()), 1e-6)
    inked = cost > 0
    length = np.count_nonzero(inked) / breadth_of(inked)
    # Weak ink counts less, so this is less than the breadth of the inked pixels.
    breadth = float(cost.sum()) / max(1.0, length)
    return cost * np.float32(max(1.0, STROKE * height / max(1e-6, breadth)))


def _paths(cost: Ink, lean: float) -> tuple[Ink, npt.NDArray[np.int8]]:
    """Return the cost of the cheapest path from the first row to each pixel of the last row, and the way back.

    The way back, ``[H, W]``, is the step to the column in the row before: -1, 0 or 1.
    """
    total = cost[0].copy()
    steps = np.zeros(cost.shape, np.int8)
    padded = np.empty(len(total) + 2, cost.dtype)
    for row in range(1, len(cost)):
        padded[1:-1] = total
        padded[0] = padded[-1] = np.inf
        left, right = padded[:-2] + lean, padded[2:] + lean
        step = np.where(left < total, -1, 0)
        total = np.minimum(left, total)
        step[right < total] = 1
        total = np.minimum(right, total) + cost[row]
        steps[row] = step
    return total, steps


def _places(crossed: Ink, height: float) -> tuple[list[int], list[float]]:
    """Return the column of each cut in the middle row, and the width of its gap."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], crossed < GAP_CROSSED, [False]]).astype(np.int8)))
    near = max(1, round(NEAREST * height))
    padded = np.pad(crossed, near, constant_values=np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * near + 1)
    lowest = np.flatnonzero((crossed <= windows.min(axis=1)) & (crossed < MOST_CROSSED)).tolist()
    places: list[tuple[int, float]] = []
    end_of_gap = 0
    for begin, end in [*edges.reshape(-1, 2).tolist(), (len(crossed), len(crossed))]:
        through_ink: list[int] = []
        for column in lowest:
            if end_of_gap < column < begin - 1 and (not through_ink or column - through_ink[-1] > near):
                through_ink.append(column)
        if begin - end_of_gap < height:
            most = round(MOST_CUTS * (begin - end_of_gap) / height)
            through_ink = sorted(sorted(through_ink, key=crossed.__getitem__)[:most])
        places += [(column, 0.0) for column in through_ink]
        if begin > 0 and end < len(crossed):
            places.append(((begin + end) // 2, (end - begin) / height))
        end_of_gap = end
    return [column for column, _ in places], [width for _, width in places]


def _trace(columns: list[int], above: npt.NDArray[np.int8], below: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Return the column of each cut in each row, ``[H, cuts]``, from the columns in the middle row."""
    halves = []
    for steps in (above, below):
        half = [np.array(columns, np.int64)]
        for step in steps[:0:-1]:
            half.append(half[-1] + step[half[-1]])
        halves.append(half)
    return np.array(halves[0][::-1] + halves[1][1:])

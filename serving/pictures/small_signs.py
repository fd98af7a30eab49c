"""Tell the small signs in a line of digits from digits: colons, plus, times and equals signs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.pictures.ink import spans_of
from serving.pictures.page import Mask

# All lengths are shares of the height of the line, if nothing else is said.
# Height of the lowest and of the highest small sign: a colon, a plus, a times or an equals sign.
LEAST_SMALL, HIGHEST_SMALL = 0.2, 0.85
# A small sign is at least this wide, as a share of its own height.
NARROWEST = 0.6
# A small sign has at least this many rows and columns of pixels.
LEAST_PIXELS = 6
# A plus or times sign is at most this many times as wide as high.
WIDEST_CROSS = 1.8
# A corner of a plus or times sign is this share of its height and width.
CORNER = 0.28
# A corner is empty if less than this share of it is ink.
EMPTY = 0.12
# The ink of a plus sign encloses less than this share of its box. A rough edge makes small bays.
HOLE = 0.02
# Between the strokes of a times sign, this many rows or columns of pixels at each side are empty, over this share of
# the side, in its middle.
SIDE_PIXELS, SIDE_MIDDLE = 2, 0.2
# Each of the two strokes of an equals sign is at most this high.
LEVEL = 0.3
# Each of the two strokes of an equals sign is at least this many times as wide as high.
FLAT = 1.5
# A dot of a colon is at most this high and wide, and its longer side is at most this many times the shorter one.
DOT, LONGEST_DOT = 0.35, 2.0
# Ink covers at least this share of the box around a dot. A round one covers 0.79.
ROUND = 0.6
# The dots of a colon differ by at most this factor in height and in width.
ALIKE_DOTS = 2.0
# The gaps in the rows of a stroke have at most this share of the pixels of its ink. The loops of a 4 have more.
LOOP = 0.15


def is_small_sign(mask: Mask, height: float) -> bool:
    """Return whether the ink is a colon, a plus, a times or an equals sign in a line of digits of this height."""
    rows, columns = mask.shape
    if not LEAST_SMALL * height <= rows <= HIGHEST_SMALL * height:
        return False
    if _is_colon(mask, height):
        return True
    if columns < NARROWEST * rows or min(mask.shape) < LEAST_PIXELS:
        return False
    return _is_level_pair(mask, height) or (columns <= WIDEST_CROSS * rows and (_is_plus(mask) or _is_times(mask)))


def widths_of(mask: Mask) -> npt.NDArray[np.int64]:
    """Return how wide the ink of each row is, with the gaps in it. Each row has ink."""
    widths: npt.NDArray[np.int64] = mask.shape[1] - mask.argmax(axis=1) - mask[:, ::-1].argmax(axis=1)
    return widths


def is_solid(mask: Mask) -> bool:
    """Return whether the rows have hardly any gaps in their ink. Each row has ink."""
    area = int(np.count_nonzero(mask))
    return int(widths_of(mask).sum()) - area <= LOOP * area


def _is_plus(mask: Mask) -> bool:
    """Return whether the corners are empty, and the ink has hardly any gaps and no large hole or bay, as a 4 has."""
    if max(_corners(mask)) >= EMPTY or not is_solid(mask) or not is_solid(mask.T):
        return False
    before, after = (
        [np.logical_or.accumulate(mask[::step, ::step], axis=axis)[::step, ::step] for axis in (0, 1)]
        for step in (1, -1)
    )
    return int(np.count_nonzero(before[0] & before[1] & after[0] & after[1] & ~mask)) < HOLE * mask.size


def _is_times(mask: Mask) -> bool:
    """Return whether two strokes go from corner to corner and cross in the middle."""

    def is_crossed(mask: Mask) -> bool:
        runs = mask[:, 0] + np.count_nonzero(mask[:, 1:] & ~mask[:, :-1], axis=1)
        fourth, third = len(runs) // 4, len(runs) // 3
        begin, middle, end = runs[:fourth], runs[third:-third], runs[-fourth:]
        beside = round((1 - SIDE_MIDDLE) / 2 * len(runs))
        sides = mask[beside:-beside, :SIDE_PIXELS], mask[beside:-beside, -SIDE_PIXELS:]
        return bool(begin.max() == end.max() == runs.max() == 2 and middle.min() == 1) and not any(
            side.any() for side in sides
        )

    return min(_corners(mask)) >= EMPTY / 2 and is_crossed(mask) and is_crossed(mask.T)


def _corners(mask: Mask) -> list[float]:
    """Return the share of ink in each corner."""
    rows, columns = (max(1, round(CORNER * side)) for side in mask.shape)
    corners = mask[:rows, :columns], mask[:rows, -columns:], mask[-rows:, :columns], mask[-rows:, -columns:]
    return [np.count_nonzero(corner) / corner.size for corner in corners]


def _is_level_pair(mask: Mask, height: float) -> bool:
    """Return whether there are two level strokes, one above the other."""
    strokes = _stacked(mask)
    return len(strokes) == 2 and all(
        is_solid(stroke.T[stroke.any(axis=0)])
        and len(stroke) <= LEVEL * height
        and stroke.shape[1] >= max(FLAT * len(stroke), mask.shape[1] / 2)
        for stroke in strokes
    )


def _is_colon(mask: Mask, height: float) -> bool:
    """Return whether there are two dots of about the same size, one above the other."""
    dots = _stacked(mask)
    if len(dots) != 2:
        return False
    are_alike = all(max(sides) <= ALIKE_DOTS * min(sides) for sides in zip(*(dot.shape for dot in dots), strict=True))
    return are_alike and all(
        max(dot.shape) <= min(DOT * height, LONGEST_DOT * min(dot.shape)) and np.count_nonzero(dot) >= ROUND * dot.size
        for dot in dots
    )


def _stacked(mask: Mask) -> list[Mask]:
    """Return the ink between the rows without ink, from the top, each without the columns at its sides without ink."""
    inked = np.flatnonzero(mask.any(axis=1))
    bands = (mask[rows] for rows in np.split(inked, np.flatnonzero(np.diff(inked) > 1) + 1))
    return [band[:, slice(*spans_of(band)[1])] for band in bands]

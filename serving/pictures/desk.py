"""Tell the sheet in the middle of a page from what surrounds it: a desk, or a frame around the digit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serving.pictures.morphology import grey_dilation, median_filter
from serving.pictures.page import Grey, Mask, T
from serving.pictures.pieces import Piece, find_pieces, mask_of, split_specks
from serving.pictures.sheet import has_many_steps

# Grey levels between the means of two classes of pixels, such as paper and desk.
LEAST_CLASSES = 30.0
# The middle of the page, where the digit lies on paper: this share of each side is left out on both ends.
MIDDLE = 0.2
# A piece fills a side of the page if it touches at least this share of it.
FULL_SIDE = 0.9
# A piece fills a corner if it touches at least this share of both sides.
CORNER = 0.25
# The edge of a scan is at most this broad, as a share of the page's longer side. A digit that fills a side of a page
# has more ink than that for each pixel at the border.
EDGE = 0.06
# What remains must cover at least this share of the page.
LEAST_REST = 0.002
# A page with more pieces shows no digit, and would take too long.
MAX_PIECES = 50
# Pixels in a window of this side around a pixel of the desk are removed too, because its edge is blurred.
HALO = 5


def without_desk(page: Grey) -> Grey | None:
    """Return the page with paper in place of what surrounds the sheet, or None if there is no desk, or only a desk."""
    found = _desk_on(page)
    if found is None:
        return None
    other, desk = found
    kept = other & ~desk
    if kept.sum() < LEAST_REST * page.size:
        return None
    filled = (grey_dilation(desk.astype(np.float32), HALO) > 0) & ~kept
    return np.where(filled, np.float32(np.median(page[~other])), page)


def sheet_on_desk(page: Grey) -> Mask | None:
    """Return which pixels of a page belong to a sheet on a desk, or None if there is no desk."""
    found = _desk_on(page)
    return None if found is None else ~found[1]


def _desk_on(page: Grey) -> tuple[Mask, Mask] | None:
    """Return what has another shade than the paper in the middle of the page, and what of that is the desk.

    The desk is what fills a side or a corner of the page, and what encloses other pieces, as a frame does. Return None
    if there is no desk.
    """
    smooth = median_filter(page)
    bright = smooth > _two_classes(smooth)
    if bright.all() or not bright.any() or float(page[bright].mean() - page[~bright].mean()) < LEAST_CLASSES:
        return None
    other = ~bright if inner_part(bright).mean() > 0.5 else bright
    if has_many_steps(other):
        return None
    outer, inner = list[Piece](), list[Piece]()
    for piece in find_pieces(other.astype(np.float32)):
        (outer if fills_side(piece, page.shape) else inner).append(piece)
    desk = outer + _enclosing(inner)
    return (other, mask_of(desk, page.shape)) if desk else None


def inner_part(page: npt.NDArray[T]) -> npt.NDArray[T]:
    """Return the middle of a page."""
    y, x = (int(MIDDLE * side) for side in page.shape)
    return page[y : len(page) - y, x : page.shape[1] - x]


def fills_side(piece: Piece, shape: tuple[int, ...]) -> bool:
    """Return whether a piece fills a side of the page, or a corner. A digit that was cut off touches less of a side."""
    height, width = shape
    top, bottom, left, right = piece.along_border(shape)
    level, upright = max(top, bottom) / width, max(left, right) / height
    return max(level, upright) >= FULL_SIDE or min(level, upright) >= CORNER


def is_edge(piece: Piece, shape: tuple[int, ...]) -> bool:
    """Return whether a piece is a thin strip along one side of the page or several, as the edge of a scan is."""
    if piece.is_inside(shape):
        return False
    return piece.area <= EDGE * max(shape) * sum(piece.along_border(shape)) and fills_side(piece, shape)


def _enclosing(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces inside whose box lie other pieces that are no specks."""
    large = split_specks(pieces)[0] if pieces else []
    if len(large) > MAX_PIECES:
        return []
    return [outer for outer in large if any(map(outer.contains, large))]


def _two_classes(page: Grey) -> float:
    """Return the shade that best separates two classes of pixels (Otsu)."""
    counts = np.bincount(page.clip(0, 255).astype(np.uint8).ravel(), minlength=256).astype(float)
    below = counts.cumsum()
    sums = (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    means = sums / np.maximum(below, 1), (sums[-1] - sums) / np.maximum(above, 1)
    return float(np.argmax(below * above * (means[1] - means[0]) ** 2))

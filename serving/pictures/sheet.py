"""Find a small sheet on the page: a note on a desk, or the canvas in a window.

Its shade is not the paper of the page. It stands out as one broad piece of ink, and the digit on it is a hole in that
piece.
"""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import numpy.typing as npt

from serving.pictures.close_up import Place, place_of
from serving.pictures.ink import Ink, measure_ink, strongest
from serving.pictures.morphology import grey_erosion
from serving.pictures.page import Grey, Mask
from serving.pictures.pieces import Piece, find_pieces, touches

# A narrower page is smaller than the filters need.
LEAST_PAGE = 8
# The shorter side of a sheet is at least this share of the longer one.
ASPECT = 0.4
# The outline of a sheet fills this share of its box. A square that is turned by 45 degrees fills half of it, and a
# round sheet fills 79 %.
FULL = 0.65
# The sheet itself has at least this share of the area within its outline. The digit is a hole in the sheet. A thick
# ring has a larger hole.
PAPER = 0.75
# The outline fills this share of its convex hull. Broad letters fill their box too, but they have bays.
CONVEX = 0.94
# The longer side of the sheet is at least this share of the page's. A smaller one may be a broad stroke.
LEAST_SIDE = 0.3
# The sheet has at least this share of all that stands out from the page.
MOST_OF_INK = 0.5
# Pixels left out along the edge of the sheet, which is blurred, and where a shadow may begin.
EDGE = 3
# The ink on a sheet has at least this share of the contrast that the sheet has to the page around it.
WRITING = 0.25
# Less than this share of it belongs to pieces that reach the edge of the sheet.
AT_EDGE = 0.5
# A page with more steps between ink and paper shows no sheet, and would take too long.
MAX_STEPS = 5000

Columns = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def on_small_sheet(page: Grey) -> tuple[Grey, Place] | None:
    """Return the part of the page that is a sheet with ink on it, with the sheet's shade around it, and where it lies.

    Return None if there is no such sheet.
    """
    ink = measure_simple_ink(page) if min(page.shape) >= LEAST_PAGE else None
    if ink is None:
        return None
    # Only the heaviest piece can have most of the ink. To look at all pieces would take long on a page of many.
    sheet = max(find_pieces(ink), key=attrgetter("mass"))
    if sheet.mass < MOST_OF_INK * float(ink.sum()) or sheet.length < LEAST_SIDE * max(page.shape):
        return None
    if not is_sheet(sheet):
        return None
    starts, ends = _outline(sheet)
    columns = np.arange(sheet.left, sheet.right)
    outline = (starts[:, None] <= columns) & (columns < ends[:, None])
    # The sheet ends at the border of the box, also where the page goes on.
    inner = grey_erosion(np.pad(outline.astype(np.float32), EDGE), 1 + 2 * EDGE)[EDGE:-EDGE, EDGE:-EDGE] > 0
    if not inner.any():
        return None
    part = page[sheet.top : sheet.bottom, sheet.left : sheet.right]
    alone = np.where(inner, part, np.float32(np.median(part[inner])))
    place = place_of(page.shape, slice(sheet.top, sheet.bottom), slice(sheet.left, sheet.right))
    return (alone, place) if _has_writing(alone, inner, sheet.strength) else None


def _has_writing(sheet: Grey, inner: Mask, contrast: float) -> bool:
    """Return whether most of the ink on a sheet is strong, and does not reach the edge of the sheet.

    A crease is weak, and a shadow or a pen that lies on the sheet reaches its edge.

    Args:
        inner: which pixels belong to the sheet.
        contrast: of the sheet to the page around it.
    """
    ink = measure_simple_ink(sheet)
    if ink is None or strongest(ink) < WRITING * contrast:
        return False
    near = inner & (grey_erosion(np.pad(inner.astype(np.float32), 1), 3)[1:-1, 1:-1] == 0)
    at_edge = sum(piece.mass for piece in find_pieces(ink) if touches(piece, near))
    return at_edge < AT_EDGE * float(ink.sum())


def measure_simple_ink(page: Grey) -> Ink | None:
    """Return the ink of a page, or None if nothing stands out, or too much to be a sheet."""
    ink = measure_ink(page)
    return None if ink is None or has_many_steps(ink > 0) else ink


def has_many_steps(mask: Mask) -> bool:
    """Return whether a mask has so many steps along its rows that it shows no sheet, and would take too long."""
    return bool(np.count_nonzero(mask[:, 1:] != mask[:, :-1]) > MAX_STEPS)


def is_sheet(piece: Piece) -> bool:
    """Return whether a piece is so broad in both directions, and so full, that it is a sheet and no stroke."""
    short, long = sorted((piece.height, piece.width))
    box = short * long
    if short < ASPECT * long or piece.area < PAPER * FULL * box:
        return False
    starts, ends = _outline(piece)
    within = int((ends - starts).sum())
    return within >= FULL * box and piece.area >= PAPER * within and within >= CONVEX * _area_of_hull(starts, ends)


def _outline(piece: Piece) -> tuple[Columns, Columns]:
    """Return the first column and the end column of a piece in each of its rows."""
    # A piece is connected, so each row of its box has a run.
    starts, ends = np.full(piece.height, piece.right), np.full(piece.height, piece.left)
    rows, firsts, lasts = np.array(piece.runs).T
    np.minimum.at(starts, rows - piece.top, firsts)
    np.maximum.at(ends, rows - piece.top, lasts)
    return starts, ends


def _area_of_hull(starts: Columns, ends: Columns) -> float:
    """Return the area of the convex hull of some rows, each from its first column to its end."""
    return float((-_hull(-ends) - _hull(starts)).sum())


def _hull(columns: Columns) -> Floats:
    """Return the lower convex hull of one column in each row (Andrew's monotone chain)."""
    corners: list[tuple[int, int]] = []
    for point in enumerate(columns.tolist()):
        while len(corners) > 1 and _turns_in(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    rows, bounds = np.array(corners, np.float64).T
    hull: Floats = np.interp(np.arange(len(columns)), rows, bounds)
    return hull


def _turns_in(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    """Return whether the middle one of three points does not lie below the line between the others."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])

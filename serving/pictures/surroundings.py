"""Remove what surrounds a single digit on a page: lines, boxes, frames, stains, shadows, a desk.

What is taken for surroundings may still be a part of the digit. So the page without them is only another reading of the
picture: the network says which reading looks most like a digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

import numpy as np

from serving.pictures.close_up import CloseUp, Place, place_of
from serving.pictures.desk import inner_part, without_desk
from serving.pictures.ink import NOISE, Ink, is_flat, middle, shade_of_border, strongest, sum_of_cubes
from serving.pictures.morphology import grey_dilation, opening_along
from serving.pictures.page import Grey, Mask, Page, reduce
from serving.pictures.paper import STRONG, paper_of
from serving.pictures.pieces import DIGIT, Piece, distance, find_pieces, mask_of, split_specks
from serving.pictures.sheet import is_sheet, measure_simple_ink, on_small_sheet

# Surroundings are looked for on a page whose longer side has this many pixels: a thin line is still visible.
FINE = 192
# A smaller page is too coarse to tell a line from a stroke.
LEAST_SIDE = 40

# A page has surroundings if its border has a step of more than this many grey levels, or if the shade of its middle
# differs from that of the border by more than twice as many.
STEP = 10.0
# A step of the border is no noise if it is more than this many times as large as the median step.
STEPS_OF_NOISE = 8.0
# The largest piece may be a box around a digit if its ink covers this share of at least two sides of its bounding box.
COVERED = 0.8

# A page may have a shadow if less than this share of its ink is strong.
MOSTLY_STRONG = 0.4
# Pixels in a window of this side around a pixel of a strong stroke may be the stroke's edge, which is weak.
EDGE = 5
# A page has weak strokes beside strong ones if this share of its ink is weak and no edge of a strong stroke.
WEAK = 0.1
# A page with this many pieces of ink may show one digit whose thin strokes have faded in places.
BROKEN = 3

# Breadth of the broadest line, as a share of the page's longer side. The strokes of most digits are broader.
LINE_BREADTH = 0.035
# Length of the shortest straight part of a line, as a share of the page's width.
STRAIGHT = 0.2
# Length of the shortest whole line, as a share of the page's width. A line that reaches the border may be shorter.
LINE_LENGTH = 0.5
# How far an underline sticks out on each side of what stands on it, as a share of the length of the underline.
STICKS_OUT = 0.06
# Height of the lowest part of a digit, which may be an underline that touches it, as a share of the digit's height.
FOOT = 0.2
# Breadth of the broadest stroke or line that crosses a line, as a share of the page's width.
CROSSING = 0.12
# Height of the highest bounding box of a level line, as a share of the page's longer side.
HIGHEST_LINE = 0.065
# A line may be tilted: its bounding box may be higher by this share of the line's length.
TILT = 0.1
# Contrast of the faintest line, as a share of the strongest contrast on the page.
LINE_CONTRAST = 0.05
# Contrast of the faintest line in grey levels.
LEAST_LINE = 5.0

# Where a line is crossed, ink that is at least this many times as strong as the line belongs to the crossing stroke.
DARKER = 1.3

# Ink is small if the page is this many times as long.
SMALL = 5
# The close-up of small ink shows this many times its length on each side.
AROUND = 1.0


def other_pages(
    page: Grey | Page, overview: Grey, close_up: CloseUp, pieces: Sequence[Piece]
) -> Iterator[tuple[Grey, Place]]:
    """Yield the page or a part of it without its surroundings, once for each kind that is found, and where it lies.

    Most pages have none. A quick look at the border and at the pieces tells, so such a page takes little time.

    Args:
        overview: the page, reduced to ``OVERVIEW``.
        close_up: of the page, as ``find_close_up`` returns it.
        pieces: those of its ink.
    """
    if min(page.shape) < LEAST_SIDE:
        return
    ink = close_up.ink
    # Only a photo has shadows and stains. A picture from a program is flat.
    if not is_flat(overview):
        if is_mostly_weak(ink):
            yield _without_shadows(reduce(page, FINE)), Place()
        strong = _without_weak_strokes(ink)
        if strong is not None:
            yield strong, close_up.place
    if len(pieces) >= BROKEN:
        yield _with_broad_strokes(reduce(page, 2 * FINE)), Place()
    large, _ = split_specks(pieces)
    has_sheet = any(map(is_sheet, large))
    is_cut = not all(piece.is_inside(ink.shape) for piece in large)
    if not (len(large) > 1 or has_sheet or is_cut or _is_box(large) or _has_foot(large) or _has_steps(overview)):
        return
    fine = reduce(page, FINE)
    if has_sheet and (sheet := on_small_sheet(fine)):
        yield sheet
    without = _without_lines(fine)
    if without is not None:
        yield without, Place()
    if close := _close_up(page, overview if without is None else without):
        yield close
    sheet_alone = without_desk(fine)
    if sheet_alone is not None:
        yield sheet_alone, Place()


def _without_shadows(page: Grey) -> Grey:
    """Return the ink that stands out from the paper and from shadows on it."""
    values = np.clip(np.rint(page), 0, 255).astype(np.uint8)
    if sum_of_cubes(_relief(page)) > 0:
        values = 255 - values
    return (paper_of(values) - values).astype(np.float32)


def is_mostly_weak(ink: Ink) -> bool:
    """Return whether most of the ink is weak, as the ink of a shadow is."""
    return bool(np.count_nonzero(ink > STRONG * strongest(ink)) < MOSTLY_STRONG * np.count_nonzero(ink))


def _without_weak_strokes(ink: Ink) -> Ink | None:
    """Return the ink without what is weaker than its strongest strokes, such as a stain, or None if that is little."""
    strong = ink > STRONG * strongest(ink)
    near = grey_dilation(strong.astype(np.uint8), EDGE) > 0
    is_stained = np.count_nonzero(ink[~near]) >= WEAK * np.count_nonzero(ink)
    return np.where(near, ink, 0) if is_stained else None


def _has_steps(page: Grey) -> bool:
    """Return whether the shade of the border steps, as at a line or a desk, or differs from that of the middle."""
    edges = page[0], page[-1], page[:, 0], page[:, -1]
    steps = np.sort(np.concatenate([np.abs(edge[2:] - edge[:-2]) for edge in edges]))
    if steps[-1] > max(STEP, STEPS_OF_NOISE * middle(steps)):
        return True
    inner = np.sort(inner_part(page)[::2, ::2].ravel())
    return abs(middle(inner) - shade_of_border(page)) > 2 * STEP


def _is_box(pieces: Sequence[Piece]) -> bool:
    """Return whether the largest piece covers two sides of its own box, as a box does. So does a straight 1."""
    piece = max(pieces, key=attrgetter("mass"))
    near_y, near_x = 1 + piece.height // 16, 1 + piece.width // 16
    rows = (
        [run for run in piece.runs if run[0] < piece.top + near_y],
        [run for run in piece.runs if run[0] >= piece.bottom - near_y],
    )
    covered = [max((end - start for _, start, end in part), default=0) / piece.width for part in rows]
    left = {row for row, start, _ in piece.runs if start < piece.left + near_x}
    right = {row for row, _, end in piece.runs if end >= piece.right - near_x}
    covered += [len(side) / piece.height for side in (left, right)]
    return sum(share >= COVERED for share in covered) >= 2


def _with_broad_strokes(page: Grey) -> Grey:
    """Return the ink at half the size, each stroke some pixels broader. A hair-thin stroke would fade to pieces."""
    ink = _standing_out(page)
    return grey_dilation(ink, 4)[1::2, 1::2]


def _without_lines(page: Grey) -> Grey | None:
    """Return the ink without long thin lines that are nearly level or upright: ruled and squared paper, boxes, axes."""
    ink = _standing_out(page)
    without_level = _without_level_lines(ink, underline=True)
    without_any = _without_level_lines(without_level.T).T
    return None if np.array_equal(without_any, ink) else without_any


def _close_up(page: Grey | Page, small: Grey) -> tuple[Grey, Place] | None:
    """Return a close-up of small ink without the lines around it, and where it lies.

    Return None if there are no lines or no small ink.

    Args:
        small: the page, reduced.
    """
    ink = measure_simple_ink(small) if max(page.shape) >= 2 * FINE else None
    if ink is None:
        return None
    pieces = find_pieces(ink)
    digit = max(pieces, key=attrgetter("mass"))
    side = digit.length
    if SMALL * side > max(ink.shape) or any(
        piece.is_inside(ink.shape) and _is_another(piece, digit, AROUND * side) for piece in pieces
    ):
        return None
    factor = max(page.shape) / max(ink.shape)
    rows, columns = (
        slice(max(0, round((begin - AROUND * side) * factor)), min(size, round((end + AROUND * side) * factor)))
        for begin, end, size in ((digit.top, digit.bottom, page.shape[0]), (digit.left, digit.right, page.shape[1]))
    )
    without = _without_lines(reduce(page[rows, columns], FINE))
    return None if without is None else (without, place_of(page.shape, rows, columns))


def _is_another(piece: Piece, digit: Piece, gap: float) -> bool:
    """Return whether a piece is large enough for another digit and farther away than ``gap``."""
    return piece.mass >= DIGIT * digit.mass and distance(piece, digit) > gap


def _standing_out(page: Grey) -> Grey:
    """Return how much each pixel differs from the paper, towards the shade of the ink."""
    relief = _relief(page)
    return np.maximum(relief if sum_of_cubes(relief) > 0 else -relief, 0)


def _relief(page: Grey) -> Grey:
    """Return how much brighter each pixel is than the paper. Most of the page is paper, so its shade is the median."""
    return page - np.float32(np.median(page))


def _without_level_lines(ink: Grey, *, underline: bool = False) -> Grey:
    """Return the ink without lines that are nearly level.

    Args:
        underline: remove also a line of any length that underlines all other ink.
    """
    height, width = ink.shape
    longest = max(height, width)
    thick = opening_along(ink, 2 + round(LINE_BREADTH * longest), 0)
    # A line that is not quite level moves to the next row after some pixels.
    spread = -opening_along(thick - ink, 3, 0)
    # It is interrupted where it crosses a stroke or another line.
    bridged = -opening_along(-spread, max(3, round(CROSSING * width)), 1)
    straight = opening_along(bridged, max(3, round(STRAIGHT * width)), 1)
    level = max(LEAST_LINE, LINE_CONTRAST * float(ink.max()), NOISE * float(np.median(straight)))

    def is_line(piece: Piece) -> bool:
        is_cut = piece.left == 0 or piece.right == width
        is_long = is_cut or piece.width >= LINE_LENGTH * width or (underline and _is_underline(piece, ink > level))
        return is_long and piece.height <= HIGHEST_LINE * longest + TILT * piece.width

    found = list(filter(is_line, find_pieces(np.where(straight > level, straight, 0))))
    if not found:
        return ink
    lines = mask_of(found, ink.shape)
    # Where a stroke crosses the line, the stroke is thicker or darker than the line and stays.
    lines &= ink < DARKER * np.quantile(ink[lines], 0.9)
    return np.where(lines, thick, ink)


def _is_underline(line: Piece, ink: Mask) -> bool:
    """Return whether there is no ink below a line, and the line sticks out on both sides of all ink above it."""
    blurred = max(2, line.height)
    if ink[line.bottom + blurred :].any():
        return False
    columns = np.flatnonzero(ink[: max(0, line.top - blurred)].any(axis=0))
    return len(columns) > 0 and _sticks_out(line, int(columns[0]), int(columns[-1]) + 1)


def _has_foot(pieces: Sequence[Piece]) -> bool:
    """Return whether the lowest part of the largest piece sticks out on both sides, as an underline that touches it."""
    piece = max(pieces, key=attrgetter("mass"))
    above = [run for run in piece.runs if run[0] < piece.bottom - max(2, FOOT * piece.height)]
    return bool(above) and _sticks_out(piece, min(start for _, start, _ in above), max(end for _, _, end in above))


def _sticks_out(line: Piece, left: int, right: int) -> bool:
    room = STICKS_OUT * line.width
    return line.left + room <= left and right <= line.right - room

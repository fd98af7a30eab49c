"""Find the ink on a page with a single digit: how much each pixel stands out from the paper around it.

A page is a picture as an array of grey values. Ink is what the pen left, and paper is the rest of the page. The paper
may be darker or brighter than the ink, and it may be lit unevenly. The thresholds were chosen on MNIST's training
images, drawn as in ``benchmarks/drawings.py``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.pictures.morphology import (
    erosion_along,
    grey_dilation,
    grey_erosion,
    grey_opening,
    median_filter,
    uniform_filter,
)
from serving.pictures.page import Grey, Mask, pad_to

# The filters need a page of at least this many pixels in each direction.
LEAST_SIDE = 4

# Grey levels by which the strongest ink must differ from the paper; otherwise the page is empty.
LEAST_CONTRAST = 8.0
# Ink weaker than this share of the strongest ink is paper, noise or shadow.
FAINT = 0.25
# Strokes are the ink that is stronger than this share of the strongest ink.
STROKE = 0.5
# Pixels that differ from their surroundings by fewer standard deviations of the noise than this are paper.
NOISE = 3
# If no ink differs by this many standard deviations of the noise, the page is empty.
NOISE_OF_EMPTY = 4
# Standard deviation of normally distributed noise, divided by the median of its absolute values.
DEVIATION = 1.4826

# Grey levels within which two pixels of paper are the same shade.
SAME_SHADE = 16
# Paper is lit unevenly if less than this share of the border's pixels have the shade of the paper.
EVEN_BORDER = 0.6
# In a photo, what stands out by less than this many grey levels from the border is light on the paper, and no sheet.
WEAK = 50
# Paper is also lit unevenly if something stands out that is broader in both directions than this share of the page's
# longer side, and is no filled shape. No stroke is that broad.
TOO_BROAD = 0.42
# What has this many pixels of a shape on each of its four sides lies within the shape. An edge may be rough or blurred.
EDGE = 4
# On a page with noise, most of a filled shape or of a sheet has at least this share of the strongest contrast. Light
# fades, and a shadow is weaker than ink.
FILLED = 0.8
# Such a page shows other shades than those of the paper and the shape on at most this share of the shape's area.
OTHER_SHADES = 0.02
# Pixels in a window of this side around a pixel of the shape are its edge, and do not count.
BLUR = 5
# Side of the window that estimates uneven paper, as a share of the page's longer side: broader than any stroke,
# narrower than most shadows.
PAPER_WINDOW = 0.33
# Dark ink is strengthened in a shadow, and weakened in bright light, by no more than this factor. Without a limit,
# noise in the dark would become ink.
MOST_SHADE = 3
# The slope of the light is measured over this fraction of a side.
SLOPE_STEPS = 8
# Width of the frame that mostly holds paper, as a share of each side: the margin in MNIST, 4 of 28 pixels.
MARGIN = 1 / 7

Ink = npt.NDArray[np.float32]
"""Float32 ``[H, W]``: the contrast to the paper in grey levels, 0 where there is only paper."""


def measure_ink(page: Grey, *, even: bool = False) -> Ink | None:
    """Return the contrast of each pixel to the paper, or None if nothing stands out.

    Args:
        page: brightness from 0 to 255, ``[H, W]``.
        even: skip the test for uneven paper.
    """
    page = pad_to(page, LEAST_SIDE)
    border = border_of(page)
    paper = most_common_shade(border)
    ink = page - paper
    # Is the ink brighter or darker than the paper? Squares let strong ink outweigh slightly different shades of paper.
    if float((ink * np.abs(ink)).sum()) < 0:
        ink = -ink
    most = strongest(ink)
    if most < LEAST_CONTRAST:
        return None
    noise = 0.0
    uneven = not even and is_uneven(ink, border - paper, most)
    if uneven or not is_flat(page):
        smooth = median_filter(page)
        noise = noise_of(page, smooth)
        if uneven:
            ink = measure_on_uneven_paper(page, smooth)
            most = strongest(ink)
    if most < max(LEAST_CONTRAST, NOISE_OF_EMPTY * noise):
        return None
    return np.where(ink < max(FAINT * most, NOISE * noise), 0, ink).astype(np.float32)


def is_uneven(ink: Ink, border: Grey, most: float) -> bool:
    """Return whether the paper is lit unevenly.

    Args:
        border: the page's border minus the shade of the paper.
        most: the strongest ink.
    """
    least = FAINT * most
    # In a dark photo the contrast is low, so paper that differs by less than SAME_SHADE would already count as ink.
    same = min(SAME_SHADE, max(LEAST_CONTRAST, least))
    if float((np.abs(border) < same).mean()) < EVEN_BORDER:
        return True
    # Ink is either darker or brighter than the paper. In a photo with both, one of them is light or a sheet. Light is
    # weak, or it fades, and the real ink stands out more from its neighbourhood.
    has_both = strongest(-ink) > min(SAME_SHADE, least) and not is_flat(ink)
    if has_both and (most < WEAK or (fades(ink, most) and skew_of(ink) < 0)):
        return True
    return is_broad(ink, least) and not is_filled_shape(ink, most)


def fades(ink: Ink, most: float) -> bool:
    """Return whether most of the ink has less than ``FILLED`` of the strongest contrast, as light on the paper has."""
    return bool(2 * np.count_nonzero(ink >= FILLED * most) < np.count_nonzero(ink > FAINT * most))


def is_broad(ink: Ink, least: float) -> bool:
    """Return whether ink stronger than ``least`` fills a square of ``TOO_BROAD`` of the page's longer side."""
    broad = round(TOO_BROAD * max(ink.shape))
    # What is this broad crosses one of these rows, also at the edge, where half a window is enough. Most strokes are
    # narrower there, so most pages need no look at the other rows.
    step = min(broad // 2, len(ink))
    rows = ink[step - 1 :: step]
    return float(erosion_along(rows, broad, 1).max()) > least and float(grey_erosion(ink, broad).max()) > least


def is_filled_shape(ink: Ink, most: float) -> bool:
    """Return whether broad ink is a filled shape, such as a black disc, and not a shadow or a sheet on a desk.

    Nothing stands out within a shape. It may touch the border of the page, but does not lie along it. These two rules
    are enough on a page without noise. Other pages must show nothing but paper and a shape of one strong shade.

    Args:
        most: the strongest ink.
    """
    strong = np.abs(ink) > FAINT * most
    if max(float(side.mean()) for side in (strong[0], strong[-1], strong[:, 0], strong[:, -1])) >= TOO_BROAD:
        return False
    shade, flat = middle(np.sort(ink[ink > FAINT * most])), is_flat(ink)
    if not flat and shade < FILLED * most:
        return False
    relief = ink - shade
    shape = np.abs(relief) < SAME_SHADE
    within = np.where(enclosed(shape), relief, 0)
    if max(strongest(within), strongest(-within)) >= SAME_SHADE:
        return False
    others = strong & (grey_dilation(shape.astype(np.float32), BLUR) == 0)
    return flat or bool(np.count_nonzero(others) <= OTHER_SHADES * np.count_nonzero(shape))


def enclosed(mask: Mask) -> Mask:
    """Return which pixels have ``EDGE`` pixels of the mask on their left, on their right, above and below."""
    ways = mask, mask[:, ::-1], mask.T, mask.T[:, ::-1]
    left, right, above, below = (way.cumsum(axis=1) >= EDGE for way in ways)
    return left & right[:, ::-1] & above.T & below[:, ::-1].T


def is_flat(page: Grey) -> bool:
    """Return whether most pixels are the same as their four neighbours, so that the page has no noise."""
    level, upright = page[:, 1:] == page[:, :-1], page[1:] == page[:-1]
    same = level[1:-1, 1:] & level[1:-1, :-1] & upright[1:, 1:-1] & upright[:-1, 1:-1]
    return bool(2 * np.count_nonzero(same) > page.size)


def noise_of(page: Grey, smooth: Grey) -> float:
    """Return the standard deviation of the noise. ``smooth`` is the page without noise."""
    difference = page - smooth
    # Most pictures from a screen have no noise, and counting takes far less time than the median.
    if 2 * np.count_nonzero(difference) < difference.size:
        return 0.0
    return DEVIATION * float(np.median(np.abs(difference)))


def measure_on_uneven_paper(page: Grey, smooth: Grey) -> Ink:
    """Return the contrast of each pixel to the paper in its neighbourhood.

    An opening with a window broader than a stroke removes the ink and leaves the paper (a "top hat" transform).

    Args:
        page: brightness, ``[H, W]``.
        smooth: the page without noise, from which the paper is estimated.
    """
    level, smooth = without_slope(page, smooth)
    window = round(PAPER_WINDOW * max(page.shape))
    sign = 1 if skew_of(level) > 0 else -1
    ink: Ink = sign * level - grey_opening(sign * smooth, window)
    paper = page + ink
    ink -= np.median(ink)  # Most of the page is paper, so the median is the ink value of paper.
    if sign < 0:
        # A shadow darkens paper and ink by the same factor, so dark ink differs less from the paper there.
        ink *= np.clip(np.median(paper) / np.maximum(paper, 1), 1 / MOST_SHADE, MOST_SHADE)
    return ink


def skew_of(page: Grey) -> float:
    """Return a value above 0 if bright pixels differ most from their neighbourhood, and below 0 if dark ones do.

    These pixels are ink. The margin is left out, because it more often holds the edges of shadows than the digit.
    """
    window = round(PAPER_WINDOW * max(page.shape))
    return sum_of_cubes((page - uniform_filter(page, window))[~margin_of(page.shape)])


def without_slope(page: Grey, smooth: Grey) -> tuple[Grey, Grey]:
    """Return both pages without the slope that most of the page has: light from one side. Steps are left as they are.

    At the border of a slope, the opening would leave a strip.
    """
    for axis in (0, 1):
        lines = np.sort(smooth if axis == 0 else np.ascontiguousarray(smooth.T), axis=1)
        shades = (lines[:, (lines.shape[1] - 1) // 2] + lines[:, lines.shape[1] // 2]) / 2
        step = max(1, len(shades) // SLOPE_STEPS)
        slope = float(np.median(shades[step:] - shades[:-step])) / step
        light = (slope * np.arange(len(shades), dtype=np.float32)).reshape((-1, 1) if axis == 0 else (1, -1))
        page, smooth = page - light, smooth - light
    return page, smooth


def border_of(page: Grey) -> Grey:
    """Return the outermost pixels as a one-dimensional array."""
    return np.concatenate([page[0], page[-1], page[1:-1, 0], page[1:-1, -1]])


def shade_of_border(page: Grey) -> float:
    """Return the median of the outermost pixels, which mostly show paper."""
    return middle(np.sort(border_of(page)))


def spans_of(ink: Ink | Mask) -> list[tuple[int, int]]:
    """Return the first row with ink and the one after the last, and the same for the columns."""
    inked = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    return [(int(places[0]), int(places[-1]) + 1) for places in inked]


def margin_of(shape: tuple[int, ...]) -> Mask:
    """Return a mask of the frame of a page. The frame is ``MARGIN`` of each side wide and mostly holds paper."""
    margin = np.ones(shape, bool)
    y, x = (max(1, round(size * MARGIN)) for size in shape)
    margin[y:-y, x:-x] = False
    return margin


def most_common_shade(values: Grey) -> float:
    """Return the value that has the most other values within ``SAME_SHADE``; of several such values the median."""
    values = np.sort(values)
    near = np.searchsorted(values, values + SAME_SHADE, "right") - np.searchsorted(values, values - SAME_SHADE)
    return middle(values[near == near.max()])


def middle(values: Grey) -> float:
    """Return the median of sorted values. NumPy's own takes longer than all the rest of a small picture."""
    return float(values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def sum_of_cubes(values: Grey) -> float:
    """Return the sum of the cubes. Its sign says whether the values that differ most from 0 are above or below it."""
    # NumPy takes 30 times as long for values**3.
    return float((values * values * values).sum())


def strongest(ink: Ink) -> float:
    """Return the highest mean of 2x2 pixels, because a single strong pixel is likely noise."""
    rows = ink[:-1] + ink[1:]
    return float((rows[:, :-1] + rows[:, 1:]).max()) / 4


def breadth_of(strokes: Mask) -> float:
    """Estimate the mean breadth of strokes, in pixels: their area divided by half the length of their edges."""
    padded = np.zeros((strokes.shape[0] + 2, strokes.shape[1] + 2), bool)
    padded[1:-1, 1:-1] = strokes
    steps = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    # An edge made of pixel steps is longer than the true edge: by the factor 4 / pi, averaged over all directions.
    edges = steps * np.pi / 4
    return 2 * np.count_nonzero(strokes) / max(1.0, edges)

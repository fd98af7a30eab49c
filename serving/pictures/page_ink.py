"""Find the ink on a page with many digits, on paper that may be lit unevenly.

``ink.py`` does the same for a single digit: it reduces the page to 96 pixels, which is too coarse for a line of digits.
Here the page keeps up to 1024 pixels, so the filters work on bytes, which NumPy handles 16 or more at a time.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from serving.pictures.desk import sheet_on_desk, without_desk
from serving.pictures.ink import (
    DEVIATION,
    EVEN_BORDER,
    FAINT,
    LEAST_CONTRAST,
    NOISE,
    NOISE_OF_EMPTY,
    SAME_SHADE,
    Ink,
    border_of,
    is_flat,
    most_common_shade,
    sum_of_cubes,
)
from serving.pictures.morphology import grey_dilation, grey_erosion, uniform_filter
from serving.pictures.page import Grey, Mask, pad_to, reduce
from serving.pictures.paper import COARSE, STRONG, Bytes, contrast, paper_of, paper_stride, stride, widest_window
from serving.pictures.remnants import without_remnants
from serving.pictures.rules import without_rules, without_rules_of
from serving.pictures.stains import without_stains

# The page is reduced to this longer side. A digit should then still be about 16 pixels high.
LONGEST = 1024
# Longer side of the page that decides whether the ink is darker or brighter than the paper.
POLARITY_SIDE = 192
# A desk around the sheet is looked for on a reduced page, if its shorter side has at least this many pixels.
LEAST_SHEET = 40
# The edge of the sheet lies within this many pixels of the page that is reduced to ``COARSE``.
EDGE = 1
# Rules are looked for in all ink above this share of the contrast: in uneven light, parts of a rule are weak.
FAINT_RULE = 0.08
# The filters need a page of at least this many pixels in each direction.
LEAST_SIDE = 8


def find_page_ink(page: Grey) -> Ink | None:
    """Return the ink of a page of at most ``LONGEST`` pixels a side, or None if the page is empty."""
    grey = pad_to(page, LEAST_SIDE)
    noise = _noise(grey)
    values = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    if not _is_dark(grey):
        values = 255 - values
    paper = paper_of(values)
    ink = (paper - values).astype(np.float32)
    ink -= np.median(ink[:: stride(ink)])  # Most of the page is paper, and grain makes the paper look like ink.
    most = contrast(ink)
    if most < max(LEAST_CONTRAST, NOISE_OF_EMPTY * noise):
        return None
    ink[ink < max(FAINT_RULE * most, NOISE * noise)] = 0
    ink = without_rules(np.minimum(ink, most))
    sheet = _sheet_on(paper)
    if sheet is not None:
        # The rules of a sheet on a desk end at its edges.
        ink = without_rules_of(sheet, ink)
        # Weak ink there belongs to the edge.
        ink[_edge_of(sheet) & (ink < STRONG * most)] = 0
    least = FAINT * most
    ink = without_stains(ink, paper, least)
    ink[ink < least] = 0
    return without_remnants(ink, values, paper, least)


def _noise(grey: Grey) -> float:
    """Return the standard deviation of the grain: the difference of two neighbours deviates sqrt(2) times as much."""
    some = grey[:: stride(grey)]
    steps = np.abs(some[:, 1:] - some[:, :-1])
    return DEVIATION * float(np.median(steps)) / 2**0.5


def _sheet_on(paper: Bytes) -> Mask | None:
    """Return which pixels belong to a sheet on a desk, or None if there is no desk."""
    height, width = paper.shape
    step = paper_stride(paper)
    small = paper[::step, ::step].astype(np.float32)
    sheet = sheet_on_desk(small) if min(small.shape) >= LEAST_SHEET else None
    if sheet is None:
        return None
    return np.asarray(Image.fromarray(sheet).resize((width, height), Image.Resampling.NEAREST))


def _edge_of(sheet: Mask) -> Mask:
    """Return the pixels near the edge of a sheet. Rules along it are too short there to be found."""
    values = sheet.astype(np.uint8)
    size = 1 + 2 * math.ceil(EDGE * max(sheet.shape) / COARSE)
    edge: Mask = grey_dilation(values, size) != grey_erosion(values, size)
    return edge


def _is_dark(grey: Grey) -> bool:
    """Return whether the ink is darker than the paper: the ink takes less of the page than the paper."""
    small = reduce(grey, POLARITY_SIDE)
    # A desk around the sheet is neither ink nor paper. It stays on the page itself, because it may be a shadow with
    # digits in it. In the ink of the page it reaches the border, and ``clutter.py`` leaves it out.
    sheet = without_desk(small) if min(small.shape) >= LEAST_SHEET else None
    border = border_of(small)
    shade = most_common_shade(border)
    has_even_border = float((np.abs(border - shade) < SAME_SHADE).mean()) >= EVEN_BORDER
    # In a photo, light that falls from one side would outweigh little ink.
    if sheet is None and has_even_border and is_flat(small):
        relief = small - shade
        return float((relief * np.abs(relief)).sum()) < 0
    small = small if sheet is None else sheet
    # On uneven paper, the ink stands out from its neighbourhood, and both sides of a shadow's edge do so equally.
    relief = small - uniform_filter(small, widest_window(small))
    return sum_of_cubes(relief) < 0

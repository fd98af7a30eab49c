"""Erase the lines of ruled or squared paper on a page of numbers, and leave the strokes that cross them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.pictures.ink import Ink, spans_of
from serving.pictures.page import Mask
from serving.pictures.pieces import find_pieces

# The page is divided into this many strips across a rule. A rule has ink in nearly all of them, also beside the digits:
# in at least IN_STRIPS of the strips, and in each of these in at least IN_STRIP of its columns.
STRIPS = 16
IN_STRIP, IN_STRIPS = 0.75, 0.9
# A rule of a sheet that lies on a desk crosses at least this many strips of the sheet.
LEAST_CROSSED = STRIPS // 2
# Rules are looked for in ink of at least this many pixels in each direction.
LEAST_RULED = 2 * STRIPS
# Rows of a rule per column: photographed paper may be turned a little.
SLOPES = np.linspace(-0.06, 0.06, 25)
# Steeper rules are looked for on the page sheared by each of these slopes. So many columns are moved together.
SHEARS = 0.0, -0.1, 0.1
BLOCK = 8
# Rules that are at most this many rows apart are one rule, found in two shears.
SAME_RULE = 4
# Rows that are searched above and below a rule for the strokes that cross it. A rule is at most half as thick.
REACH = 12
# A digit on a page that is cropped to its digits is at least this high, as a share of the page's height.
AS_HIGH = 0.7
# Lines may be the sides of a box if there are no more than these, so they are rules only if they reach the border.
SIDES_OF_BOX = 2
# Their ink is looked for within this many pixels of the place where they would meet it.
BORDER = 4
# Ink is part of a rule if it is at most this many times as thick as the rule's median, or one pixel thicker.
THICKER = 1.6
# Where two rules cross, ink is part of them if it is at most this many times as strong as the stronger rule. The ink of
# most strokes is stronger.
STRONGER = 1.6


class _Rule(NamedTuple):
    row: int
    """Its row in the middle of the page."""
    slope: float
    """Rows per column."""


def without_rules_of(sheet: Mask, ink: Ink) -> Ink:
    """Return the ink without lines that run across a sheet on the page, ``[H, W]``."""
    box = tuple(slice(*span) for span in spans_of(sheet))
    ink = ink.copy()
    ink[box] = without_rules(ink[box], sheet=sheet[box])
    return ink


def without_rules(ink: Ink, *, sheet: Mask | None = None, least_down: int = 1, reach: int = REACH) -> Ink:
    """Return the ink without lines that run across the whole page, from side to side or from top to bottom.

    Args:
        sheet: the pixels that a line has to cross, ``[H, W]``. None is all of them.
        least_down: fewer lines from top to bottom stay.
        reach: takes the place of ``REACH`` for lines from side to side.
    """
    if min(ink.shape) < LEAST_RULED:
        return ink
    across = _rules_of(ink > 0, sheet)
    down = _rules_of((ink > 0).T, None if sheet is None else sheet.T)
    if len(down) < least_down or (not across and len(down) <= SIDES_OF_BOX and _are_ones(ink, down)):
        down = []
    if not across and not down:
        return ink
    ink = ink.copy()
    # The strength of the rule through each pixel, and around it, for both directions; 0 elsewhere.
    strengths = np.zeros((2, *ink.shape), ink.dtype)
    for rule in across:
        _erase(ink, rule, strengths[0], reach)
    for rule in down:
        _erase(ink.T, rule, strengths[1].T, REACH)
    # In a photo, rules are blurred, and thicker where they cross. There, strength decides what is left of them.
    ink[strengths.all(axis=0) & (ink <= STRONGER * strengths.max(axis=0))] = 0
    return ink


def _are_ones(ink: Ink, down: Sequence[_Rule]) -> bool:
    """Return whether lines from top to bottom are 1s: the page is cropped to digits, and others are about as high."""
    rest = ink.copy()
    for rule in down:
        _erase(rest.T, rule, np.zeros_like(rest.T), REACH)
    pieces = find_pieces(rest)
    return bool(pieces) and max(pieces, key=attrgetter("mass")).height >= AS_HIGH * len(ink)


def _rules_of(mask: Mask, sheet: Mask | None = None) -> list[_Rule]:
    """Return the rules that run from left to right, without those that may be sides of a box."""
    # Most pages have wide margins, and so no rule of any slope.
    if sheet is None and _covered(mask.max(axis=0)).mean() < IN_STRIPS:
        return []
    masks = [mask] if sheet is None else [mask, sheet]
    rules: list[_Rule] = []
    for shear in SHEARS:
        found = _find_rules(*(_sheared(some, shear) if shear else some for some in masks))
        new = [rule for rule in found if all(abs(rule.row - other.row) > SAME_RULE for other in rules)]
        rules += [_Rule(rule.row, rule.slope + shear) for rule in new]
    return rules if len(rules) > SIDES_OF_BOX else [rule for rule in rules if _reaches_border(rule, mask)]


def _sheared(mask: Mask, slope: float) -> Mask:
    """Return the mask with its columns moved up or down, so that a line of this slope becomes level."""
    height, width = mask.shape
    sheared = np.zeros(mask.shape, bool)
    for left in range(0, width, BLOCK):
        down = round(slope * (width / 2 - left - BLOCK / 2))
        columns = slice(left, left + BLOCK)
        sheared[max(0, down) : max(0, height + down), columns] = mask[max(0, -down) : max(0, height - down), columns]
    return sheared


def _find_rules(mask: Mask, sheet: Mask | None = None) -> list[_Rule]:
    """Return the lines that run from left to right, or nearly so."""
    height, width = mask.shape
    # A rule may lie on one row or the next in the course of a strip.
    near = mask.copy()
    near[1:] |= mask[:-1]
    near[:-1] |= mask[1:]
    covered = _covered(near)
    on_sheet = np.ones(covered.shape, bool) if sheet is None else _covered(sheet, 1.0)
    covered &= on_sheet
    fewest = max(LEAST_CROSSED, int(np.count_nonzero(on_sheet, axis=1).min()))
    if np.count_nonzero(covered.any(axis=0)) < IN_STRIPS * fewest:
        return []
    edges = _edges_of_strips(width)
    centres = (edges[:-1] + edges[1:]) / 2 - width / 2
    shares = []
    for slope in SLOPES:
        rows = np.arange(height)[:, None] + np.rint(slope * centres).astype(int)
        inside = (rows >= 0) & (rows < height)
        places = np.clip(rows, 0, height - 1), np.arange(STRIPS)
        crossed = np.count_nonzero(on_sheet[places] | ~inside, axis=1)
        shares.append(np.count_nonzero(covered[places] & inside, axis=1) / np.maximum(crossed, LEAST_CROSSED))
    share = np.array(shares)
    # Neighbouring rows and slopes find the same rule: take the middle of them.
    found = np.flatnonzero(share.max(axis=0) >= IN_STRIPS)
    rules = []
    for rows_of_rule in np.split(found, np.flatnonzero(np.diff(found) > 2) + 1) if len(found) else []:
        some = share[:, rows_of_rule]
        row, slope = (np.median(places) for places in np.nonzero((some == some.max()).T))
        rules.append(_Rule(int(rows_of_rule[0] + row), float(SLOPES[int(slope)])))
    return rules


def _covered(mask: Mask, least: float = IN_STRIP) -> Mask:
    """Return for each row and strip whether at least this share of the strip is part of the mask."""
    edges = _edges_of_strips(mask.shape[-1])
    covered: Mask = np.add.reduceat(mask, edges[:-1], axis=-1, dtype=np.int32) >= least * np.diff(edges)
    return covered


def _edges_of_strips(width: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, width, STRIPS + 1).astype(int)


def _reaches_border(rule: _Rule, mask: Mask) -> bool:
    """Return whether a rule has ink at the left or at the right border of the page."""
    width = mask.shape[1]
    for side, columns in ((-1, slice(0, BORDER)), (1, slice(width - BORDER, width))):
        row = round(rule.row + side * rule.slope * width / 2)
        if mask[max(0, row - BORDER) : max(0, row + BORDER), columns].any():
            return True
    return False


def _erase(page: Ink, rule: _Rule, strength: Ink, reach: int) -> None:
    """Erase the ink of a rule from ``page`` where it is not thicker than the rule.

    Args:
        strength: receives the strength of the rule, ``[H, W]``, in all pixels that may belong to the rule.
    """
    height, width = page.shape
    columns = np.arange(width)
    middle = np.rint(rule.row + rule.slope * (columns - width / 2)).astype(int)
    rows = middle + np.arange(-reach, reach + 1)[:, None]
    inside = (rows >= 0) & (rows < height)
    rows = np.clip(rows, 0, height - 1)
    inked = (page[rows, columns] > 0) & inside
    inked[reach] |= inked[reach - 1] | inked[reach + 1]
    up = np.logical_and.accumulate(inked[reach::-1], axis=0)
    down = np.logical_and.accumulate(inked[reach:], axis=0)
    thickness = up.sum(axis=0) + down.sum(axis=0) - 1
    some = thickness[thickness > 0]
    if not len(some):
        return
    usual = float(np.median(some))
    if usual > reach / 2:
        return
    thin = thickness <= max(THICKER * usual, usual + 1)
    half = math.ceil(usual / 2) + 1
    band = rows[reach - half : reach + half + 1]
    strength[band, columns] = np.median(page[band, columns].max(axis=0)[thin & (thickness > 0)])
    run = np.concatenate([up[:0:-1], down])
    chosen = run & thin & inside
    page[rows[chosen], np.broadcast_to(columns, rows.shape)[chosen]] = 0

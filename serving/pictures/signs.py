"""Find signs between the digits of a line: slashes, bars and brackets, and the signs of ``small_signs``.

A slash, a bar and a bracket are single strokes, as a 1 is. What tells them apart is that they go beyond the digits
beside them, above and below; a bracket is bent, too, and seldom alone. None of this is certain, so
``serving/inference/path.py`` weighs it against the digits that the network reads in the same ink.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.pictures.ink import Ink, spans_of
from serving.pictures.small_signs import is_small_sign, is_solid, widths_of

# All lengths are shares of the height of the line, if nothing else is said.
# Ink that is weaker than this share of the strongest is the edge of a stroke.
INKED = 0.25
# Ink between two gaps that is at least this high says where the digits begin and end.
TALL = 0.5
# No sign is higher or wider than this.
LARGEST_SIGN = 2.5
# A sign that is a single stroke is at least this high.
LEAST_STROKE = 0.8
# A sign that is a single stroke has at least this many rows of pixels.
LEAST_ROWS = 8
# The middle of a stroke lies between these shares of its height. The ends of a square bracket are wider.
MIDDLE = 0.15, 0.85
# No row of the middle of a stroke is wider than this.
WIDEST = 0.3
# The middle of a stroke deviates from an even curve by at most this share of the stroke's length.
UNEVEN = 0.02
# The widths of the two ends of a stroke differ by at most this. The upper end of a 7 is wider than its lower end.
ENDS_DIFFER = 0.2
# Two strokes that are bent towards each other by more than this share of their length may be brackets.
BENT = 0.035
# A stroke is compared with this many digits on each side of it.
NEIGHBOURS = 2
# The length by which a stroke goes beyond the digits counts as at most this.
MOST_BEYOND = 0.3
# The bend of a stroke, a share of its length, counts as at most this.
MOST_BENT = 0.15
# The lean of a stroke beyond UPRIGHT, in columns per row, counts as at most this.
MOST_LEAN = 0.3
# Most digits lean by less than this, in columns per row. A slash leans by about LEANING more.
UPRIGHT, LEANING = 0.18, 0.15
# Two slashes of a line differ by about this in height, lean and bend.
ALIKE = 0.08, 0.08, 0.03
# Digits before, between and after the two slashes of a date.
DATES = frozenset(itertools.product((1, 2), (1, 2), (2, 4))) | frozenset(itertools.product((4,), (1, 2), (1, 2)))
# Slashes of a date may be shorter than the digits by less than this, both ends together.
SHORTER = 0.1
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Blob(NamedTuple):
    """The ink between two neighbouring gaps of a line."""

    first: int
    """The first part."""
    end: int
    """The part after the last one."""
    ink: Ink | None
    """``[H, W]``: the box around the ink, without other ink. None if it is higher or wider than ``LARGEST_SIGN``."""
    top: float
    """Top and bottom of the ink in the line."""
    bottom: float


class Sign(NamedTuple):
    """Ink that may be a sign instead of digits."""

    first: int
    """The first part."""
    end: int
    """The part after the last one."""
    properties: tuple[float, ...]
    """Those of a stroke, of :func:`_properties_of`; none for a small sign."""


class Stroke(NamedTuple):
    """Ink that is a single stroke from top to bottom."""

    height: float
    lean: float
    """Columns to the right per row up."""
    bend: float
    """How far its ends lie to the right of its middle, as a share of its length."""


def find_signs(blobs: Iterable[Blob], height: float) -> list[Sign]:
    """Return the signs of a line.

    Args:
        blobs: all ink of the line, from left to right.
        height: of the digits of the line, in pixels of the ink.
    """
    signs: list[Sign] = []
    places: list[Blob] = []
    strokes: dict[int, Stroke] = {}
    for at, blob in enumerate(blobs):
        # The ink of one is freed before that of the next is made.
        places.append(blob._replace(ink=None))
        if blob.ink is None:
            continue
        ink = _without_edges(blob.ink)
        stroke = _stroke_of(ink, blob.bottom - blob.top, height)
        if stroke:
            strokes[at] = stroke
        elif is_small_sign(ink > 0, height):
            signs.append(Sign(blob.first, blob.end, ()))
    for at, properties in _properties_of(places, strokes).items():
        signs.append(Sign(places[at].first, places[at].end, properties))
    return signs


def _properties_of(blobs: Sequence[Blob], strokes: Mapping[int, Stroke]) -> dict[int, tuple[float, ...]]:
    """Return the properties of each stroke that may be a sign, by its index among the blobs.

    They are 1, how far the stroke goes beyond the digits at the one end and at the other, its lean, its bend, how much
    the digits differ in size, and the properties of :func:`_pairs`.

    Args:
        strokes: by their index too.
    """
    beyond, spread = _beyond(blobs, strokes)
    if not beyond:
        return {}
    shapes = np.array([strokes[at] for at in beyond])
    ends = np.sort(np.array([*beyond.values()]), axis=1)
    tall = np.cumsum([0, *(blob.bottom - blob.top >= TALL for blob in blobs)])
    pairs = _pairs(np.array([*beyond]), tall, shapes, ends.sum(axis=1))
    ends = ends.clip(-MOST_BEYOND, MOST_BEYOND)
    found: dict[int, tuple[float, ...]] = {}
    for at, (_, lean, bend), both, pair in zip(beyond, shapes, ends, pairs, strict=True):
        # A line neither begins nor ends with a slash, a bar or one bracket alone.
        if at in (0, len(blobs) - 1) and pair[0] <= BENT:
            continue
        lean, bend = min(MOST_LEAN, max(0.0, lean - UPRIGHT)), min(MOST_BENT, abs(bend))
        found[at] = 1.0, *both.tolist(), float(lean), float(bend), spread, *pair.tolist()
    return found


def _pairs(places: Integers, tall: Integers, shapes: Floats, beyond: Floats) -> Floats:
    """Return how much each stroke and another one look like a pair of brackets or of slashes, ``[N, 4]``.

    The columns are: how much both are bent towards each other; how far both such strokes go beyond the digits; how much
    both lean if they stand where a date has its slashes; and how far both of these go beyond the digits if they are
    alike. Each counts as the lesser of the two.

    Args:
        places: the index of each stroke among the blobs of the line.
        tall: the number of blobs before each blob that are as high as digits, and that of all.
        shapes: those of the strokes, ``[N, 3]``.
        beyond: how far each goes beyond the digits, at both ends together.
    """
    apart = abs(places[:, None] - places) > 1
    lean, bend = shapes[:, 1], shapes[:, 2]
    opening = (bend[:, None] > 0) & (bend < 0) & (places[:, None] < places)
    bent = np.where(apart & (opening | opening.T), _lesser(abs(bend)), 0)
    beyond = _lesser(beyond.clip(-SHORTER, 2 * MOST_BEYOND))
    alike = np.exp(-(((shapes[:, None] - shapes) / ALIKE) ** 2).sum(axis=2) / 2)
    leaning = _lesser(((lean - UPRIGHT) / LEANING).clip(0, 1))
    dated = _are_of_date(tall[places], int(tall[-1]))
    columns = (
        bent.clip(0, MOST_BENT),
        (bent > BENT) * beyond.clip(0),
        dated * leaning,
        dated * alike * (beyond + SHORTER),
    )
    return np.stack([column.max(axis=1) for column in columns], axis=1)


def _are_of_date(before: Integers, count: int) -> npt.NDArray[np.bool_]:
    """Return whether each two strokes have places of the slashes of a date, ``[N, N]``.

    Args:
        before: the number of digits and strokes before each stroke.
        count: the number of all.
    """
    between, after = before - before[:, None] - 1, count - before - 1
    is_date = np.zeros(between.shape, bool)
    for first, middle, last in DATES:
        is_date |= (before[:, None] == first) & (between == middle) & (after == last)
    return is_date | is_date.T


def _lesser(values: Floats) -> Floats:
    """Return the lesser of each two values, ``[N, N]``."""
    return np.minimum(values[:, None], values)


def _beyond(blobs: Sequence[Blob], strokes: Collection[int]) -> tuple[dict[int, tuple[float, float]], float]:
    """Return how far each stroke goes beyond the digits beside it, above and below, and how much their sizes differ."""
    tall = [at for at, blob in enumerate(blobs) if blob.bottom - blob.top >= TALL]
    digits = [at for at in tall if at not in strokes] or tall
    tops, bottoms = np.array([blobs[at].top for at in digits]), np.array([blobs[at].bottom for at in digits])
    found = {}
    for at in strokes:
        place = bisect.bisect(digits, at)
        near = [i for i in range(max(0, place - NEIGHBOURS), min(len(digits), place + NEIGHBOURS)) if digits[i] != at]
        if near:
            top, bottom = float(np.median(tops[near])), float(np.median(bottoms[near]))
            found[at] = top - blobs[at].top, blobs[at].bottom - bottom
    return found, float(tops.std() + bottoms.std()) if digits else 0.0


def _stroke_of(ink: Ink, high: float, height: float) -> Stroke | None:
    """Return the ink as a single stroke from top to bottom, or None if it is not one.

    Args:
        high: its height, as a share of that of the line.
        height: of the digits of the line, in pixels of the ink.
    """
    if high < LEAST_STROKE:
        return None
    mask = ink > 0
    rows, columns = mask.shape
    if rows < LEAST_ROWS or not mask.any(axis=1).all():
        return None
    widths = widths_of(mask)
    middle = slice(*(round(share * rows) for share in MIDDLE))
    if widths[middle].max() > WIDEST * height or not is_solid(mask[middle]):
        return None
    if abs(int(widths[: middle.start].max()) - int(widths[middle.stop :].max())) > ENDS_DIFFER * height:
        return None
    centres = ink @ np.arange(columns) / ink.sum(axis=1)
    lean = -_slope(centres)
    length = rows * math.hypot(1, lean)
    if _unevenness(centres[middle]) > UNEVEN * length:
        return None
    ends = (centres[: middle.start].mean() + centres[middle.stop :].mean()) / 2
    bend = float(ends - centres[round(0.4 * rows) : round(0.6 * rows)].mean()) / length
    return Stroke(high, lean, bend)


def _slope(values: Floats) -> float:
    """Return how much the values rise per step (regression)."""
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    return float(steps @ values / (steps @ steps))


def _unevenness(values: Floats) -> float:
    """Return the standard deviation of the values from a parabola. ``np.polyfit`` takes five times as long."""
    steps = np.linspace(-1, 1, len(values))
    rest = values - values.mean()
    for curve in (steps, steps * steps - (steps * steps).mean()):
        rest = rest - (curve @ rest) / (curve @ curve) * curve
    return float(np.sqrt(np.mean(rest * rest)))


def _without_edges(ink: Ink) -> Ink:
    """Return the ink without the weak edges of its strokes, and without rows and columns at its border without ink."""
    ink = np.where(ink > INKED * ink.max(), ink, 0)
    rows, columns = (slice(*span) for span in spans_of(ink))
    return ink[rows, columns]

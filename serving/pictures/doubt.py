"""Tell from a picture how little it looks like ink on paper, before a network sees the digit in it.

A network gets 28x28 grey pixels, and in them an icon, a photo of an animal or the corner of a window may look like a
digit. In the picture they look different: pen and paper have two colours, and both are even. None of this is certain: a
pen may have two colours, and paper may lie in a shadow. So the doubt is a number, which is added to the novelty score.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from serving.pictures.close_up import CloseUp, Place, place_of
from serving.pictures.ink import STROKE, Ink, spans_of, strongest
from serving.pictures.morphology import grey_dilation, grey_erosion
from serving.pictures.page import Colours, Mask

# Paper around the digit that is looked at, as a share of the longer side of the digit, and in pixels.
MARGIN, LEAST_MARGIN = 0.15, 2
# Pixels in a window of this side around a pixel of ink may be the blurred edge of a stroke.
BLUR = 5
# The colours of a place are looked at on at most this many pixels a side.
SAMPLE_SIDE = 40
# Fewer pixels than this say nothing about the paper or the ink.
FEW = 8

# What benchmarks/fit_doubt.py has fitted. A size counts as log(1 + size / scale).
SCALES = {"colours": 1.0, "paper": 15.0, "ink": 1.0, "rest": 0.05}
WEIGHTS = {"colours": 2.27, "paper": 0.79, "ink": 7.42, "rest": 0.55}
# A sum up to this is usual for digits, and is no doubt.
USUAL = 0.89


class Properties(NamedTuple):
    """What makes a picture unlike ink on paper. Each is 0 for black ink on even white paper."""

    colours: float = 0.0
    """How far the colours are from mixtures of three colours, in levels (standard deviation)."""
    paper: float = 0.0
    """Standard deviation of the paper around the digit, in grey levels."""
    ink: float = 0.0
    """Standard deviation of the ink within the strokes, as a share of its mean."""
    rest: float = 0.0
    """The other ink on the page, as a share of the digit's."""

    def scaled(self) -> list[float]:
        """Return the properties as they count."""
        return [math.log1p(value / SCALES[name]) for name, value in self._asdict().items()]

    def doubt(self) -> float:
        """Return the number to add to the novelty score."""
        weighted = (weight * value for weight, value in zip(WEIGHTS.values(), self.scaled(), strict=True))
        return max(0.0, sum(weighted) - USUAL)


def properties_of(close_up: CloseUp, ink: Ink, colours: Colours | None) -> Properties:
    """Return the properties of a digit on a page.

    Args:
        close_up: the part of the page with the digit.
        ink: that of the digit alone, of the same shape.
        colours: of the whole picture; None if it is grey.
    """
    rest = float(np.maximum(close_up.ink - ink, 0).sum() / ink.sum())
    least = STROKE * strongest(ink)
    rows, columns = _around(ink > least)
    ink, page = ink[rows, columns], close_up.page[rows, columns]
    within = ink[grey_erosion((ink > least).astype(np.uint8), 3) > 0]
    uneven = float(within.std() / within.mean()) if within.size >= FEW else 0.0
    paper = page[grey_dilation((ink > 0).astype(np.uint8), BLUR) == 0]
    spread = float(paper.std()) if paper.size >= FEW else 0.0
    place = place_of(close_up.ink.shape, rows, columns).within(close_up.place)
    return Properties(0.0 if colours is None else _beyond_three(colours, place), spread, uneven, rest)


def _around(strokes: Mask) -> tuple[slice, slice]:
    """Return the rows and columns of the strokes and of some paper around them."""
    spans = spans_of(strokes)
    margin = max(LEAST_MARGIN, round(MARGIN * max(end - begin for begin, end in spans)))
    rows, columns = (
        slice(max(0, begin - margin), min(size, end + margin))
        for (begin, end), size in zip(spans, strokes.shape, strict=True)
    )
    return rows, columns


def _beyond_three(colours: Colours, place: Place) -> float:
    """Return how far the colours of a place are from mixtures of three colours.

    Paper and ink of any colour make two. The third is that of a shadow, of a second lamp or of a highlighter. Mixtures
    of three colours lie in a plane through red, green and blue. This is the standard deviation at a right angle to it.
    """
    height, width = colours.shape[:2]
    top, left = int(place.top * height), int(place.left * width)
    bottom, right = math.ceil(place.bottom * height), math.ceil(place.right * width)
    step = 1 + max(bottom - top, right - left) // SAMPLE_SIDE
    pixels = colours[top:bottom:step, left:right:step].reshape(-1, 3).astype(np.float32)
    different = pixels - np.median(pixels, axis=0)
    # A matrix product may start threads, which takes longer than the product.
    squares = np.linalg.eigvalsh(np.einsum("ni,nj->ij", different, different) / len(different))
    return math.sqrt(max(0.0, float(squares[0])))

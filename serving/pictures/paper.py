"""Estimate the brightness of the paper around and under dark ink, also where a shadow falls on it.

The window of the estimate is broader than the strokes and narrower than a shadow: the window sees paper everywhere, and
the shadow of a hand or a phone is part of the paper.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.pictures.ink import LEAST_CONTRAST, Ink, breadth_of, strongest
from serving.pictures.morphology import grey_closing
from serving.pictures.page import Grey, reduce

# Side of the window, as a share of the page's shorter side, if the strokes are not known yet. No stroke is broader.
WIDEST = 0.33
# The strokes are measured on a page whose longer side has this many pixels.
STROKE_SIDE = 256
# Strokes are the ink that is stronger than this share of the strongest. A shadow is weaker.
STRONG = 0.6
# Side of the window in strokes. Where strokes cross, ink is broader than one stroke.
STROKES = 4
# Share of the strongest pixels that are left out when the contrast of the ink is measured.
GLARE = 0.002
# Pixels from which the statistics of the page are taken.
SAMPLE = 1 << 17
# Paper is smooth, so some of its pixels are enough. Of them, the longer side of the page has about this many.
COARSE = 192

Bytes = npt.NDArray[np.uint8]


def paper_of(page: Bytes) -> Bytes:
    """Return the brightness of the paper at each pixel of a page. The ink must be darker than the paper."""
    return grey_closing(page, _window(page))


def widest_window(page: Grey | Bytes) -> int:
    """Return the side of the window, in pixels of the page, if the strokes are not known."""
    shorter: int = min(page.shape)
    return max(3, round(WIDEST * shorter))


def _window(page: Bytes) -> int:
    """Return the side of the window, in pixels of the page."""
    small = np.rint(reduce(page.astype(np.float32), STROKE_SIDE)).astype(np.uint8)
    widest = widest_window(small)
    ink = (grey_closing(small, widest) - small).astype(np.float32)
    window: int = min(widest, round(STROKES * (1 + breadth_of(ink > STRONG * contrast(ink)))))
    factor: float = max(page.shape) / max(small.shape)
    return max(3, round(factor * window))


def contrast(ink: Ink) -> float:
    """Return the contrast of the ink without the few strongest pixels, which may be glare or dirt."""
    some = ink[:: stride(ink)]
    some = some[some > LEAST_CONTRAST]
    return min(strongest(ink), float(np.quantile(some, 1 - GLARE))) if len(some) else 0.0


def stride(values: Ink) -> int:
    """Return the distance of the rows that are enough for a statistic of all values."""
    return max(1, values.size // SAMPLE)


def paper_stride(page: Bytes) -> int:
    """Return the distance of the rows, and of the columns, that are enough to see the paper."""
    longest: int = max(page.shape)
    return max(1, longest // COARSE)

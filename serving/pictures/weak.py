"""Tell the weak ink of shadows and stains from the ink of strokes."""

from __future__ import annotations

import numpy as np

from serving.pictures.ink import Ink, strongest
from serving.pictures.morphology import grey_dilation
from serving.pictures.paper import STRONG

# A page may have a shadow if less than this share of its ink is strong.
MOSTLY_STRONG = 0.4

# Pixels in a window of this side around a pixel of a strong stroke may be the stroke's edge, which is weak.
EDGE = 5
# A page has weak strokes beside strong ones if this share of its ink is weak and no edge of a strong stroke.
WEAK = 0.1


def is_mostly_weak(ink: Ink) -> bool:
    """Return whether most of the ink is weak, as the ink of a shadow is."""
    return bool(np.count_nonzero(ink > STRONG * strongest(ink)) < MOSTLY_STRONG * np.count_nonzero(ink))


def without_weak_strokes(ink: Ink) -> Ink | None:
    """Return the ink without what is weaker than its strongest strokes, such as a stain, or None if that is little."""
    strong = ink > STRONG * strongest(ink)
    near = grey_dilation(strong.astype(np.uint8), EDGE) > 0
    is_stained = np.count_nonzero(ink[~near]) >= WEAK * np.count_nonzero(ink)
    return np.where(near, ink, 0) if is_stained else None

"""Rules are erased from the ink of a page, also where they cross, and strokes stay."""

from __future__ import annotations

import numpy as np

from serving.pictures.rules import without_rules

RULE, EDGE, STROKE = 90, 20, 250


def squared():
    """Return the ink of squared paper in a photo, where blur makes the rules thicker around their crossings."""
    ink = np.zeros((300, 400), np.float32)
    for row in range(10, 300, 40):
        for column in range(10, 400, 40):
            ink[row - 1 : row + 3, column - 1 : column + 3] = EDGE
    for page in (ink, ink.T):
        for row in range(10, len(page), 40):
            page[row : row + 2] = RULE
    return ink


def test_rules_are_erased_where_they_cross():
    assert not without_rules(squared()).any()


def test_stroke_through_a_crossing_stays():
    ink = squared()
    for row in range(110, 160):
        ink[row, row + 76 : row + 84] = STROKE
    assert np.array_equal(without_rules(ink) == STROKE, ink == STROKE)

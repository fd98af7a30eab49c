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


def page_with_a_line(height):
    """Return the ink of a line from top to bottom beside a 0 of this height."""
    ink = np.zeros((100, 160), np.float32)
    ink[:, 30:34] = STROKE
    top = (100 - height) // 2
    ink[top : top + height, 80:120] = STROKE
    ink[top + 6 : top + height - 6, 86:114] = 0
    return ink


def test_line_from_top_to_bottom_is_a_one_on_a_page_that_is_cropped_to_its_digits():
    assert np.array_equal(without_rules(page_with_a_line(96)), page_with_a_line(96))
    margin_line = page_with_a_line(40)
    digit = margin_line.copy()
    digit[:, :40] = 0
    assert np.array_equal(without_rules(margin_line), digit)

"""Ink beside the digit or around it is left out, and what may be a second digit stays."""

from __future__ import annotations

import numpy as np
import pytest

from serving.pictures.neighbours import Ring, rings_of, without_border, without_neighbours
from serving.pictures.pieces import find_pieces


def page(**rectangles):
    """Return ink of 80x80 pixels with rectangles: top, left, bottom, right, strength."""
    ink = np.zeros((80, 80), np.float32)
    for top, left, bottom, right, strength in rectangles.values():
        ink[top:bottom, left:right] = strength
    return ink


DIGIT = (25, 36, 55, 42, 200)


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param((30, 0, 50, 6, 90), id="weak ink at the border"),
        pytest.param((20, 0, 60, 20, 200), id="broad ink at the border"),
        pytest.param((0, 0, 8, 5, 200), id="corner of a shadow"),
        pytest.param((60, 5, 65, 10, 200), id="small piece far away"),
        pytest.param((58, 20, 63, 60, 200), id="line under the digit"),
        pytest.param((18, 24, 21, 52, 200), id="line over the digit"),
        pytest.param((2, 4, 22, 24, 200), id="filled square with more ink than the digit"),
        pytest.param((2, 54, 12, 76, 200), id="button, wider than high"),
    ],
)
def test_ink_beside_the_digit_is_left_out(beside):
    ink = page(beside=beside, digit=DIGIT)
    np.testing.assert_array_equal(without_neighbours(ink, find_pieces(ink)), page(digit=DIGIT))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((25, 0, 55, 6, 200), id="second digit at the border"),
        pytest.param((25, 60, 55, 66, 200), id="second digit inside"),
        pytest.param((20, 44, 23, 50, 200), id="part of the digit"),
        pytest.param((20, 36, 22, 43, 200), id="flag of the digit"),
        pytest.param((38, 20, 41, 34, 200), id="stroke beside the digit"),
    ],
)
def test_what_may_belong_to_a_number_or_to_the_digit_stays(other):
    ink = page(other=other, digit=DIGIT)
    assert without_neighbours(ink, find_pieces(ink)) is None


def test_a_small_second_digit_stays():
    ink = page(small=(12, 50, 24, 60, 200), eye=(14, 52, 22, 58, 0), digit=DIGIT)
    assert without_neighbours(ink, find_pieces(ink)) is None


CUT = (30, 0, 55, 8, 200)


@pytest.mark.parametrize(
    ("outer", "is_left_out"),
    [
        pytest.param({"left": CUT, "right": (22, 71, 52, 80, 200)}, True, id="narrow parts on both sides"),
        pytest.param({"left": CUT, "corner": (50, 50, 80, 80, 60)}, True, id="narrow part and a dark corner"),
        pytest.param(
            {"left": CUT, "right": (25, 60, 55, 80, 200), "hole": (29, 64, 51, 76, 0)},
            False,
            id="whole digit on one side",
        ),
    ],
)
def test_what_the_border_cuts_off_is_left_out_but_no_whole_digit(outer, is_left_out):
    ink = page(**outer, digit=DIGIT)
    alone = without_border(ink, find_pieces(ink))
    if is_left_out:
        np.testing.assert_array_equal(alone, page(digit=DIGIT))
    else:
        assert alone is None


def framed(breadth):
    outer = 20 - breadth, 20 - breadth, 60 + breadth, 60 + breadth
    return page(frame=(*outer, 200), room=(20, 20, 60, 60, 0), digit=DIGIT)


def test_frame_is_a_ring_but_a_sheet_is_not():
    thin, sheet = framed(2), framed(18)
    assert len(rings_of(find_pieces(thin))) == 1
    np.testing.assert_array_equal(without_neighbours(thin, find_pieces(thin)), page(digit=DIGIT))
    assert rings_of(find_pieces(sheet)) == []


def runs_enclose(ring, piece):
    """The definition of Ring.encloses, which looks at every run of the ring."""
    row, column = (piece.top + piece.bottom) // 2, (piece.left + piece.right) // 2
    sides = (
        any(y == row and end <= piece.left for y, _, end in ring.runs),
        any(y == row and start >= piece.right for y, start, _ in ring.runs),
        any(y < piece.top and start <= column < end for y, start, end in ring.runs),
        any(y >= piece.bottom and start <= column < end for y, start, end in ring.runs),
    )
    return ring.contains(piece) and all(sides)


def test_ring_encloses_what_its_runs_enclose():
    random, found = np.random.default_rng(0), []
    for _ in range(40):
        ink = (random.random((40, 40)) < random.uniform(0.2, 0.6)).astype(np.float32)
        ink[5, 5:35] = ink[34, 5:35] = ink[5:35, 5] = ink[5:35, 34] = 1
        pieces = find_pieces(ink)
        for ring in sorted(pieces, key=lambda piece: piece.area)[-4:]:
            found += [(Ring(ring).encloses(piece), runs_enclose(ring, piece)) for piece in pieces]
    assert {expected for _, expected in found} == {True, False}
    assert all(fast == expected for fast, expected in found)

"""A small sheet on the page is found, whatever lies beside it, and a broad stroke is no sheet."""

from __future__ import annotations

import numpy as np
import pytest

from serving.pictures import sheet
from serving.pictures.pieces import find_pieces
from serving.pictures.sheet import is_sheet, on_small_sheet


def desk_with_note(digit=20):
    """Return a page with a note, a stroke of ``digit`` on it, and a pen beside it."""
    page = np.full((120, 160), 90, np.float32)
    page[30:90, 40:100] = 230
    page[45:75, 65:72] = digit
    page[20:100, 130:136] = 200
    return page


def covered(rows, columns, shade):
    """Return the page with an empty note, a part of which is covered."""
    page = desk_with_note(digit=230)
    page[rows, columns] = shade
    return page


def test_note_on_a_desk_is_cut_out():
    found = on_small_sheet(desk_with_note())
    assert found is not None
    alone, box = found
    np.testing.assert_array_equal(alone, desk_with_note()[30:90, 40:100])
    height, width = desk_with_note().shape
    assert box == (30 / height, 40 / width, 90 / height, 100 / width)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(np.where(desk_with_note() == 230, 90, desk_with_note()), id="no note"),
        pytest.param(np.full((2, 192), 200, np.float32), id="narrow page"),
        pytest.param(desk_with_note(digit=230), id="empty note"),
        pytest.param(desk_with_note(digit=205), id="note with a crease"),
        pytest.param(covered(slice(0, 80), slice(65, 72), 20), id="note with a pen on it"),
        pytest.param(covered(slice(30, 90), slice(40, 60), 120), id="note with a shadow on one side"),
    ],
)
def test_page_without_writing_on_a_note_has_no_sheet(page):
    assert on_small_sheet(page) is None


@pytest.mark.parametrize(("period", "is_searched"), [(4, False), (40, True)])
def test_page_with_many_steps_is_not_searched_for_a_sheet(monkeypatch, period, is_searched):
    page = np.full((160, 160), 90, np.float32)
    page[:, np.arange(160) % period < period // 2] = 230
    searched = []
    monkeypatch.setattr(sheet, "find_pieces", lambda ink: searched.append(ink) or find_pieces(ink))
    on_small_sheet(page)
    assert bool(searched) == is_searched


def test_only_the_heaviest_piece_is_compared_with_a_sheet(monkeypatch):
    """Each comparison takes as long as thousands of pixels, and a page may have a thousand specks."""
    page = desk_with_note()
    page[::8, 2:30:8] = 230
    compared = []
    monkeypatch.setattr(sheet, "is_sheet", lambda piece: compared.append(piece) or True)
    assert on_small_sheet(page) is not None
    assert len(compared) == 1


Y, X = np.mgrid[:100, :100]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param((abs(X - 50) < 30) & (abs(Y - 50) < 20), True, id="rectangle"),
        pytest.param(np.hypot(X - 50, Y - 50) < 30, True, id="disc"),
        pytest.param(abs(np.hypot(X - 50, Y - 50) - 30) < 10, False, id="ring"),
        pytest.param((X < 30) | (Y > 70), False, id="broad L"),
        pytest.param((abs(X - 50) < 10) & (abs(Y - 50) < 30), False, id="stroke"),
    ],
)
def test_sheet_is_broad_full_and_convex(shape, expected):
    [piece] = find_pieces(shape.astype(np.float32))
    assert is_sheet(piece) == expected

"""Broad ink is recognised, the short cut of its test changes no result, and ink in a shadow is not weaker."""

from __future__ import annotations

import numpy as np
import pytest

from serving.pictures.close_up import find_close_up
from serving.pictures.ink import TOO_BROAD, is_broad
from serving.pictures.morphology import grey_erosion


def test_ink_is_too_broad_wherever_it_lies():
    """Only some rows are looked at first. They must meet each broad part, also at the edges and on narrow pages."""
    random = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        shape = tuple(random.integers(4, 97, 2))
        ink = np.zeros(shape, np.float32)
        top, left = (int(random.integers(-size // 3, size)) for size in shape)
        side = max(1, round(TOO_BROAD * max(shape)) + int(random.integers(-3, 4)))
        ink[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = 200
        expected = grey_erosion(ink, round(TOO_BROAD * max(shape))).max() > 50
        assert is_broad(ink, 50) == expected
        found += expected
    assert 50 < found < 350


@pytest.mark.parametrize("turn", range(4))
def test_dark_ink_in_a_shadow_is_as_strong_as_outside(turn):
    page = np.full((90, 90), 230, np.float32)
    page[25:65, 42:48] = 60
    page[45:] *= 0.5
    ink = find_close_up(np.rot90(page, turn).copy()).ink
    rows = np.rot90(ink, -turn).max(axis=1)
    stroke = np.flatnonzero(rows > 0.8 * rows.max())
    assert len(stroke) == stroke[-1] - stroke[0] + 1 >= 38


Y, X = np.mgrid[-1:1:90j, -1:1:90j]


@pytest.mark.parametrize(
    "light",
    [pytest.param(70 - 12 * (Y * Y + X * X), id="spot of light"), pytest.param(55 - 8 * (X + Y), id="sloping light")],
)
def test_ink_on_a_dark_photo_is_found(light):
    """The shade of the paper varies by half of the contrast of the ink."""
    page = light + np.random.default_rng(0).normal(0, 2, light.shape)
    page[30:60, 42:48] = 20
    ink = find_close_up(page.astype(np.float32)).ink
    rows, columns = np.nonzero(ink > 0.5 * ink.max())
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (30, 6)


@pytest.mark.parametrize("side", [90, 300])
@pytest.mark.parametrize("middle", [(0, 0), (0.3, -0.3)], ids=["in the middle", "beside the digit"])
@pytest.mark.parametrize("ink", [20, 60])
def test_spot_of_a_flash_is_no_ink(side, middle, ink):
    """The page around the spot is darker than the spot, and brighter than the ink. The strokes divide the spot."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    light = 0.4 + 0.6 * np.exp(-((y - middle[0]) ** 2 + (x - middle[1]) ** 2) / 0.4)
    strokes = (np.abs(y) < 0.4) & ((np.abs(x) < 0.05) | (np.abs(np.abs(x) - 0.3) < 0.05))
    page = np.where(strokes, ink, 220) * light + np.random.default_rng(0).normal(0, 2, light.shape)
    close_up = find_close_up(page.astype(np.float32))
    strong = close_up.ink > 0.5 * close_up.ink.max()
    assert close_up.page[strong].mean() < 100
    assert strong.mean() < 0.25

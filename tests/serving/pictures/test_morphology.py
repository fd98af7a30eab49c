"""The filters agree with scipy.ndimage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from serving.pictures import morphology


@pytest.fixture(scope="module")
def page():
    return np.random.default_rng(0).random((17, 23), dtype=np.float32)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 17, 30])
@pytest.mark.parametrize("name", ["grey_erosion", "grey_dilation", "grey_opening", "uniform_filter"])
def test_filter_agrees_with_scipy(page, name, size):
    expected = getattr(ndimage, name)(page, size=size, mode="nearest")
    actual = getattr(morphology, name)(page, size)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 17, 30])
def test_filter_along_an_axis_agrees_with_scipy(page, size, axis):
    shape = (size, 1) if axis == 0 else (1, size)
    eroded = ndimage.grey_erosion(page, size=shape, mode="nearest")
    np.testing.assert_array_equal(morphology.erosion_along(page, size, axis), eroded)
    opened = ndimage.grey_dilation(eroded, size=shape, mode="nearest")
    np.testing.assert_array_equal(morphology.opening_along(page, size, axis), opened)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 17, 30])
def test_bytes_stay_bytes_and_their_closing_is_the_opening_of_the_inverted_picture(page, size):
    values = (page * 256).astype(np.uint8)
    closed = morphology.grey_closing(values, size)
    assert closed.dtype == np.uint8
    np.testing.assert_array_equal(closed, 255 - morphology.grey_opening(255 - values, size))
    np.testing.assert_array_equal(closed, 255 - ndimage.grey_opening(255 - values, size=size, mode="nearest"))
    if size % 2:
        np.testing.assert_array_equal(closed, ndimage.grey_closing(values, size=size, mode="nearest"))


def test_median_agrees_with_scipy(page):
    np.testing.assert_array_equal(morphology.median_filter(page), ndimage.median_filter(page, size=3, mode="nearest"))

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


def test_median_agrees_with_scipy(page):
    np.testing.assert_array_equal(morphology.median_filter(page), ndimage.median_filter(page, size=3, mode="nearest"))

"""The generated drawings at 28x28 pixels have all styles, and the packaged model reads them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.polylines import STYLES, draw_polylines
from serving.models.repository import load
from serving.pictures.mnist_form import to_mnist_form
from serving.settings import RELEASE


@pytest.fixture(scope="module")
def drawings():
    return draw_polylines()


def test_every_digit_has_several_styles_in_both_polarities(drawings):
    pictures, digits = drawings
    assert len(pictures) >= 300
    assert min(map(len, STYLES.values())) >= 4
    pages = np.stack([np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures])
    assert pages.shape[1:] == (28, 28)
    bright = np.median(pages, axis=(1, 2)) > 127
    for digit in range(10):
        assert set(bright[digits == digit]) == {False, True}
    assert {len(np.unique(page)) == 2 for page in pages} == {False, True}  # Hard and smooth edges.


def test_thin_and_broad_drawings_of_28x28_pixels_are_read(drawings):
    pictures, digits = (part[::3] for part in drawings)
    images = np.stack([to_mnist_form(picture, 784).image for picture in pictures])
    labels = load(RELEASE, "mnist").classifier.classify(images).probabilities.argmax(axis=1)
    assert (labels == digits).mean() >= 0.99

"""Any picture of a digit to 28x28 as MNIST made it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from serving.bundle import RELEASE
from serving.images import PictureError, decode
from serving.repository import load

PIXELS = 25_000_000


@pytest.fixture(scope="module")
def classify():
    classifier = load(RELEASE, "mnist").classifier
    return lambda images: classifier.classify(np.stack(images))[0].argmax(axis=1)


def large(digit, factor=6):
    """The digit as dark ink on white paper, ``factor`` times as large."""
    return 255 - np.kron(digit, np.ones((factor, factor), np.uint8))


def test_every_test_digit_passes_untouched(digits):
    for digit in digits:
        np.testing.assert_array_equal(decode(picture(digit), PIXELS), digit)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: large(d), id="dark on light"),
        pytest.param(lambda d: 255 - large(d), id="light on dark"),
        pytest.param(lambda d: np.pad(large(d), ((300, 10), (20, 200)), constant_values=255), id="in a corner"),
        pytest.param(lambda d: (large(d) // 2 + 60).astype(np.uint8), id="pale"),
        pytest.param(lambda d: np.dstack([large(d), large(d) // 2 + 127, large(d) // 4 + 190]), id="coloured"),
        pytest.param(lambda d: np.dstack([large(d) * 0] * 3 + [255 - large(d)]), id="black on nothing"),
        pytest.param(lambda d: np.dstack([large(d) * 0 + 255] * 3 + [255 - large(d)]), id="white on nothing"),
        pytest.param(lambda d: (255 - large(d)).astype(np.uint16) * 257, id="16 bits"),
    ],
)
def test_pictures_of_digits_are_read(digits, truth, classify, change):
    some = slice(0, 200)
    read = [decode(picture(change(digit)), PIXELS) for digit in digits[some]]
    assert (classify(read) == truth[some]).mean() >= 0.985


def test_camera_rotation_is_undone(digits, truth, classify):
    upright = Image.fromarray(large(digits[0]))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to see it upright"
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    assert classify([decode(buffer.getvalue(), PIXELS)]) == truth[:1]


def test_result_is_centred_as_mnist_is(digits):
    for digit in digits[:50]:
        read = decode(picture(np.pad(large(digit), 40, constant_values=255)), PIXELS)
        rows, columns = np.nonzero(read)
        assert rows.max() - rows.min() < 20
        assert columns.max() - columns.min() < 20
        total = read.sum(dtype=float)
        for axis in (0, 1):
            centre = (read.sum(axis=1 - axis, dtype=float) * (np.arange(28) + 0.5)).sum() / total
            assert 13.9 <= centre <= 15.1
        assert read.max() == 255


@pytest.mark.parametrize("shade", [0, 100, 255])
def test_empty_picture_is_zeros(shade):
    assert not decode(picture(np.full((40, 60), shade, np.uint8)), PIXELS).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_odd_sizes_do_not_fail(size):
    noise = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert decode(picture(noise), PIXELS).shape == (28, 28)


def test_size_is_checked_before_unpacking():
    with pytest.raises(PictureError, match="100x100"):
        decode(picture(np.zeros((100, 100), np.uint8)), 9_999)

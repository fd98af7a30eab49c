"""Any picture of a digit to 28x28 as MNIST made it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from serving.errors import InputTooLargeError
from serving.models.repository import load
from serving.pictures.mnist_form import decode
from serving.settings import RELEASE
from tests.support import picture

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
        np.testing.assert_array_equal(decode(picture(digit), PIXELS).image, digit)


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
    read = [decode(picture(change(digit)), PIXELS).image for digit in digits[some]]
    assert (classify(read) == truth[some]).mean() >= 0.985


def few(digit, size=12):
    """The digit's box of twenty averaged down to ``size``."""
    rows, columns = np.nonzero(digit)
    box = Image.fromarray(digit).crop((columns.min(), rows.min(), columns.min() + 20, rows.min() + 20))
    return np.asarray(box.resize((size, size), Image.Resampling.BOX))


def test_pictures_of_few_pixels_are_read(digits, truth, classify):
    some = slice(0, 400)
    read = [decode(picture(few(digit)), PIXELS).image for digit in digits[some]]
    assert (classify(read) == truth[some]).mean() >= 0.985


def test_camera_rotation_is_undone(digits, truth, classify):
    upright = Image.fromarray(large(digits[0]))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to see it upright"
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    assert classify([decode(buffer.getvalue(), PIXELS).image]) == truth[:1]


def test_result_is_centred_as_mnist_is(digits):
    for digit in digits[:50]:
        read = decode(picture(np.pad(large(digit), 40, constant_values=255)), PIXELS).image
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
    image, reason = decode(picture(np.full((40, 60), shade, np.uint8)), PIXELS)
    assert not image.any()
    assert reason == "empty"


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_odd_sizes_do_not_fail(size):
    noise = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert decode(picture(noise), PIXELS).image.shape == (28, 28)


def test_size_is_checked_before_unpacking():
    with pytest.raises(InputTooLargeError, match="100x100"):
        decode(picture(np.zeros((100, 100), np.uint8)), 9_999)


def shaded(digit, random):
    """A photo: grey ink, light from one side, a shadow's edge, grain."""
    page = large(digit, 8).astype(float)
    y, x = np.mgrid[0:1:224j, 0:1:224j]
    light = (0.55 + 0.45 * (0.7 * x + 0.3 * y)) * np.where(x + 0.5 * y > random.uniform(0.5, 1), 1, 0.7)
    return np.clip((60 + 0.6 * page) * light + random.normal(0, 6, page.shape), 0, 255).astype(np.uint8)


def salted(digit, random):
    hit = random.random(digit.shape)
    return np.where(hit < 0.05, 255, np.where(hit < 0.1, 0, digit)).astype(np.uint8)


def striped(digit, random):
    band = np.isin(np.arange(28) // 7, (1, 3))
    return np.where(band, 255 - digit, digit).astype(np.uint8)


def framed(digit, random):
    page = np.full((600, 800), 230, np.uint8)
    y, x = random.integers(0, (560, 760))
    page[y : y + 28, x : x + 28] = 230 - digit // 2
    return page


@pytest.mark.parametrize("change", [shaded, salted, striped, framed])
def test_bad_pictures_are_read(digits, truth, classify, change):
    random = np.random.default_rng(0)
    read = [decode(picture(change(digit, random)), PIXELS) for digit in digits[:100]]
    assert (classify([digit.image for digit in read]) == truth[:100]).mean() >= 0.95
    assert sum(digit.reason is not None for digit in read) <= 2


@pytest.mark.parametrize("axis", [0, 1])
def test_two_digits_apart_are_several(digits, axis):
    pages = [
        np.concatenate([large(a), large(b)], axis=axis) for a, b in zip(digits[:100], digits[100:200], strict=True)
    ]
    reasons = [decode(picture(page), PIXELS).reason for page in pages]
    assert reasons.count("several") >= 90


def test_one_digit_is_not_several(digits):
    assert [decode(picture(large(digit)), PIXELS).reason for digit in digits[:300]].count("several") <= 2


def test_hair_lines_are_thickened(digits, truth, classify):
    """Lines of a pixel in a frame of 224, the digit's middle line."""
    from skimage.morphology import skeletonize

    thin = [skeletonize(np.kron(digit, np.ones((8, 8))) > 100) for digit in digits[:60]]
    read = [decode(picture((~line * 255).astype(np.uint8)), PIXELS).image for line in thin]
    assert (classify(read) == truth[:60]).mean() >= 0.93


def test_lines_alone_do_not_fail():
    """A ruled page: what is left once the lines are gone is nothing."""
    page = np.zeros((28, 28), np.uint8)
    page[3:28:6] = 255
    assert decode(picture(page), PIXELS).image.shape == (28, 28)

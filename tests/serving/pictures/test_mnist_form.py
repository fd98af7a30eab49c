"""Pictures of digits become 28x28 images in MNIST's form, and the packaged model reads them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage.morphology import skeletonize

from benchmarks.robustness import STEPS
from serving.inference.readings import choose
from serving.models.repository import load
from serving.pictures.mnist_form import to_mnist_form
from serving.settings import RELEASE
from tests.support import picture

MAX_PIXELS = 25_000_000


@pytest.fixture(scope="module")
def classify():
    classifier = load(RELEASE, "mnist").classifier
    return lambda images: classifier.classify(np.stack(images))[0].argmax(axis=1)


def large(digit, factor=6):
    """The digit as dark ink on white paper, ``factor`` times as large."""
    return 255 - np.kron(digit, np.ones((factor, factor), np.uint8))


def test_every_test_digit_passes_unchanged(digits):
    for digit in digits:
        np.testing.assert_array_equal(to_mnist_form(picture(digit), MAX_PIXELS).image, digit)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: large(d), id="dark on light"),
        pytest.param(lambda d: 255 - large(d), id="light on dark"),
        pytest.param(lambda d: np.pad(large(d), ((300, 10), (20, 200)), constant_values=255), id="in a corner"),
        pytest.param(lambda d: (large(d) // 2 + 60).astype(np.uint8), id="pale"),
        pytest.param(lambda d: np.dstack([large(d), large(d) // 2 + 127, large(d) // 4 + 190]), id="coloured"),
        pytest.param(lambda d: np.dstack([large(d) * 0] * 3 + [255 - large(d)]), id="black on transparent"),
        pytest.param(lambda d: np.dstack([large(d) * 0 + 255] * 3 + [255 - large(d)]), id="white on transparent"),
        pytest.param(lambda d: (255 - large(d)).astype(np.uint16) * 257, id="16 bits"),
    ],
)
def test_digits_in_clean_pictures_are_read(digits, truth, classify, change):
    read = [to_mnist_form(picture(change(digit)), MAX_PIXELS).image for digit in digits[:200]]
    assert (classify(read) == truth[:200]).mean() >= 0.985


def reduced(digit, size=12):
    """The digit's box of 20 pixels averaged down to ``size``."""
    rows, columns = np.nonzero(digit)
    box = Image.fromarray(digit).crop((columns.min(), rows.min(), columns.min() + 20, rows.min() + 20))
    return np.asarray(box.resize((size, size), Image.Resampling.BOX))


def test_digits_of_few_pixels_are_read(digits, truth, classify):
    read = [to_mnist_form(picture(reduced(digit)), MAX_PIXELS).image for digit in digits[:400]]
    assert (classify(read) == truth[:400]).mean() >= 0.985


def test_result_is_centred_and_scaled_as_in_mnist(digits):
    for digit in digits[:50]:
        read = to_mnist_form(picture(np.pad(large(digit), 40, constant_values=255)), MAX_PIXELS).image
        rows, columns = np.nonzero(read)
        assert rows.max() - rows.min() < 20
        assert columns.max() - columns.min() < 20
        total = read.sum(dtype=float)
        for axis in (0, 1):
            centre = (read.sum(axis=1 - axis, dtype=float) * (np.arange(28) + 0.5)).sum() / total
            assert 13.9 <= centre <= 15.1
        assert read.max() == 255


@pytest.mark.parametrize("shade", [0, 100, 255])
def test_blank_picture_is_empty_and_black(shade):
    digit = to_mnist_form(picture(np.full((40, 60), shade, np.uint8)), MAX_PIXELS)
    assert not digit.image.any()
    assert digit.reason == "empty"


def test_blank_page_with_grain_is_empty():
    grain = np.random.default_rng(0).normal(200, 10, (60, 80)).clip(0, 255).astype(np.uint8)
    assert to_mnist_form(picture(grain), MAX_PIXELS).reason == "empty"


@pytest.mark.parametrize("height", [1, 2, 3, 5, 300])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 300])
def test_pictures_of_odd_sizes_do_not_fail(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    assert to_mnist_form(picture(noise), MAX_PIXELS).image.shape == (28, 28)


def test_ruled_page_without_a_digit_does_not_fail():
    page = np.zeros((28, 28), np.uint8)
    page[3:28:6] = 255
    assert to_mnist_form(picture(page), MAX_PIXELS).image.shape == (28, 28)


def photographed(digit, random):
    """A photo: grey ink, light from one side, the edge of a shadow, grain."""
    page = large(digit, 8).astype(float)
    y, x = np.mgrid[0:1:224j, 0:1:224j]
    light = (0.55 + 0.45 * (0.7 * x + 0.3 * y)) * np.where(x + 0.5 * y > random.uniform(0.5, 1), 1, 0.7)
    return np.clip((60 + 0.6 * page) * light + random.normal(0, 6, page.shape), 0, 255).astype(np.uint8)


def salted(digit, random):
    """Salt and pepper: one pixel in twenty is white, one in twenty black."""
    hit = random.random(digit.shape)
    return np.where(hit < 0.05, 255, np.where(hit < 0.1, 0, digit)).astype(np.uint8)


def small_on_a_large_page(digit, random):
    page = np.full((600, 800), 230, np.uint8)
    y, x = random.integers(0, (560, 760))
    page[y : y + 28, x : x + 28] = 230 - digit // 2
    return page


@pytest.mark.parametrize("change", [photographed, salted, small_on_a_large_page])
def test_digits_in_bad_pictures_are_read(digits, truth, classify, change):
    random = np.random.default_rng(0)
    read = [to_mnist_form(picture(change(digit, random)), MAX_PIXELS) for digit in digits[:100]]
    assert (classify([digit.image for digit in read]) == truth[:100]).mean() >= 0.95
    assert sum(digit.reason is not None for digit in read) <= 2


def scanned(digit, sides):
    """A scan of a page with a dark edge at some sides. With a digit, it has two punched holes, too."""
    page = Image.new("L", (410, 580), 240)
    draw = ImageDraw.Draw(page)
    edges = {"left": (0, 0, 7, 580), "top": (0, 0, 410, 7), "bottom": (0, 573, 410, 580)}
    for side in sides:
        draw.rectangle(edges[side], 30)
    if digit is not None:
        page.paste(40, (200, 100), Image.fromarray(digit).resize((70, 70), Image.Resampling.BICUBIC))
        for y in (210, 370):
            draw.ellipse((18, y - 7, 32, y + 7), 40)
    return np.asarray(page)


@pytest.mark.parametrize("sides", [("left",), ("bottom",), ("left", "top")])
def test_a_digit_beside_the_dark_edge_of_a_scan_is_read(digits, truth, classify, sides):
    pages = [to_mnist_form(picture(scanned(digit, sides)), MAX_PIXELS) for digit in digits[:40]]
    read = choose(load(RELEASE, "mnist"), pages)
    assert (classify([digit.image for digit in read]) == truth[:40]).mean() >= 0.95
    assert sum(digit.reason is not None for digit in read) <= 1


@pytest.mark.parametrize("side", ["left", "top"])
def test_the_dark_edge_of_a_scan_alone_is_no_digit(side):
    assert to_mnist_form(picture(scanned(None, [side])), MAX_PIXELS).reason == "no digit"


def test_a_digit_that_fills_a_side_of_a_tight_crop_is_read(digits, truth, classify):
    kept = np.flatnonzero((truth == 1) | (truth == 7))[:60]
    crops = []
    for digit in digits[kept]:
        rows, columns = np.nonzero(digit > 60)
        crops.append(large(digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]))
    read = [to_mnist_form(picture(crop), MAX_PIXELS) for crop in crops]
    assert (classify([digit.image for digit in read]) == truth[kept]).mean() >= 0.95
    assert all(digit.reason is None for digit in read)


def test_hairlines_are_widened(digits, truth, classify):
    """Only the middle line of each digit is drawn, one pixel wide on 224 pixels."""
    lines = [skeletonize(np.kron(digit, np.ones((8, 8))) > 100) for digit in digits[:60]]
    read = [to_mnist_form(picture((~line * 255).astype(np.uint8)), MAX_PIXELS).image for line in lines]
    assert (classify(read) == truth[:60]).mean() >= 0.93


def test_every_step_that_the_benchmark_switches_off_exists():
    assert [name for module, name, _ in STEPS.values() if not hasattr(module, name)] == []

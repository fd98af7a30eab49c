"""A large picture, converted part by part, gives the same image as all its grey values at once."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from serving.errors import InputTooLargeError
from serving.pictures import decode
from serving.pictures.mnist_form import to_mnist_form
from serving.pictures.page import ORIENTATIONS, Orientation, Page, upright
from tests.serving.pictures.files import black_png, encoded

MAX_PIXELS = 25_000_000


@pytest.fixture(scope="module")
def drawing(digits):
    """A digit of 300 pixels on a page of 700x900, lit from one side, with grain."""
    random = np.random.default_rng(0)
    page = np.full((700, 900), 250.0)
    page[330:630, 120:420] -= np.asarray(Image.fromarray(digits[0]).resize((300, 300))) * 0.8
    page *= np.linspace(0.7, 1, 900)
    return np.clip(page + random.normal(0, 3, page.shape), 0, 255).astype(np.uint8)


def turned(drawing, value):
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(Image.fromarray(drawing), "PNG", exif=exif)


def transparent(ink):
    return lambda page: Image.fromarray(np.dstack([np.full_like(page, ink)] * 3 + [255 - page]))


FILES = {
    "grey": lambda page: encoded(Image.fromarray(page), "PNG"),
    "1 bit": lambda page: encoded(Image.fromarray(page).convert("1"), "PNG"),
    "16 bits": lambda page: encoded(Image.fromarray(page.astype(np.uint16) * 257), "PNG"),
    "16 bits of 8": lambda page: encoded(Image.fromarray(page.astype(np.uint16)), "PNG"),
    "colour": lambda page: encoded(Image.fromarray(np.dstack([page, page // 2, 255 - page // 3])), "PNG"),
    "palette": lambda page: encoded(Image.fromarray(page).quantize(16), "PNG"),
    "palette with a transparent colour": lambda page: encoded(
        Image.fromarray(page).quantize(16), "PNG", transparency=0
    ),
    "palette with opacity": lambda page: encoded(Image.fromarray(page).quantize(4), "PNG", transparency=b"\0\x60\xff"),
    "transparent, dark ink": lambda page: encoded(transparent(20)(page), "PNG"),
    "transparent, bright ink": lambda page: encoded(transparent(240)(page), "PNG"),
    "grey with opacity": lambda page: encoded(transparent(90)(page).convert("LA"), "PNG"),
    "JPEG": lambda page: encoded(Image.fromarray(page), "JPEG"),
    "JPEG of CMYK": lambda page: encoded(Image.fromarray(page).convert("CMYK"), "JPEG"),
    "GIF": lambda page: encoded(Image.fromarray(page), "GIF", transparency=3),
    "WebP": lambda page: encoded(Image.fromarray(page), "WEBP"),
    "PGM of 16 bits": lambda page: encoded(Image.fromarray(page.astype(np.uint16) * 257), "PPM"),
    **{f"turned {value}": lambda page, value=value: turned(page, value) for value in ORIENTATIONS},
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES.keys())
def test_whole_and_parts_give_the_same_image_as_an_array(drawing, file, monkeypatch):
    content = file(drawing)
    with monkeypatch.context() as patch:
        patch.setattr(decode, "ARRAY_PIXELS", MAX_PIXELS)
        assert not isinstance(decode.decode_grey(content, MAX_PIXELS), Page)
        expected = to_mnist_form(content, MAX_PIXELS)
    assert expected.image.any()
    for most in (decode.WHOLE_PIXELS, 0):
        monkeypatch.setattr(decode, "WHOLE_PIXELS", most)
        assert isinstance(decode.decode_grey(content, MAX_PIXELS), Page)
        digit = to_mnist_form(content, MAX_PIXELS)
        # Pillow rounds the means of grey values and colours, so a pixel at the edge of a stroke may differ.
        assert np.abs(digit.image.astype(int) - expected.image).mean() < 0.3
        assert digit.reason is expected.reason


@pytest.mark.parametrize("orientation", ORIENTATIONS.values())
def test_page_is_cut_like_an_array(orientation):
    values = np.arange(40, dtype=np.uint8).reshape(5, 8)
    page = Page(Image.fromarray(values), lambda part: np.asarray(part, np.float32), orientation)
    expected = upright(values, orientation)
    assert page.shape == expected.shape
    np.testing.assert_array_equal(page.grey(), expected)
    part, again = (slice(1, 4), slice(0, 100)), (slice(1, 3), slice(2, 4))
    np.testing.assert_array_equal(page[part].grey(), expected[part])
    np.testing.assert_array_equal(page[part][again].grey(), expected[part][again])


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("shape", [(16_384, 30), (30, 16_384), (3, 16_000), (2000, 1700)])
def test_page_of_any_shape_is_reduced_like_an_array(shape, mode):
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette(bytes(range(256)) * 3, "RGB")
    page = Page(picture, lambda part: np.asarray(part, np.float32), Orientation())
    height, width = (max(1, round(size * 96 / max(shape))) for size in shape)
    whole = Image.fromarray(values.astype(np.float32))
    expected = np.asarray(whole.resize((width, height), Image.Resampling.BOX, reducing_gap=2.0))
    np.testing.assert_allclose(page.reduced(height, width), expected, atol=2)


@pytest.mark.parametrize("mode", ["RGB", "LA"])
def test_page_that_stays_large_is_reduced_like_an_array(mode):
    values = np.random.default_rng(0).integers(0, 256, (2500, 2100), np.uint8)
    page = Page(
        Image.fromarray(values).convert(mode), lambda part: np.asarray(part.convert("L"), np.float32), Orientation()
    )
    whole = Image.fromarray(values.astype(np.float32))
    expected = np.asarray(whole.resize((860, 1024), Image.Resampling.BOX, reducing_gap=2.0))
    differs = np.abs(page.reduced(1024, 860) - expected) > 0.01
    # A row half of which lies in each of two rows of the result counts in one of them.
    assert np.count_nonzero(differs.any(axis=1)) <= 2


def test_small_digit_on_a_large_photo_is_not_lost(digits, truth):
    """A JPEG is decoded at a fraction of its size, but the digit must keep enough pixels."""
    from serving.models.repository import load
    from serving.settings import RELEASE

    images = []
    for digit in digits[:10]:
        page = np.full((3000, 4100), 235, np.uint8)
        page[1200:1360, 2500:2660] = 235 - np.asarray(Image.fromarray(digit).resize((160, 160))) * 0.7
        images.append(to_mnist_form(encoded(Image.fromarray(page), "JPEG"), MAX_PIXELS).image)
    labels = load(RELEASE, "mnist").classifier.classify(np.stack(images)).probabilities.argmax(axis=1)
    np.testing.assert_array_equal(labels, truth[:10])


def test_photo_of_48_megapixels_is_read_and_only_what_is_decoded_is_limited(digits, truth):
    from serving.models.repository import load
    from serving.settings import RELEASE

    page = Image.new("L", (8064, 6048), 215)
    page.paste(Image.fromarray(215 - np.asarray(Image.fromarray(digits[0]).resize((1500, 1500))) // 2), (5000, 2000))
    image = to_mnist_form(encoded(page, "JPEG"), MAX_PIXELS).image
    assert load(RELEASE, "mnist").classifier.classify(image[None]).probabilities.argmax() == truth[0]
    for content in (encoded(page, "JPEG", progressive=True), black_png(8064, 6048)):
        with pytest.raises(InputTooLargeError, match="8064x6048 pixels"):
            to_mnist_form(content, MAX_PIXELS)
    reduced = encoded(page.resize((1024, 1536)), "JPEG")
    to_mnist_form(reduced, 512 * 768)
    with pytest.raises(InputTooLargeError, match="1024x1536 pixels: must be at most 393215 pixels"):
        to_mnist_form(reduced, 512 * 768 - 1)

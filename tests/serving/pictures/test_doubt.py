"""A picture that does not look like ink on paper is accepted only if the network is surer than otherwise."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.paper import BLANK, blank
from benchmarks.photos import COLOUR_MAP, PHOTOS
from serving.inference.readings import choose, count_readings
from serving.models.repository import load
from serving.pictures import decode
from serving.pictures.close_up import find_close_up
from serving.pictures.decode import decode_grey, decode_in_colour
from serving.pictures.doubt import Properties, properties_of
from serving.pictures.mnist_form import Digit, to_mnist_form
from serving.settings import RELEASE
from tests.support import picture

MAX_PIXELS = 25_000_000
RED, GREEN, BLUE, WHITE, BLACK = (200, 40, 40), (40, 140, 60), (50, 80, 220), (255, 255, 255), (0, 0, 0)
UNLIKE = Properties(colours=200.0, ink=2.0, rest=10.0)
assert UNLIKE.doubt() > 20


@pytest.fixture(scope="module")
def model():
    return load(RELEASE, "mnist")


def ring(inks, paper=WHITE, side=200):
    """Return a picture of a ring, each sector in one of the colours."""
    page = Image.new("RGB", (side, side), paper)
    box = [0.3 * side, 0.2 * side, 0.7 * side, 0.8 * side]
    for i, ink in enumerate(inks):
        ImageDraw.Draw(page).arc(box, 360 * i / len(inks), 360 * (i + 1) / len(inks), ink, side // 14)
    return np.asarray(page)


def of(page):
    """Return the properties of what a picture shows."""
    grey, colours = decode_in_colour(picture(page), MAX_PIXELS)
    close_up = find_close_up(grey)
    assert close_up is not None
    return properties_of(close_up, close_up.ink, colours)


def test_even_ink_on_even_paper_leaves_no_doubt():
    assert of(ring([BLACK])[..., 0]) == Properties()
    found = of(ring([RED], paper=(240, 230, 180)))
    assert found.colours < 1
    assert found.doubt() == 0


def test_colours_besides_ink_and_paper_are_counted():
    assert of(ring([RED, GREEN, BLUE])).colours > 20
    assert of(ring([RED, GREEN, BLUE])).doubt() > 0
    assert of(np.asarray(Image.fromarray(ring([RED, GREEN, BLUE])).convert("L"))).colours == 0


def test_only_colours_near_the_digit_count():
    page = np.full((400, 400, 3), (120, 80, 50), np.uint8)
    page[100:300, 100:300] = ring([BLACK])
    content = picture(page)
    [other, *_] = to_mnist_form(content, MAX_PIXELS).others
    assert other.properties.colours < 5
    assert other.properties.doubt() == 0


def test_uneven_paper_uneven_ink_and_other_ink_are_measured():
    page = ring([BLACK])[..., 0]
    plain = find_close_up(page.astype(np.float32))
    assert plain is not None
    half = np.where(np.arange(plain.ink.shape[1]) < plain.ink.shape[1] / 2, plain.ink, 0).astype(np.float32)
    assert properties_of(plain, half, None).rest == pytest.approx(1, abs=0.1)
    faded = (plain.ink * np.linspace(0.6, 1, len(plain.ink))[:, None]).astype(np.float32)
    assert properties_of(plain, faded, None).ink > 0.05
    striped = plain._replace(page=plain.page - 60 * (np.arange(len(plain.page)) % 2)[:, None].astype(np.float32))
    assert properties_of(striped, plain.ink, None).paper == pytest.approx(30, abs=1)


def test_doubt_counts_as_novelty(model, digits):
    surest, second = digits[:50][model.classifier.classify(digits[:50]).novelty.argsort()][:2]
    assert choose(model, [Digit(surest)])[0].reason is None
    assert choose(model, [Digit(surest, properties=UNLIKE)])[0].reason == "no digit"
    [chosen] = choose(model, [Digit(surest, properties=UNLIKE, others=(Digit(second),))])
    np.testing.assert_array_equal(chosen.image, second)
    assert chosen.reason is None


def test_doubt_does_not_replace_another_reason(model, digits):
    assert choose(model, [Digit(digits[0], "several", UNLIKE)])[0].reason == "several"


def test_symbols_of_ones_own_may_have_any_colours(model, digits, monkeypatch):
    monkeypatch.setattr(model, "digits", ())
    assert choose(model, [Digit(digits[0], properties=UNLIKE)])[0].reason is None


def test_network_is_asked_only_where_needed(digits):
    assert count_readings([Digit(digits[0])]) == 0
    assert count_readings([Digit(digits[0], properties=UNLIKE)]) == 1
    assert count_readings([Digit(digits[0], others=(Digit(digits[1]),))]) == 2


@pytest.mark.parametrize("name", BLANK)
def test_photo_of_blank_paper_shows_no_digit(model, name):
    random = np.random.default_rng(0)
    for _ in range(3):
        [digit] = choose(model, [to_mnist_form(blank(name, random, photo=True), MAX_PIXELS)])
        [reason] = model.judge(digit.image[None], model.classifier.classify(digit.image[None]), {0: digit.reason})
        assert reason is not None


@pytest.mark.parametrize("name", [name for name in PHOTOS if name != COLOUR_MAP])
def test_photos_in_colour_are_accepted(model, digits, truth, name):
    random = np.random.default_rng(0)
    rejected = 0
    for image, label in zip(digits[:25], truth[:25], strict=True):
        [digit] = choose(model, [to_mnist_form(PHOTOS[name](image, random), MAX_PIXELS)])
        output = model.classifier.classify(digit.image[None])
        if output.probabilities[0].argmax() == label:
            rejected += model.judge(digit.image[None], output, {0: digit.reason})[0] is not None
    assert rejected <= 1


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_brightness_is_the_same_with_and_without_colours(format):
    content = picture(ring([RED, GREEN, BLUE]), format)
    grey, colours = decode_in_colour(content, MAX_PIXELS)
    np.testing.assert_array_equal(grey.grey(), decode_grey(content, MAX_PIXELS).grey())
    assert colours is not None
    assert max(colours.shape) == decode.COLOUR_SIDE


def test_colours_are_turned_upright():
    page = np.full((60, 90, 3), 255, np.uint8)
    page[:, :20] = RED
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn it a quarter clockwise: what was on the left is above.
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "PNG", exif=exif)
    grey, colours = decode_in_colour(buffer.getvalue(), MAX_PIXELS)
    assert grey.shape == colours.shape[:2] == (90, 60)
    np.testing.assert_array_equal(colours[5, 30], RED)
    np.testing.assert_array_equal(colours[80, 30], WHITE)


def test_grey_and_large_pictures_have_no_colours(monkeypatch):
    assert decode_in_colour(picture(np.repeat(ring([BLACK])[..., :1], 3, axis=2)), MAX_PIXELS)[1] is None
    assert decode_in_colour(picture(ring([BLACK])[..., 0]), MAX_PIXELS)[1] is None
    monkeypatch.setattr(decode, "COLOUR_PIXELS", 100)
    assert decode_in_colour(picture(ring([RED, GREEN])), MAX_PIXELS)[1] is None


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_picture_gets_white_paper(mode):
    page = np.dstack([ring([RED, GREEN]), np.zeros((200, 200), np.uint8)])
    page[60:140, 60:140, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(page).quantize().convert(mode).save(buffer, "PNG")
    _, colours = decode_in_colour(buffer.getvalue(), MAX_PIXELS)
    np.testing.assert_array_equal(colours[0, 0], WHITE)

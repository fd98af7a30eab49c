"""Ink of another colour than the paper is found, also if it is as bright as the paper."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from serving.models.repository import load
from serving.pictures import colours
from serving.pictures.colours import decode_colours
from serving.pictures.mnist_form import to_mnist_form
from serving.pictures.number_form import to_number_page
from serving.settings import RELEASE
from tests.serving.pictures.numbers import page, written
from tests.support import picture

MAX_PIXELS = 25_000_000
# Two colours of the same brightness.
GREEN, RED = np.array([60, 150, 60]), np.array([200, 70, 98])


def coloured(ink, paper=GREEN, pen=RED):
    """Return ``[H, W, 3]`` with ink from 0 to 255 in the colour of the pen."""
    share = ink[..., None] / 255
    return np.rint(paper + share * (pen - paper)).astype(np.uint8)


def large(digit):
    return np.kron(np.pad(digit, 4), np.ones((5, 5), np.uint8))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_digits_as_bright_as_the_paper_are_read(digits, truth, format):
    forms = [to_mnist_form(picture(coloured(large(digit)), format), MAX_PIXELS) for digit in digits[:20]]
    output = load(RELEASE, "mnist").classifier.classify(np.stack([form.image for form in forms]))
    assert [form.reason for form in forms] == [None] * 20
    assert (output.probabilities.argmax(axis=1) == truth[:20]).sum() >= 19


def test_a_number_as_bright_as_the_paper_is_found(digits, truth):
    content = picture(coloured(255 - page(written(digits, truth, "472"))))
    [line] = to_number_page(content, MAX_PIXELS).lines
    assert len(line.candidates) >= 3


def test_colours_are_compared_only_on_an_empty_page(digits, monkeypatch):
    monkeypatch.setattr(colours, "open_picture", None)
    to_mnist_form(picture(coloured(large(digits[0]), pen=RED // 2)), MAX_PIXELS)


def test_orientation_and_the_size_of_the_page_are_kept(monkeypatch):
    ink = np.zeros((60, 200), np.uint8)
    ink[:20, :20] = 255
    found = decode_colours(picture(coloured(ink)))
    assert abs(found[10, 10] - 127.5) > 60
    assert abs(found[40, 100] - 127.5) < 1
    monkeypatch.setattr(colours, "LONGEST", 100)
    assert decode_colours(picture(coloured(ink))).shape == (30, 100)


Y, X = np.mgrid[-1:1:120j, -1:1:160j]


@pytest.mark.parametrize(
    "ink",
    [
        pytest.param(np.exp(-(X**2 + Y**2) / 0.1), id="stain"),
        pytest.param((1 + X) / 20, id="tint of the light"),
        pytest.param(np.random.default_rng(0).random(X.shape), id="noise"),
        pytest.param(np.zeros(X.shape), id="nothing"),
    ],
)
def test_page_without_strokes_stays_empty(ink):
    content = picture(coloured(255 * ink))
    assert to_mnist_form(content, MAX_PIXELS).reason == "empty"


def hidden(opacity):
    """Return a picture whose ink is as bright as the paper, with a transparent corner."""
    ink = np.zeros((40, 40), np.uint8)
    ink[10:30, 15:20] = 255
    alpha = np.full((40, 40, 1), 255, np.uint8)
    alpha[:5, :5] = opacity
    return picture(np.dstack([coloured(ink), alpha]))


def test_what_is_transparent_is_not_seen():
    assert decode_colours(hidden(255)) is not None
    assert decode_colours(hidden(254)) is None


@pytest.mark.parametrize("mode", [np.uint8, np.uint16])
def test_grey_picture_has_no_colours(mode):
    assert decode_colours(picture(np.zeros((40, 40), mode))) is None


@pytest.mark.parametrize(("format", "side"), [("PNG", 2049), ("WEBP", 1000)])
def test_large_picture_is_not_decoded_again(format, side):
    ink = np.zeros((side, side), np.uint8)
    ink[200:600, 400:440] = 255
    assert decode_colours(picture(coloured(ink), format)) is None


def test_palette_whose_colours_have_opacities_is_read():
    """Pillow would warn that such a picture should not be converted to RGB."""
    ink = np.zeros((60, 60), np.uint8)
    ink[10:50, 25:35] = 255
    content = io.BytesIO()
    Image.fromarray(coloured(ink)).quantize(4).save(content, "PNG", transparency=b"\xff\xff\xff\xff")
    assert decode_colours(content.getvalue()) is not None

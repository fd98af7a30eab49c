"""Connected pieces of ink: specks and the number of digits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from serving.pictures.mnist_form import to_mnist_form
from serving.pictures.pieces import TooManyRunsError, at_most_runs, erase, find_pieces, split_specks, usual_height
from tests.support import picture

MAX_PIXELS = 25_000_000


def large(digit, factor=6):
    """The digit as dark ink on white paper, ``factor`` times as large."""
    return 255 - np.kron(digit, np.ones((factor, factor), np.uint8))


def test_runs_of_a_block_are_limited_together():
    ink = np.zeros((9, 9), np.float32)
    ink[::2, ::2] = 1  # 25 runs
    with at_most_runs(60):
        assert len(find_pieces(ink)) == len(find_pieces(ink)) == 25
        with pytest.raises(TooManyRunsError):
            find_pieces(ink)
    assert len(find_pieces(ink)) == 25


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6, 1])
def test_pieces_agree_with_scipy(share):
    random = np.random.default_rng(0)
    ink = (random.random((40, 50)) * (random.random((40, 50)) < share)).astype(np.float32)
    labels, count = ndimage.label(ink, structure=np.ones((3, 3)))
    pieces = find_pieces(ink)
    found = sorted((piece.top, piece.bottom, piece.left, piece.right) for piece in pieces)
    assert found == sorted((y.start, y.stop, x.start, x.stop) for y, x in ndimage.find_objects(labels))
    masses = ndimage.sum(ink, labels, range(1, count + 1))
    np.testing.assert_allclose(sorted(piece.mass for piece in pieces), sorted(masses), rtol=1e-5)


def test_specks_are_erased():
    ink = np.zeros((30, 30), np.float32)
    ink[5:25, 10:14] = 200
    with_speck = ink.copy()
    with_speck[27:29, 27:29] = 200
    pieces, specks = split_specks(find_pieces(with_speck))
    assert (len(pieces), len(specks)) == (1, 1)
    np.testing.assert_array_equal(erase(with_speck, specks), ink)


@pytest.mark.parametrize("axis", [0, 1])
def test_two_digits_apart_are_several(digits, axis):
    pages = [
        np.concatenate([large(a), large(b)], axis=axis) for a, b in zip(digits[:100], digits[100:200], strict=True)
    ]
    reasons = [to_mnist_form(picture(page), MAX_PIXELS).reason for page in pages]
    assert reasons.count("several") >= 90


def test_one_digit_is_not_several(digits):
    reasons = [to_mnist_form(picture(large(digit)), MAX_PIXELS).reason for digit in digits[:300]]
    assert reasons.count("several") <= 2


@pytest.mark.parametrize("lines", [["reads a fox", "brown", "model"], ["one two", "three four", "five six", "seven"]])
@pytest.mark.parametrize("size", [16, 40])
def test_lines_of_text_are_several(lines, size):
    font = ImageFont.load_default(size)
    page = Image.new("L", (12 * size, 8 * size), 255)
    ImageDraw.Draw(page).multiline_text((size, size), "\n".join(lines), 0, font)
    assert to_mnist_form(picture(np.asarray(page)), MAX_PIXELS).reason == "several"


@pytest.mark.parametrize("lines", [["call my home", "light my", "list"], ["my", "of the tree", "light"]])
def test_lines_of_connected_writing_are_several(lines):
    font = ImageFont.load_default(40)
    page = Image.new("L", (320, 60 * len(lines) + 40), 255)
    for i, line in enumerate(lines):  # with such wide strokes, the letters of a word touch each other
        ImageDraw.Draw(page).text((20, 20 + 60 * i), line, 0, font, stroke_width=3)
    assert to_mnist_form(picture(np.asarray(page)), MAX_PIXELS).reason == "several"


def test_a_digit_in_pieces_is_not_several():
    dashes = np.full((120, 90), 255, np.uint8)
    for top in (10, 100):  # the bars of a Z-shaped 2, drawn with a pen that skips
        for left in (10, 34, 58):
            dashes[top : top + 8, left : left + 20] = 0
    for step in range(90):
        dashes[14 + step : 20 + step, 70 - round(step * 0.6) : 78 - round(step * 0.6)] = 0
    assert to_mnist_form(picture(dashes), MAX_PIXELS).reason is None


def test_no_pieces_have_no_height():
    assert usual_height([]) == 0

"""The dots of a dotted digit are joined, and other dots are not."""

from __future__ import annotations

import numpy as np
import pytest

from serving.inference.readings import choose
from serving.models.repository import load
from serving.pictures.dots import joined_dots
from serving.pictures.mnist_form import to_mnist_form
from serving.pictures.pieces import find_pieces
from serving.settings import RELEASE
from tests.support import picture

MAX_PIXELS = 25_000_000
# Digits as displays of 5x7 dots show them.
DISPLAY = {
    2: "01110 10001 00001 00010 00100 01000 11111",
    3: "11111 00010 00100 00010 00001 10001 01110",
    5: "11111 10000 11110 00001 00001 10001 01110",
    7: "11111 00001 00010 00100 01000 01000 01000",
}
LETTERS = {
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "X": "10001 10001 01010 00100 01010 10001 10001",
}
SIX_PIPS = "101 101 101"
DOMINO = "101 101 101 000 000 101 010 101"
BRAILLE = "10001010 11010001 10011011"
FULL_STOPS = "111111111"


def dots(rows, pitch=12, dot=8):
    """Return dark dots on a light page, uint8 ``[H, W]``, where the rows have a 1."""
    on = np.array([[int(place) for place in row] for row in rows.split()])
    one = np.zeros((pitch, pitch), np.uint8)
    y, x = np.mgrid[:pitch, :pitch] - (pitch - 1) / 2
    one[np.hypot(y, x) < dot / 2] = 200
    return 240 - np.pad(np.kron(on, one), 4 * pitch).astype(np.uint8)


def read(rows, **sizes):
    """Return the label and the reason."""
    model = load(RELEASE, "mnist")
    [digit] = choose(model, [to_mnist_form(picture(dots(rows, **sizes)), MAX_PIXELS)])
    images = digit.image[None]
    output = model.classifier.classify(images)
    return int(output.probabilities.argmax()), model.judge(images, output, {0: digit.reason})[0]


@pytest.mark.parametrize("sizes", [{}, {"pitch": 25, "dot": 15}], ids=["small", "large"])
@pytest.mark.parametrize("label", DISPLAY)
def test_digit_on_a_display_is_read(label, sizes):
    assert read(DISPLAY[label], **sizes) == (label, None)


@pytest.mark.parametrize("rows", [*LETTERS.values(), SIX_PIPS, DOMINO, BRAILLE, FULL_STOPS])
def test_other_dots_are_no_digit(rows):
    assert read(rows)[1] is not None


@pytest.mark.parametrize("gap", [1, 4, 9])
def test_dots_are_joined_only_if_they_are_close(gap):
    ink = np.zeros((100, 100), np.float32)
    for begin in range(5, 5 + 8 * (5 + gap), 5 + gap):
        ink[begin : begin + 5, 40:45] = 1
    joined = joined_dots(ink, find_pieces(ink))
    assert (joined is None) == (gap == 9)
    assert joined is None or len(find_pieces(joined)) == 1


def test_letters_are_no_dots():
    ink = np.zeros((60, 120), np.float32)
    for left in range(5, 115, 10):
        ink[20:28, left] = ink[20, left : left + 7] = ink[27, left : left + 7] = 1  # a C
    assert joined_dots(ink, find_pieces(ink)) is None

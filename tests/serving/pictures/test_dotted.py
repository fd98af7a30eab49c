"""Symbols with dots as small as dirt: ``dotted`` keeps the dots, ``symbol`` leaves them out and says so."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from serving.pictures.pieces import find_pieces
from serving.pictures.prepare import prepare
from serving.pictures.process import TASKS, parse, respond
from tests.support import picture


def letter(*dots, shade=0):
    """A round letter of 60 pixels with dots of 8 pixels around these places."""
    image = Image.new("L", (160, 160), 255)
    draw = ImageDraw.Draw(image)
    draw.ellipse((50, 60, 110, 120), outline=0, width=9)
    for x, y in dots:
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=shade)
    return picture(np.asarray(image))


def pieces_of(content, how):
    return len(find_pieces(prepare(content, how).image.astype(np.float32)))


UMLAUT = letter((62, 38), (98, 38))


@pytest.mark.parametrize(("content", "count"), [(UMLAUT, 3), (letter((80, 90)), 2)], ids=["above", "within"])
def test_dots_stay_in_a_dotted_symbol(content, count):
    assert pieces_of(content, "dotted") == count
    assert not prepare(content, "dotted").loses_dots


def test_no_reading_is_without_the_dots():
    """The line beside the symbol is left out of another reading, and the dots are not."""
    with Image.open(io.BytesIO(UMLAUT)) as image:
        ImageDraw.Draw(image).line((20, 145, 140, 145), 0, 5)
        lined = picture(np.asarray(image))
    others = [other.image for other in prepare(lined, "dotted").others]
    assert others
    assert all(len(find_pieces(image.astype(np.float32))) == 3 for image in others)


def test_lost_dots_of_a_symbol_are_told():
    assert pieces_of(UMLAUT, "symbol") == 1
    assert prepare(UMLAUT, "symbol").loses_dots
    assert not prepare(letter(), "symbol").loses_dots


@pytest.mark.parametrize("dirt", [letter((15, 15)), letter((62, 38), shade=170)], ids=["far away", "pale"])
def test_dirt_is_left_out_of_a_dotted_symbol(dirt):
    assert pieces_of(dirt, "dotted") == 1
    assert not prepare(dirt, "symbol").loses_dots


@pytest.mark.parametrize("how", ["symbol", "dotted", "as-is"])
def test_process_prepares_in_every_way(how):
    assert how in TASKS
    np.testing.assert_array_equal(parse(*respond(UMLAUT, 10**6, how)).image, prepare(UMLAUT, how).image)

"""Names of classes on contact sheets and plots can be told apart, whatever their script."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from training.data.own.sheet import NAME_WIDTH, Row, Shown, contact_sheet
from training.glyphs import in_glyphs

INK = Shown(np.full((28, 28), 255, np.uint8), "caption " * 3)


def sheet(*names):
    with Image.open(io.BytesIO(contact_sheet([Row(name, 1, [INK]) for name in names]))) as image:
        return np.asarray(image)


def test_characters_that_the_font_lacks_have_their_number():
    assert in_glyphs("日a本") == "U+65E5aU+672C"
    assert in_glyphs("Äé αЖ ب A-1_") == "Äé αЖ ب A-1_"


@pytest.mark.parametrize(("one", "other"), [("é", "ñ"), ("α", "β"), ("Ж", "Ш"), ("日", "本")])
def test_names_on_a_contact_sheet_differ(one, other):
    assert not np.array_equal(sheet(one), sheet(other))


@pytest.mark.parametrize("name", ["W" * 128, "日" * 128, "a"])
def test_names_and_captions_do_not_cover_the_images(name):
    page = sheet(name, name)
    assert (page[:, NAME_WIDTH - 4 : NAME_WIDTH] == 255).all()
    assert (page[:, -4:] == 255).all()

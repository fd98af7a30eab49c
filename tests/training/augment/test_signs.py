"""Signs, faces, words and plots: images that are not digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageFont

from training.augment import outliers
from training.augment.outliers import KINDS
from training.augment.signs import SIGN_FONTS, drawn_sign, plot, printed_sign, words
from training.glyphs import print_fonts


@pytest.mark.parametrize("kind", [printed_sign, drawn_sign, words, plot])
def test_every_kind_draws_different_images_in_the_form_of_mnist(kind):
    random = np.random.default_rng(0)
    images = np.stack([kind(np.zeros((1, 28, 28), np.uint8), random) for _ in range(12)])
    assert images.dtype == np.uint8
    assert images.shape == (12, 28, 28)
    assert (images.max(axis=(1, 2)) == 255).all()
    assert not images[:, :, [0, -1]].any(), "ink in the margin"
    assert len({image.tobytes() for image in images}) == 12
    assert kind in KINDS


def test_fonts_have_all_their_signs():
    for characters, names in SIGN_FONTS.items():
        for name in names:
            font = ImageFont.truetype(str(print_fonts() / f"{name}.ttf"), 40)
            missing = bytes(font.getmask("\uffff"))
            assert [c for c in characters if bytes(font.getmask(c)) in (missing, b"")] == [], name


def test_symbols_can_be_left_out(monkeypatch):
    """A class of the user's own may be a letter or a sign."""
    drawn = []

    def named(kind):
        return lambda *_: drawn.append(kind.__name__) or np.zeros((28, 28), np.uint8)

    fakes = {kind: named(kind) for kind in KINDS}
    for name in ("KINDS", "SYMBOLS"):
        monkeypatch.setattr(outliers, name, tuple(fakes[kind] for kind in getattr(outliers, name)))
    outliers.outliers(torch.zeros(1, 28, 28, dtype=torch.uint8), 32, 0, with_symbols=False)
    assert {*drawn} == {"scribble", "shape", "spoiled", "plot", "noise"}

"""Digits drawn in the forms of school scripts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.augment.scripts import draw_scripts, forms
from training.config import ConfigError, TrainConfig
from training.loop.extras import draw_extras


def test_every_digit_has_several_forms():
    assert np.bincount([form.digit for form in forms()]).min() >= 4


def test_drawings_have_the_form_of_mnist():
    images, _ = draw_scripts(200, seed=0)
    assert images.dtype == torch.uint8
    assert (images.amax(dim=(1, 2)) == 255).all()
    places = torch.arange(28.0)
    for axis in (1, 2):
        across = images.float().sum(dim=3 - axis)
        assert (across.count_nonzero(dim=1) <= 21).all()
        middle = (across @ places) / across.sum(dim=1)
        assert (middle - 14).abs().median() <= 0.6


def test_each_digit_is_drawn_equally_often():
    _, digits = draw_scripts(100, seed=0)
    assert torch.bincount(digits).tolist() == [10] * 10


def test_same_seed_gives_the_same_drawings():
    first, again, other = (draw_scripts(50, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_two_drawings_are_equal():
    images, _ = draw_scripts(300, seed=0)
    assert len(images.flatten(1).unique(dim=0)) == 300


def test_run_learns_from_drawings_if_told(monkeypatch):
    monkeypatch.setattr("training.loop.extras.SCRIPT_DIGITS", 20)
    assert draw_extras(TrainConfig.of(), [], None) == []
    [(digits, share)] = draw_extras(TrainConfig.of(scripts=0.25), [], None)
    assert (len(digits), share) == (20, 0.25)


@pytest.mark.parametrize("given", [{"scripts": -0.1}, {"scripts": 1.5}, {"scripts": 0.1, "dataset": "fashion-mnist"}])
def test_setting_out_of_its_bounds_is_rejected(given):
    with pytest.raises(ConfigError, match="--scripts"):
        TrainConfig.of(**given)

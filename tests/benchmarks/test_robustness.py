"""Every step of the picture code that benchmarks/robustness.py switches off is one that pictures go through."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from benchmarks.digits import load_digits, spread
from benchmarks.drawings import draw
from benchmarks.robustness import ABLATED, STEPS, Reader
from serving.settings import RELEASE


@pytest.mark.parametrize("name", STEPS)
def test_step_can_be_switched_off(name):
    module, attribute, replacement = STEPS[name]
    new = mock.Mock(side_effect=replacement) if callable(replacement) else replacement
    digits, _ = load_digits("test")
    pictures = [picture for kind in ABLATED for picture in draw(kind, digits[:1])]
    with mock.patch.object(module, attribute, new):
        Reader(RELEASE, "mnist").pictures(pictures)
    assert not callable(replacement) or new.called


@pytest.mark.parametrize(("count", "expected"), [(4, [0, 2, 5, 7]), (10, list(range(10))), (99, list(range(10)))])
def test_digits_are_spread_evenly_over_the_set(count, expected):
    assert spread(np.arange(10), count).tolist() == expected

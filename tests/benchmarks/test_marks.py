"""The generated rows have the marks of their pattern, and the packaged model reads most of them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.digits import load_digits
from benchmarks.marks import DIGIT, PATTERNS
from benchmarks.numbers import marked, read
from serving.models import repository
from serving.settings import RELEASE

ROWS = 6


@pytest.fixture(scope="module")
def model():
    return repository.load(RELEASE, "mnist")


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_most_rows_are_read_with_their_marks(model, pattern):
    images, labels = load_digits("validation")
    random = np.random.default_rng(1)
    right = 0
    for _ in range(ROWS):
        picture, text = marked(pattern, images, labels, random)
        assert len(text) == sum(character in DIGIT for character in pattern)
        found = read(model, picture)
        marks = [separator for line in found.lines for separator in line.separators if separator.kind == "mark"]
        right += found.text == text and len(marks) == sum(character not in DIGIT | {" "} for character in pattern)
    assert right >= ROWS / 2

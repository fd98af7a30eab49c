"""mnist-predict --number reads all digits in each picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.support import ROOT

SEVEN = ROOT / "tests" / "seven.png"


@pytest.fixture
def number(tmp_path):
    """A picture of two sevens beside each other."""
    seven = np.asarray(Image.open(SEVEN).convert("L"))
    Image.fromarray(np.hstack([seven, seven])).save(tmp_path / "77.png")
    return tmp_path / "77.png"


def test_numbers_are_printed_and_every_file_has_its_row(run, number):
    done = run("mnist-predict", "--number", number, "none.png", SEVEN)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["file", "number", "confidence", "accepted"]
    assert [row[1] for row in rows[1:]] == ["77", "-", "7"]
    assert "No such file" in done.stdout
    assert done.returncode == 3


def test_json_has_the_lines_with_their_boxes(run, number):
    done = run("mnist-predict", "--number", "--json", number)
    [prediction] = json.loads(done.stdout)["predictions"]
    assert (prediction["file"], prediction["text"]) == (str(number), "77")
    [line] = prediction["lines"]
    assert [digit["digit"] for digit in line["digits"]] == [7, 7]
    left, right = (digit["box"] for digit in line["digits"])
    assert left[2] <= right[0]


@pytest.mark.parametrize("more", [["--output", "x.csv"], ["--engine", "ray"]])
def test_numbers_have_no_file_of_results(run, number, more):
    done = run("mnist-predict", "--number", number, *more)
    assert done.returncode == 2
    assert "--number: writes to standard output" in done.stderr

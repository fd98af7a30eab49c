"""The reason in an error, as one line of a message: also if the error has no text, such as a lack of memory."""

from __future__ import annotations

import click
import numpy as np
import pytest
import torch

import export.actions
import serving.errors
import training.actions
import training.reasons
from export.equivalence import ContractError, Reference

IMAGES = np.zeros((3, 28, 28), np.uint8)


@pytest.mark.parametrize("first_line", [serving.errors.first_line, training.reasons.first_line])
def test_first_line_is_that_of_the_text_or_the_name_of_the_class(first_line):
    assert first_line(ValueError("\none\ntwo")) == "one"
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(ValueError(" ")) == "ValueError"
    assert first_line(ValueError("x" * 400)) == "x" * 300


@pytest.mark.parametrize(
    "line",
    [serving.errors.first_line, serving.errors.last_line, training.reasons.first_line, training.reasons.one_line],
)
def test_reason_has_no_password(line):
    error = ValueError("request to http://user:p@ss@127.0.0.1:5000/api?to=a@b failed; see https://example.org/@me")
    assert line(error) == "request to http://127.0.0.1:5000/api?to=a@b failed; see https://example.org/@me"


def test_one_line_joins_the_lines():
    assert training.reasons.one_line(RuntimeError("Tried it, got:\n no route\n")) == "Tried it, got: no route"
    assert training.reasons.one_line(MemoryError()) == "MemoryError"
    assert training.reasons.one_line(ValueError("x " * 400)) == "x " * 150


def test_last_line_is_the_reason_of_a_traceback():
    assert serving.errors.last_line(RuntimeError("Traceback:\n  File 1\nValueError: wrong\n")) == "ValueError: wrong"
    assert serving.errors.last_line(RuntimeError()) == "RuntimeError"


@pytest.mark.parametrize(
    "explained",
    [
        lambda folder: training.actions.explained(folder, resumed=False),
        lambda folder: export.actions.explained(folder, "not published"),
    ],
)
def test_lack_of_memory_is_one_line(explained, tmp_path):
    with pytest.raises(click.ClickException, match="not enough memory"), explained(tmp_path):
        raise MemoryError


class Failing(torch.nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, images):
        raise self.error


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_lack_of_memory_does_not_make_a_file_differ(error):
    with pytest.raises(MemoryError):
        Reference(Failing(error), IMAGES)
    with pytest.raises(ContractError, match="fails on a batch of 1: ValueError"):
        Reference(Failing(ValueError()), IMAGES)

"""The images that the calibration is fitted on are drawn once and kept."""

from __future__ import annotations

import os
import pwd

import pytest
import torch

from tests.training.support import first
from training.trust import example_cache, examples
from training.trust.example_cache import KEPT, cached_examples


@pytest.fixture
def draws(monkeypatch):
    """Draw few images, and count how often they are drawn."""
    for name, value in (("CLEAN_DIGITS", 20), ("DISTORTED_DIGITS", 10), ("OUTLIERS", 20)):
        monkeypatch.setattr(examples, name, value)
    counted = []

    def draw(*arguments):
        counted.append(arguments)
        return examples.digits_and_outliers(*arguments)

    monkeypatch.setattr(example_cache, "digits_and_outliers", draw)
    return counted


def test_second_call_returns_the_kept_images(small, draws, tmp_path):
    one, two = (cached_examples(small.train, folder=tmp_path) for _ in range(2))
    assert len(draws) == 1
    assert all(map(torch.equal, one, two))


def test_other_training_images_are_drawn_anew(small, draws, tmp_path):
    cached_examples(small.train, folder=tmp_path)
    cached_examples(first(small.train, 100), folder=tmp_path)
    assert len(draws) == 2


def test_damaged_file_is_drawn_anew(small, draws, tmp_path):
    expected = cached_examples(small.train, folder=tmp_path)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    assert all(map(torch.equal, cached_examples(small.train, folder=tmp_path), expected))
    assert all(map(torch.equal, cached_examples(small.train, folder=tmp_path), expected))
    assert len(draws) == 2


def test_folder_that_cannot_be_written_is_no_error(small, draws, tmp_path):
    (tmp_path / "file").touch()
    digits, _ = cached_examples(small.train, folder=tmp_path / "file" / "folder")
    assert len(digits) == 30


def test_missing_home_folder_is_no_error(small, draws, monkeypatch):
    """A container may run as a user that the system does not know. The run has been trained by then."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    digits, _ = cached_examples(small.train)
    assert len(digits) == 30


def test_only_the_newest_files_are_kept(small, draws, tmp_path):
    tmp_path.joinpath("note.txt").touch()
    for age in range(KEPT + 2):
        old = tmp_path / f"{age}.pt"
        old.touch()
        os.utime(old, (age, age))
    cached_examples(small.train, folder=tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == KEPT
    assert not (tmp_path / "0.pt").exists()
    assert (tmp_path / "note.txt").exists()


def test_file_that_was_used_is_kept(small, draws, tmp_path):
    """Runs on small parts of the data do not remove the images for the whole, which take longest to draw."""
    cached_examples(small.train, folder=tmp_path)
    [used] = tmp_path.iterdir()
    os.utime(used, (0, 0))
    for age in range(KEPT):
        (tmp_path / f"{age}.pt").touch()
        os.utime(tmp_path / f"{age}.pt", (age + 1, age + 1))
    cached_examples(small.train, folder=tmp_path)
    cached_examples(first(small.train, 100), folder=tmp_path)
    assert used.exists()

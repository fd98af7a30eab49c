"""MNIST in memory, and its split into training, validation and test sets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.data.cache import default_cache
from training.data.datasets import DATASETS, FILES
from training.data.digits import load

TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def keys(digits):
    """Return each image as bytes, so that images can be members of a set."""
    return [image.tobytes() for image in digits.images.numpy()]


def same(a, b):
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def test_whole_data_set_is_in_memory_as_uint8():
    whole = load("mnist")
    for digits, counts in ((whole.train, TRAIN_COUNTS), (whole.test, TEST_COUNTS)):
        assert digits.images.shape == (sum(counts), 28, 28)
        assert digits.images.dtype == torch.uint8
        assert digits.images.is_contiguous()
        assert (digits.images.min(), digits.images.max()) == (0, 255)
        assert digits.labels.dtype == torch.int64
        assert digits.labels.bincount().tolist() == counts
    assert len(whole.validation) == 0
    assert whole.labels == tuple("0123456789")


def test_images_and_labels_belong_together(mnist):
    """Of all digits, zeros have the most ink and ones the least."""
    for digits in (mnist.train, mnist.validation, mnist.test):
        ink = [digits.images[digits.labels == label].float().mean().item() for label in range(10)]
        assert min(ink) == ink[1]
        assert max(ink) == ink[0]


def test_validation_set_is_taken_from_the_training_set(mnist):
    whole = load("mnist")
    assert (len(mnist.train), len(mnist.validation)) == (55_000, 5000)
    # No image occurs twice in MNIST's training set, so that images can be compared as sets.
    train, validation = set(keys(mnist.train)), set(keys(mnist.validation))
    assert len(train) == 55_000
    assert not train & validation
    assert train | validation == set(keys(whole.train))
    assert same(mnist.test, whole.test)
    assert mnist.validation.labels.bincount(minlength=10).min() > 400, "every class has a fair share"


def test_split_is_the_same_every_time(mnist):
    torch.manual_seed(1)
    again = load("mnist", validation=5000)
    assert same(again.train, mnist.train)
    assert same(again.validation, mnist.validation)


@pytest.mark.parametrize("subset", [1, 256])
def test_subset_does_not_change_the_validation_and_test_sets(mnist, subset):
    small = load("mnist", validation=5000, subset=subset)
    assert len(small.train) == subset
    assert torch.equal(small.train.images, mnist.train.images[:subset])
    assert same(small.validation, mnist.validation)
    assert same(small.test, mnist.test)


def test_subset_larger_than_the_training_set_keeps_all(mnist):
    assert same(load("mnist", validation=5000, subset=10**6).train, mnist.train)


def test_digests_are_those_of_the_official_files(mnist):
    assert mnist.digests == dict(zip(FILES, DATASETS["mnist"].digests, strict=True))


def test_take_returns_the_images_and_labels_at_the_indices(mnist):
    indices = torch.tensor([5, 0, 5, 54_999])
    taken = mnist.train.take(indices)
    assert torch.equal(taken.images, mnist.train.images[indices])
    assert torch.equal(taken.labels, mnist.train.labels[indices])


def test_load_reads_the_given_folder(mnist):
    cache = default_cache() / "mnist"
    assert same(load("mnist", folder=Path(cache)).test, mnist.test)

"""Digits: images and labels in memory, and how they are split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor

from training.data import sources
from training.networks import IMAGE_SIZE

# Headers of the IDX format: magic number and sizes, four bytes each.
IMAGE_HEADER, LABEL_HEADER = 16, 8
# One split for all seeds, so that runs are compared on the same images.
SPLIT_SEED = 20_200


@dataclass(frozen=True)
class Digits:
    """Images and their labels, whole in memory: 47 MB for MNIST, and a batch is one indexing away."""

    images: Tensor
    """uint8 ``[N, 28, 28]``, ink bright on dark."""
    labels: Tensor
    """int64 ``[N]``."""
    soft_labels: Tensor | None = None
    """The teachers' log-probabilities for these images, ``[N, C]``, if they come from the teacher cache."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Digits:
        """Those at ``indices``, int64 ``[K]``."""
        # index_select copies whole rows, five times as fast as images[indices] here.
        return self._each(lambda tensor: tensor.index_select(0, indices))

    def split(self, size: int) -> list[Digits]:
        """In parts of ``size``, the last one of what is left; they share memory with the whole."""
        return [self._each(itemgetter(slice(i, i + size))) for i in range(0, len(self), size)]

    def to(self, device: torch.device) -> Digits:
        """The same digits on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Digits:
        soft_labels = None if self.soft_labels is None else change(self.soft_labels)
        return Digits(change(self.images), change(self.labels), soft_labels)


@dataclass(frozen=True)
class Splits:
    """A data set, split for training: validation chooses, test is only reported."""

    name: str
    labels: tuple[str, ...]
    digests: dict[str, str]
    """SHA-256 of the official files by name."""
    train: Digits
    validation: Digits
    test: Digits


def load(name: str, *, folder: Path | None = None, validation: int = 0, subset: int = 0) -> Splits:
    """Load the data set ``name``, setting ``validation`` images of its training set aside.

    Args:
        folder: where to look first; see :func:`training.data.sources.fetch`.
        validation: how many training images to set aside, the same ones every time.
        subset: keep only so many of the others; 0 keeps all.

    Raises:
        DataError: no source gave the data.
    """
    dataset = sources.DATASETS[name]
    files = sources.fetch(dataset, folder)
    train, test = (
        Digits(_images(files[images]), _labels(files[labels]))
        for images, labels in zip(sources.IMAGE_FILES, sources.LABEL_FILES, strict=True)
    )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SPLIT_SEED))
    rest = order[validation:]
    return Splits(
        name=name,
        labels=dataset.labels,
        digests=dict(zip(sources.FILES, dataset.digests, strict=True)),
        train=train.take(rest[:subset] if subset else rest),
        validation=train.take(order[:validation]),
        test=test,
    )


def _images(content: bytes) -> Tensor:
    pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=IMAGE_HEADER)
    return pixels.view(-1, IMAGE_SIZE, IMAGE_SIZE)


def _labels(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=LABEL_HEADER).long()

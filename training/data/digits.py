"""Images and labels in memory, split into training, validation and test sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor

from training.data.datasets import DATASETS, FILES, IMAGE_FILES, LABEL_FILES
from training.data.errors import DataError
from training.data.sources import fetch
from training.networks import IMAGE_SIZE

# Bytes of the headers of IDX files: a magic number and the sizes, four bytes each.
IMAGE_HEADER, LABEL_HEADER = 16, 8
# Every run has the same split, whatever its seed, so that runs are compared on the same images.
SPLIT_SEED = 20_200
# The label of an image that belongs to no class.
NO_CLASS = -1


@dataclass(frozen=True)
class Digits:
    """Images and their labels, all in memory (47 MB for MNIST), so that a single indexing gives a batch."""

    images: Tensor
    """uint8 ``[N, 28, 28]``, bright ink on a dark background."""
    labels: Tensor
    """int64 ``[N]``."""
    soft_labels: Tensor | None = None
    """The teachers' log-probabilities for these images, ``[N, C]``, if they come from the teacher cache."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Digits:
        """Return the images and labels at ``indices``, int64 ``[K]``."""
        # index_select copies whole rows. It is five times as fast as images[indices] here.
        return self._each(lambda tensor: tensor.index_select(0, indices))

    def split(self, size: int) -> list[Digits]:
        """Return parts of ``size`` images, the last one possibly smaller. They share memory with the whole."""
        return [self._each(itemgetter(slice(i, i + size))) for i in range(0, len(self), size)]

    def to(self, device: torch.device) -> Digits:
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Digits:
        soft_labels = None if self.soft_labels is None else change(self.soft_labels)
        return Digits(change(self.images), change(self.labels), soft_labels)


@dataclass(frozen=True)
class Replay:
    """The replay data set, which a run must not forget, and the new images that it learns beside it."""

    name: str
    """The name of the replay data set."""
    labels: tuple[str, ...]
    """The classes of the replay data set. The run may have more."""
    test_images: int
    """How many images of the test set are of the replay data set. They are the first ones."""
    validation_images: int
    """The same of the validation set."""
    added: Digits
    """The new training images. Each step adds some of them to its batch."""
    is_own: bool
    """Whether the replay data set is the user's own."""
    left_out: tuple[str, ...] = ()
    """What both data sets have, and where it was left out, in lines."""


@dataclass(frozen=True)
class Splits:
    """A data set in three parts. The validation set is for the choice of settings, the test set for results."""

    name: str
    labels: tuple[str, ...]
    digests: dict[str, str]
    """SHA-256 of each official file, by its name."""
    train: Digits
    validation: Digits
    test: Digits
    prepare: str = "symbol"
    """How the service must bring a picture to 28x28; see ``serving.pictures.prepare``."""
    several: str = "rejected"
    """What the service does with a picture in several pieces: ``rejected`` or ``allowed``."""
    is_own: bool = False
    """Whether these are the user's pictures. Then the run folder keeps them, because nobody else has them."""
    replay: Replay | None = None
    """With ``--replay``: the new images. The training images are then those of the replay data set."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What a run writes into its folder before it begins, by name."""

    @property
    def train_images(self) -> int:
        """The number of all images to learn from."""
        return len(self.train) + (len(self.replay.added) if self.replay else 0)


def load(
    name: str,
    *,
    folder: Path | None = None,
    only_folder: bool = False,
    validation: int = 0,
    subset: int = 0,
    prepare: str = "symbol",
) -> Splits:
    """Return the data set ``name``, with ``validation`` images of its training set as the validation set.

    Args:
        folder, only_folder: see :func:`training.data.sources.fetch`.
        validation: size of the validation set. The same size gives the same images every time.
        subset: number of the other training images to keep; 0 keeps all.
        prepare: how the service must bring pictures to 28x28. The images of the data set stay as they are.

    Raises:
        DataError: no source has the data set, or the validation set leaves nothing to learn from.
    """
    dataset = DATASETS[name]
    files = fetch(dataset, folder, only_folder=only_folder)
    train, test = (
        Digits(_images(files[images]), _labels(files[labels]))
        for images, labels in zip(IMAGE_FILES, LABEL_FILES, strict=True)
    )
    learnt, held_out = divided(name, train, validation, subset)
    return Splits(
        name=name,
        labels=dataset.labels,
        digests=dict(zip(FILES, dataset.digests, strict=True)),
        train=learnt,
        validation=held_out,
        test=test,
        prepare=prepare,
    )


def divided(name: str, train: Digits, validation: int, subset: int) -> tuple[Digits, Digits]:
    """Return training images to learn from, at most ``subset`` if it is not 0, and ``validation`` others.

    Raises:
        DataError: nothing is left to learn from.
    """
    if validation >= len(train):
        raise DataError(f"{name}: has {len(train)} training images; --validation must be less, not {validation}")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SPLIT_SEED))
    rest = order[validation:]
    return train.take(rest[:subset] if subset else rest), train.take(order[:validation])


def shuffled(digits: Digits) -> Digits:
    """Return the images in random order, which is the same every time. So the first or last ones are of all classes."""
    return digits.take(torch.randperm(len(digits), generator=torch.Generator().manual_seed(SPLIT_SEED)))


def _images(content: bytes) -> Tensor:
    pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=IMAGE_HEADER)
    return pixels.view(-1, IMAGE_SIZE, IMAGE_SIZE)


def _labels(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=LABEL_HEADER).long()

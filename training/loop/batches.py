"""The batches of an epoch, in random order."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from training.config import TrainConfig
from training.data.digits import Digits

# Number of images that are copied to their new order at a time. Copying one batch at a time would take a twentieth of
# the time of a step of the mlp.
IMAGES_AT_A_TIME = 4096


def batches(config: TrainConfig, images: Digits, size: int, epoch: int, first: int) -> Iterator[Digits]:
    """Yield the batches of ``epoch``, beginning with batch number ``first``.

    The order depends on the seed of the run and the epoch only, so that a resumed run gets the same batches.
    """
    generator = torch.Generator().manual_seed(config.seed_for("order", epoch))
    order = torch.randperm(len(images), generator=generator)
    for indices in order[first * size :].split(max(1, IMAGES_AT_A_TIME // size) * size):
        yield from images.take(indices.to(images.labels.device, non_blocking=True)).split(size)

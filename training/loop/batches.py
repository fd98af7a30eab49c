"""The batches of an epoch, in random order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

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
    order = balanced_order(images.labels.cpu(), config.balance, generator)
    for indices in order[first * size :].split(max(1, IMAGES_AT_A_TIME // size) * size):
        yield from images.take(indices.to(images.labels.device, non_blocking=True)).split(size)


def balanced_order(labels: Tensor, balance: float, generator: torch.Generator) -> Tensor:
    """Return a random order of as many images as there are, in which images of rare classes may come several times.

    An image of a class with n images comes as often as n to the power of ``-balance``, relative to the others, up to a
    rounding to the next whole number. With equal classes, or with a balance of 0, each image comes once.

    Args:
        labels: int64 ``[N]``, on the CPU.
    """
    order = torch.randperm(len(labels), generator=generator)
    counts = labels.bincount()
    if not balance or (counts == counts[0]).all():
        return order
    shares = counts.double().pow(-balance)[labels[order]].cumsum(0)
    # On a line, every image has a piece as long as its share. Evenly spaced points on this line choose the images.
    points = (torch.arange(len(labels)) + torch.rand((), generator=generator)) * (shares[-1] / len(labels))
    chosen = order[torch.searchsorted(shares, points).clamp(max=len(labels) - 1)]
    return chosen[torch.randperm(len(labels), generator=generator)]

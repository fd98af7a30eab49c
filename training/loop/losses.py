"""The losses of the steps, which are read from the device only now and then."""

from __future__ import annotations

import time

import torch
from torch import Tensor

# On a GPU, reading a number takes longer than a small step, because the process waits for all steps before it.
SECONDS_BETWEEN_READINGS = 0.1


class Losses:
    """The losses that have not been read yet.

    Args:
        each: whether each loss is to be read at once.
    """

    def __init__(self, *, each: bool) -> None:
        self._each = each
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []
        self._read_at = time.monotonic()

    def add(self, loss: Tensor, images: int) -> None:
        """Keep the mean loss of a step on this many images."""
        self._losses.append(loss)
        self._sizes.append(images)

    @property
    def due(self) -> bool:
        """Whether it is time to read the losses."""
        return self._each or time.monotonic() - self._read_at >= SECONDS_BETWEEN_READINGS

    def read(self) -> list[tuple[float, int]]:
        """Return the losses since the last call with their numbers of images, the oldest first."""
        losses = [self._losses[0].item()] if len(self._losses) == 1 else torch.stack(self._losses).tolist()
        pairs = list(zip(losses, self._sizes, strict=True))
        self._losses, self._sizes = [], []
        self._read_at = time.monotonic()
        return pairs

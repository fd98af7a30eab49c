"""The moving average of the weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged_model(network: nn.Module, decay: float) -> AveragedModel | None:
    """Return a copy of ``network`` that averages its weights and buffers, or None if ``decay`` is 0."""
    return AveragedModel(network, multi_avg_fn=moving_average(decay), use_buffers=True) if decay else None


def moving_average(decay: float) -> Any:
    """Return the exponential moving average as a function for AveragedModel.

    The decay after n updates is min(decay, (1 + n) / (10 + n)), so that the average forgets the first steps quickly.
    """

    def average(averaged: Any, current: Any, count: Tensor) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, count)

    return average

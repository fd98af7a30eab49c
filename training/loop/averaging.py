"""Means of weights: the moving average of a run, and the mean of its first and last weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from training.networks import Network


class Average(AveragedModel):
    """A copy of ``network`` that averages its weights and buffers. Nothing here waits for their device.

    Args:
        decay: the highest decay per step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self._highest = decay
        [device] = {parameter.device for parameter in network.parameters()}
        # The kernels of a CUDA graph read the decay of each step from the same tensor. Elsewhere a number is faster.
        self._decay: float | Tensor = torch.zeros((), device=device) if device.type == "cuda" else 0.0
        pairs = list(zip(_values(self.module), _values(network), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averaged, self._current = [pair[0] for pair in floats], [pair[1] for pair in floats]
        self._integers = [pair for pair in pairs if not pair[0].is_floating_point()]

    def set_decay(self, step: int) -> None:
        """Set the decay of step number ``step``. The first step takes the weights as they are."""
        decay = decay_at(self._highest, step) if step else 0.0
        if isinstance(self._decay, Tensor):
            self._decay.fill_(decay)
        else:
            self._decay = decay

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights of the network."""
        decay = self._decay
        if isinstance(decay, Tensor):
            # _foreach_lerp_ takes its weight as a number only.
            moves = torch._foreach_sub(self._current, self._averaged)
            torch._foreach_mul_(moves, 1 - decay)
            torch._foreach_add_(self._averaged, moves)
        else:
            torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        for mean, value in self._integers:
            mean.copy_(mean * decay + value * (1 - decay))
        self.n_averaged += 1


def mix(network: Network, others: Mapping[str, Tensor], share: float) -> Network:
    """Return a copy of ``network`` that has the weights ``others`` to this share, 0..1."""
    mixed = copy.deepcopy(network)
    for name, value in mixed.state_dict().items():
        if value.is_floating_point():
            value.lerp_(others[name].to(value), share)
    return mixed


def decay_at(highest: float, updates: int) -> float:
    """Return the decay after ``updates`` updates.

    It begins low, so that the average forgets the first steps quickly.
    """
    return min(highest, (1 + updates) / (10 + updates))


def _values(network: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]

"""The calibration temperature, which makes a network's confidences match its accuracy.

The logits are divided by it, so that about nine in ten predictions with 90 % confidence are right
(Guo et al., arXiv:1706.04599). No prediction changes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The bounds of the search, as logarithms of the temperature.
LOWEST, HIGHEST = -2.0, 2.0
# Each step shortens the interval to this share of its length.
GOLDEN_RATIO = (5**0.5 - 1) / 2
SEARCH_STEPS = 30
# With fewer images than this the temperature stays nearer to 1. If a network makes no mistake on a few images, the best
# temperature for them would be the lowest possible one.
ENOUGH = 200


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature that gives ``logits [N, C]`` the lowest cross-entropy, by golden-section search."""

    def temperature(logarithm: float) -> float:
        return float(torch.tensor(logarithm).exp())

    def loss(logarithm: float) -> float:
        return F.cross_entropy(logits / temperature(logarithm), labels).item()

    low, high = LOWEST, HIGHEST
    a, b = high - GOLDEN_RATIO * (high - low), low + GOLDEN_RATIO * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    for _ in range(SEARCH_STEPS):
        if loss_a < loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - GOLDEN_RATIO * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + GOLDEN_RATIO * (high - low)
            loss_b = loss(b)
    return temperature((low + high) / 2 * min(1, len(labels) / ENOUGH))

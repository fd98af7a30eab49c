"""The optimizers by name, and the learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from training.config import TrainConfig

WARM_UP = 0.25  # share of a one-cycle run in which the rate rises
FIRST_RATE = 0.04  # of the peak


def build_optimizer(config: TrainConfig, network: nn.Module) -> Optimizer:
    """The optimizer that ``config`` names. Decay applies to weight matrices only."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate = config.learning_rate
    # fused updates all tensors in one call; on two cores it makes an epoch of the mlp a sixth shorter.
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=rate)
        case "adagrad":
            return torch.optim.Adagrad(groups, lr=rate, fused=True)
        case "momentum":
            return torch.optim.SGD(groups, lr=rate, momentum=0.9, fused=True)
        case "gd" | "sgd" | "mini-batch":
            # One rule; what tells them apart is the batch size.
            return torch.optim.SGD(groups, lr=rate, fused=True)
        case unknown:
            raise AssertionError(f"TrainConfig let {unknown!r} pass")


def rate_at(config: TrainConfig, progress: float) -> float:
    """The learning rate after ``progress`` of the run, 0..1.

    A function of progress alone, so a resumed run needs no scheduler state. One-cycle rises linearly
    to the peak, then falls along a half cosine to zero (Smith and Topin, arXiv:1708.07120).
    """
    if config.schedule == "constant":
        return config.learning_rate
    if progress < WARM_UP:
        return config.learning_rate * (FIRST_RATE + (1 - FIRST_RATE) * progress / WARM_UP)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Use ``rate`` from the next step on."""
    group: dict[str, Any]
    for group in optimizer.param_groups:
        group["lr"] = rate

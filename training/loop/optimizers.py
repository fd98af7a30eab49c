"""The optimizers by name, and the schedules of the learning rate."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.config import TrainConfig

# One-cycle: the share of the run in which the learning rate rises, and the first learning rate as a share of the peak.
WARM_UP = 0.25
FIRST_RATE = 0.04


def build_optimizer(config: TrainConfig, network: nn.Module) -> Optimizer:
    """Return the optimizer that ``config`` names. Weight decay applies to weight matrices only."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    [device] = {parameter.device for parameter in network.parameters()}
    on_gpu = device.type == "cuda"
    # The kernels of a CUDA graph read each learning rate from the same tensor. Elsewhere a number is faster.
    rate = torch.tensor(config.learning_rate, device=device) if on_gpu else config.learning_rate
    # fused=True updates all tensors in one call. On two cores it shortens an epoch of the mlp by a sixth.
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True, capturable=on_gpu)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, fused=True, capturable=on_gpu)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=rate, capturable=on_gpu)
        case "adagrad":
            return torch.optim.Adagrad(groups, lr=rate, fused=True)
        case "momentum":
            return torch.optim.SGD(groups, lr=rate, momentum=0.9, fused=True)
        case "gd" | "sgd" | "mini-batch":
            # These three have the same update rule. They differ in the batch size.
            return torch.optim.SGD(groups, lr=rate, fused=True)
        case unknown:
            raise AssertionError(f"TrainConfig let {unknown!r} pass")


def rate_at(config: TrainConfig, progress: float) -> float:
    """Return the learning rate after the share ``progress``, 0..1, of the run.

    It depends on the progress only, so that a resume needs no state of a scheduler. With one-cycle it rises linearly
    to the peak, then falls along half a cosine to zero (Smith and Topin, arXiv:1708.07120).
    """
    if config.schedule == "constant":
        return config.learning_rate
    if progress < WARM_UP:
        return config.learning_rate * (FIRST_RATE + (1 - FIRST_RATE) * progress / WARM_UP)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    group: dict[str, Any]
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Continue with the saved state of an optimizer, which may come from another kind of device."""
    saved = copy.copy(saved)
    # On a GPU, the learning rate is a tensor, and a graph can record the steps. So these two values are those of the
    # device of this run, not those of the saved one.
    saved["param_groups"] = [
        group | {key: own[key] for key in ("lr", "capturable") if key in own}
        for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict(saved)

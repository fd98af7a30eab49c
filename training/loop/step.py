"""One optimizer step: the loss, the gradients, the update of the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.digits import NO_CLASS
from training.loop import distributed
from training.loop.inputs import Inputs
from training.loop.optimizers import set_rate
from training.loop.state import State
from training.networks import autocast, normalize


def set_rate_and_decay(state: State, rate: float) -> None:
    """Set what differs from step to step: the learning rate, and the decay of the moving average of the weights."""
    set_rate(state.optimizer, rate)
    if state.averaged:
        state.averaged.set_decay(state.step)


def take_step(state: State, parts: Iterable[Inputs], size: int) -> Tensor:
    """Take one optimizer step on ``size`` images, and return their mean loss before the step, on their device.

    Nothing here waits for the device, and the same operations run in every step. So a CUDA graph can record them.
    """
    state.optimizer.zero_grad()
    losses = []
    for inputs in parts:
        loss = _summed_loss(state, inputs) / size
        # The gradients of the processes are averaged afterwards. The factor makes the average a sum.
        (loss * distributed.count()).backward()
        losses.append(loss.detach())
    state.optimizer.step()
    if state.averaged:
        state.averaged.update()
    return distributed.total(losses[0] if len(losses) == 1 else torch.stack(losses).sum(dtype=torch.float64))


def _summed_loss(state: State, inputs: Inputs) -> Tensor:
    config, extra = state.config, inputs.drawn
    images = torch.cat([inputs.images, extra.images]) if extra else inputs.images
    with autocast(config.precision, images.device):
        outputs = state.parallel(normalize(images)).float()
    logits = outputs[: len(inputs.labels)]
    loss = F.cross_entropy(logits, inputs.labels, label_smoothing=config.label_smoothing, reduction="sum")
    if inputs.soft_labels is not None:
        distillation = _distillation_loss(logits, inputs.soft_labels, config.distillation_temperature)
        loss = (1 - config.teacher_weight) * loss + config.teacher_weight * distillation
    if extra:
        drawn = outputs[len(logits) :]
        loss = loss + F.cross_entropy(drawn, _targets(extra.labels, drawn.shape[1]), reduction="sum")
    return loss


def _targets(labels: Tensor, classes: int) -> Tensor:
    """Return the probabilities that each label stands for, ``[N, C]``: for an outlier, all classes are as likely."""
    is_class = labels[:, None] == torch.arange(classes, device=labels.device)
    return torch.where(labels[:, None] == NO_CLASS, 1 / classes, is_class.float())


def _distillation_loss(logits: Tensor, soft_labels: Tensor, temperature: float) -> Tensor:
    """Return the summed divergence of the student from its teachers (Hinton et al., arXiv:1503.02531)."""
    divergence = F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(soft_labels / temperature, dim=1),
        reduction="sum",
        log_target=True,
    )
    # The gradient shrinks with the square of the temperature. The factor restores it.
    return divergence * temperature**2

"""One optimizer step: the inputs, the loss, the update of the weights.

All randomness of a step is a function of the seed and the number of the step, so that a resumed run takes the same
steps as an uninterrupted one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.augment.affine import augment
from training.augment.style import restyle
from training.config import TrainConfig
from training.data.classes import digits_of
from training.data.digits import Digits
from training.loop import distributed
from training.loop.optimizers import set_rate
from training.loop.state import State
from training.networks import autocast, normalize

# A larger batch is computed in parts of this size, whose gradients are added up. This bounds the memory. The step is
# the same except for rounding, and for BatchNorm, which sees one part at a time.
PART_SIZE = 4096
# With handwriting fonts, a step adds this many of their digits per image of the batch.
FONT_SHARE = 1 / 12


def take_step(state: State, batch: Digits, rate: float) -> float:
    """Take one optimizer step on ``batch`` and return the mean loss before the step.

    If the loss is not finite, the weights are not changed.
    """
    torch.default_generator.manual_seed(state.config.seed_for("step", state.step))
    set_rate(state.optimizer, rate)
    state.optimizer.zero_grad()
    total = 0.0
    for part in batch.split(PART_SIZE):
        loss = _summed_loss(state, _inputs(state, part)) / len(batch)
        # The gradients of the processes are averaged afterwards. The factor makes the average a sum.
        (loss * distributed.count()).backward()
        total += loss.item()
    total = distributed.total(total, batch.labels.device)
    if math.isfinite(total):
        state.optimizer.step()
        if state.averaged:
            state.averaged.update_parameters(state.network)
    return total


class Inputs(NamedTuple):
    """This process's part of the images of a step, as the student gets them, with their targets."""

    images: Tensor
    """Float ``[N, 28, 28]`` in 0..255, after augmentation and style augmentation."""
    labels: Tensor
    soft_labels: Tensor | None
    """The teachers' log-probabilities ``[N, C]``, if there are teachers."""
    font_digits: Digits | None
    """More images with labels, for which there are no soft labels."""


def _inputs(state: State, batch: Digits) -> Inputs:
    config, soft_labels = state.config, batch.soft_labels
    # Images from the teacher cache come with soft labels, and they are augmented already.
    augmented = batch.images if soft_labels is not None else _augment(config, batch.images)
    images = _restyle(config, augmented, digits_of(state.labels, batch.labels))
    font_digits = _font_digits(state, len(batch))
    # The images are divided among the processes after the augmentation, so that each image changes as in one process.
    if soft_labels is not None:
        soft_labels = distributed.share(soft_labels)
    elif state.teacher:
        # The teachers may have been trained without style augmentation, so they get the images without it.
        soft_labels = state.teacher.soft_labels(config, distributed.share(augmented))
    return Inputs(distributed.share(images), distributed.share(batch.labels), soft_labels, font_digits)


def _summed_loss(state: State, inputs: Inputs) -> Tensor:
    config, extra = state.config, inputs.font_digits
    images = torch.cat([inputs.images, extra.images]) if extra else inputs.images
    with autocast(config, images.device):
        outputs = state.parallel(normalize(images)).float()
    logits = outputs[: len(inputs.labels)]
    loss = F.cross_entropy(logits, inputs.labels, label_smoothing=config.label_smoothing, reduction="sum")
    if inputs.soft_labels is not None:
        distillation = _distillation_loss(logits, inputs.soft_labels, config.distillation_temperature)
        loss = (1 - config.teacher_weight) * loss + config.teacher_weight * distillation
    if extra:
        loss = loss + F.cross_entropy(outputs[len(logits) :], extra.labels, reduction="sum")
    return loss


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


def _augment(config: TrainConfig, images: Tensor) -> Tensor:
    return augment(
        images,
        torch.default_generator,
        strength=config.augment,
        rotation=config.rotate,
        mirror=config.mirror,
        elastic=config.elastic,
        contrast=config.contrast,
    )


def _restyle(config: TrainConfig, images: Tensor, labels: Tensor) -> Tensor:
    return restyle(images, labels, config.style, torch.default_generator) if config.style else images


def _font_digits(state: State, batch_size: int) -> Digits | None:
    """Return this process's part of random digits of fonts, after augmentation and style augmentation."""
    count = round(FONT_SHARE * batch_size)
    if not state.font_digits or not count:
        return None
    indices = torch.randint(len(state.font_digits), (count,)).to(state.font_digits.labels.device)
    chosen = state.font_digits.take(indices)
    images = _restyle(state.config, _augment(state.config, chosen.images), chosen.labels)
    return Digits(distributed.share(images), distributed.share(chosen.labels))

"""The inputs of each step: images after augmentation, labels, soft labels, drawn images.

All randomness of a step is a function of the seed and the number of the step, so that a resumed run takes the same
steps as an uninterrupted one. It does not depend on the device, nor on how many steps are prepared at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from training.augment.affine import apply_changes, augment, draw_changes, join_changes
from training.augment.style import restyle
from training.config import TrainConfig
from training.data.classes import NO_DIGIT, digits_of
from training.data.digits import NO_CLASS, Digits
from training.loop import distributed
from training.loop.state import State

# A larger batch is computed in parts of this size, whose gradients are added up. This bounds the memory. The step is
# the same except for rounding, and for BatchNorm, which sees one part at a time.
PART_SIZE = 4096
# On a GPU, the images of many steps are augmented in one call: a call for each step would take longer than the step.
# A larger number would only take more memory.
GPU_IMAGES_AT_A_TIME = 16_384


class Inputs(NamedTuple):
    """This process's part of the images of a step, as the student gets them, with their targets."""

    images: Tensor
    """Float ``[N, 28, 28]`` in 0..255, after augmentation and style augmentation."""
    labels: Tensor
    soft_labels: Tensor | None
    """The teachers' log-probabilities ``[N, C]``, if there are teachers."""
    drawn: Digits | None
    """Drawn digits and outliers with labels, for which there are no soft labels."""


def inputs_of_steps(
    state: State, batches: Iterable[Digits], images_at_a_time: int = 1
) -> Iterator[tuple[int, Iterator[Inputs]]]:
    """Yield the number of images of each step, and their inputs, part by part.

    Args:
        state: its ``step`` is the number of the first step.
        images_at_a_time: the most images that one call augments, those of several whole steps. A step that has more
            images is augmented alone.
    """
    batches, step = iter(batches), state.step
    while group := _next_group(batches, images_at_a_time):
        steps = range(step, step + len(group))
        generators = [torch.Generator().manual_seed(state.config.seed_for("step", each)) for each in steps]
        step += len(group)
        if len(group) == 1:
            yield len(group[0]), _parts(state, group[0], steps, generators)
        else:
            for batch, inputs in zip(group, _prepare(state, group, steps, generators), strict=True):
                yield len(batch), iter([inputs])


def _next_group(batches: Iterator[Digits], images_at_a_time: int) -> list[Digits]:
    first = next(batches, None)
    if first is None:
        return []
    # A batch in several parts is prepared alone, because its parts take their random numbers in turn.
    more = images_at_a_time // len(first) - 1 if len(first) <= PART_SIZE else 0
    return [first, *islice(batches, max(0, more))]


def _parts(
    state: State, batch: Digits, steps: Sequence[int], generators: Sequence[torch.Generator]
) -> Iterator[Inputs]:
    for part in batch.split(PART_SIZE):
        yield from _prepare(state, [part], steps, generators)


def _prepare(
    state: State, batches: Sequence[Digits], steps: Sequence[int], generators: Sequence[torch.Generator]
) -> Iterator[Inputs]:
    """Yield the inputs of each batch, which belongs to one of ``steps``. All are augmented in one call."""
    config = state.config
    labels: Sequence[Tensor] = [batch.labels for batch in batches]
    if config.style:
        # One copy for all batches, because the process waits for the GPU at each copy to the CPU.
        known = digits_of(state.labels, torch.cat(list(labels)).cpu())
        labels = known.split([len(batch) for batch in batches])
    augmented = _augment_together(config, batches, generators)
    for batch, images, known, step, generator in zip(batches, augmented, labels, steps, generators, strict=True):
        restyled = _restyle(config, images, known, generator)
        drawn = _drawn_images(state, step, len(batch), generator, images.device)
        # The images are divided among the processes after the augmentation, so that each image changes as in one.
        soft_labels = None if batch.soft_labels is None else distributed.share(batch.soft_labels)
        if soft_labels is None and state.teacher:
            # The teachers may have been trained without style augmentation, so they get the images without it.
            soft_labels = state.teacher.soft_labels(config, distributed.share(images))
        yield Inputs(distributed.share(restyled), distributed.share(batch.labels), soft_labels, drawn)


def _augment_together(
    config: TrainConfig, batches: Sequence[Digits], generators: Sequence[torch.Generator]
) -> Sequence[Tensor]:
    """Return the augmented images of each batch. Each batch takes its random numbers from its own generator."""
    # Images from the teacher cache come with soft labels, and they are augmented already.
    if batches[0].soft_labels is not None:
        return [batch.images for batch in batches]
    size, settings = batches[0].images.shape[1], config.augmentation()
    contrast = settings.pop("contrast")
    changes = [
        draw_changes(len(batch), size, generator, **settings)
        for batch, generator in zip(batches, generators, strict=True)
    ]
    images = torch.cat([batch.images for batch in batches]) if len(batches) > 1 else batches[0].images
    changed = apply_changes(images, join_changes(changes), contrast=contrast)
    parts: Sequence[Tensor] = changed.split([len(batch) for batch in batches])
    return parts


def _restyle(config: TrainConfig, images: Tensor, digits: Tensor, generator: torch.Generator) -> Tensor:
    return restyle(images, digits, config.style, generator) if config.style else images


def _drawn_images(
    state: State, step: int, batch_size: int, generator: torch.Generator, device: torch.device
) -> Digits | None:
    """Return this process's part of random images of each source, after augmentation and style augmentation."""
    config, taken = state.config, []
    for digits, share in state.drawn:
        count = drawn_count(share * batch_size, step)
        taken.append(digits.take(torch.randint(len(digits), (count,), generator=generator)))
    if not sum(map(len, taken)):
        return None
    images, labels = torch.cat([part.images for part in taken]), torch.cat([part.labels for part in taken])
    images = augment(images.to(device, non_blocking=True), generator, **config.augmentation())
    # Outliers have no class, and -1 would be the last one.
    known = torch.where(labels == NO_CLASS, NO_DIGIT, digits_of(state.labels, labels))
    images = _restyle(config, images, known, generator)
    return Digits(distributed.share(images), distributed.share(labels.to(device, non_blocking=True)))


def drawn_count(mean: float, step: int) -> int:
    """Return how many drawn images a step adds: ``mean``, rounded. If that is 0, some steps add one."""
    return round(mean) or math.floor((step + 1) * mean) - math.floor(step * mean)

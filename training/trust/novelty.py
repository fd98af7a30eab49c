"""The novelty score, which tells images that are not digits from digits.

The score is a small network on the features and logits of the finished network. It is fitted to separate digits
from other images (see :mod:`training.trust.examples`). An image with a score above the novelty threshold (see
:mod:`training.trust.acceptance`) is rejected as not a digit. No prediction changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks import Features, average_and_maximum
from training.openmp import at_most_threads
from training.reports import Report, no_report

HIDDEN = 64
# Scores are clamped to this size. For images unlike all that the score was fitted on, a larger score means nothing
# more, and a large float32 has few decimals.
LARGEST = 50.0
STEPS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, BETAS = 1000, 512, 0.05, 0.01, (0.9, 0.95)
# The learning rate rises for WARM_UP of the steps, from FIRST_RATE to 1 times LEARNING_RATE, and then falls to
# LAST_RATE times it.
WARM_UP, FIRST_RATE, LAST_RATE = 0.3, 1 / 25, 1 / 250_000
# How many steps are taken between two reports.
REPORT_EVERY = 50


class Novelty(nn.Module):
    """The novelty score of an image from its features and logits: higher means less like a digit.

    Args:
        inputs: length of the feature vector plus number of logits.
        maps: number of feature maps that the score reads with an additional convolution; 0 means no convolution. The
            maps come from before the network's last stage. They still hold what separates letters from digits. The
            last stage keeps mainly what separates digits from each other.
        strokes: the output channels of this convolution; half of ``maps`` if None.
        hidden: number of hidden units.
    """

    def __init__(self, inputs: int, maps: int = 0, *, strokes: int | None = None, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.inputs, self.maps = inputs, maps
        channels = maps // 2 if strokes is None else strokes
        self.strokes = (
            nn.Sequential(nn.Conv2d(maps, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
            if maps
            else None
        )
        self.hidden = nn.Linear(inputs + 2 * channels, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, features: Features, logits: Tensor) -> Tensor:
        """Return the scores ``[N]``, logits of "not a digit" from -LARGEST to LARGEST, for logits ``[N, C]``."""
        return self.of_inputs(torch.cat([features.vector, logits], dim=1), features.maps)

    def of_inputs(self, inputs: Tensor, maps: Tensor | None) -> Tensor:
        """Return the scores for feature vectors and logits that are one tensor, ``[N, inputs]``."""
        if self.strokes is not None:
            inputs = torch.cat([inputs, average_and_maximum(self.strokes(maps))], dim=1)
        score: Tensor = self.score(self.hidden(inputs).relu())
        return score.squeeze(1).clamp(-LARGEST, LARGEST)


class Outputs(NamedTuple):
    """What a network computes from N images: the input of the novelty score."""

    features: Features
    logits: Tensor

    def scaled(self, temperature: float) -> Outputs:
        """Return the same outputs with the logits divided by ``temperature``, as in the exported network."""
        return self._replace(logits=self.logits / temperature)

    def split(self, size: int) -> Iterator[Outputs]:
        """Yield the outputs of ``size`` images at a time. They share memory with the whole."""
        vector, maps = self.features
        for i in range(0, len(self.logits), size):
            part = slice(i, i + size)
            yield Outputs(Features(vector[part], None if maps is None else maps[part]), self.logits[part])


def fit_novelty(outputs: Outputs, targets: Tensor, generator: torch.Generator, report: Report = no_report) -> Novelty:
    """Return a score that was fitted to tell digits from other images.

    Args:
        targets: float ``[N]``, 0 for a digit and 1 for any other image.
        generator: source of the random batches. The initial weights come from torch's default generator.
        report: called now and then with the share of the steps that is done, 0..1.
    """
    vector, maps = outputs.features
    inputs = torch.cat([vector, outputs.logits], dim=1)
    mean, deviation = inputs.mean(dim=0), inputs.std(dim=0) + 1e-3
    novelty = Novelty(inputs.shape[1], 0 if maps is None else maps.shape[1])
    standardized = (inputs - mean) / deviation
    optimizer = torch.optim.AdamW(
        novelty.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS, fused=True
    )
    # The tensors are so small that several threads would mostly wait for each other, for minutes on a busy machine.
    with at_most_threads(1):
        for step in range(STEPS):
            if step % REPORT_EVERY == 0:
                report(step / STEPS)
            optimizer.param_groups[0]["lr"] = _rate_at(step)
            batch = torch.randint(len(inputs), (BATCH_SIZE,), generator=generator)
            # index_select copies whole rows. It is five times as fast as standardized[batch].
            scores = novelty.of_inputs(standardized.index_select(0, batch), _rows(maps, batch))
            loss = F.binary_cross_entropy_with_logits(scores, targets.index_select(0, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    # Fold the standardization into the first layer, so that the score takes vector and logits as they are.
    with torch.no_grad():
        weight = novelty.hidden.weight[:, : novelty.inputs]
        weight.div_(deviation)
        novelty.hidden.bias.sub_(weight @ mean)
    return novelty.eval()


def _rate_at(step: int) -> float:
    """Return the learning rate of a step: half a cosine up, and half a cosine down."""
    top = WARM_UP * STEPS - 1
    if step <= top:
        start, end, progress = FIRST_RATE, 1.0, step / top
    else:
        start, end, progress = 1.0, LAST_RATE, (step - top) / (STEPS - 1 - top)
    return LEARNING_RATE * (end + (start - end) / 2 * (1 + math.cos(math.pi * progress)))


def _rows(maps: Tensor | None, indices: Tensor) -> Tensor | None:
    return None if maps is None else maps.index_select(0, indices)

"""The novelty score, which tells images that are not digits from digits.

The score is a small network on the features and logits of the finished network. It is fitted to separate digits
from other images (see :mod:`training.trust.examples`). An image with a score above the rejection threshold (see
:mod:`training.trust.acceptance`) is rejected as not a digit. No prediction changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks import Features, average_and_maximum

HIDDEN = 128
# Scores are clamped to this size. For images unlike all that the score was fitted on, a larger score means nothing
# more, and a large float32 has few decimals.
LARGEST = 50.0
STEPS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, BETAS = 1000, 512, 0.05, 0.01, (0.9, 0.95)
# How many steps are taken between two reports.
REPORT_EVERY = 50


class Novelty(nn.Module):
    """The novelty score of an image from its features and logits: higher means less like a digit.

    Args:
        inputs: length of the feature vector plus number of logits.
        maps: number of feature maps that the score reads with an additional convolution; 0 means no convolution. The
            maps come from before the network's last stage. They still hold what separates letters from digits. The
            last stage keeps mainly what separates digits from each other.
    """

    def __init__(self, inputs: int, maps: int = 0) -> None:
        super().__init__()
        self.inputs, self.maps = inputs, maps
        self.strokes = (
            nn.Sequential(nn.Conv2d(maps, maps, 3, padding=1, bias=False), nn.BatchNorm2d(maps), nn.ReLU())
            if maps
            else None
        )
        self.hidden = nn.Linear(inputs + 2 * maps, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1)

    def forward(self, features: Features, logits: Tensor) -> Tensor:
        """Return the scores ``[N]``, logits of "not a digit" from -LARGEST to LARGEST, for logits ``[N, C]``."""
        inputs = [features.vector, logits]
        if self.strokes is not None:
            inputs.append(average_and_maximum(self.strokes(features.maps)))
        score: Tensor = self.score(self.hidden(torch.cat(inputs, dim=1)).relu())
        return score.squeeze(1).clamp(-LARGEST, LARGEST)


class Outputs(NamedTuple):
    """What a network computes from N images: the input of the novelty score."""

    features: Features
    logits: Tensor

    def scaled(self, temperature: float) -> Outputs:
        """Return the same outputs with the logits divided by ``temperature``, as in the exported network."""
        return self._replace(logits=self.logits / temperature)

    def take(self, indices: Tensor) -> Outputs:
        vector, maps = self.features
        return Outputs(Features(vector[indices], None if maps is None else maps[indices]), self.logits[indices])

    def split(self, size: int) -> Iterator[Outputs]:
        """Yield the outputs of ``size`` images at a time."""
        for indices in torch.arange(len(self.logits)).split(size):
            yield self.take(indices)


def fit_novelty(
    outputs: Outputs, targets: Tensor, generator: torch.Generator, report: Callable[[float], None] = lambda _: None
) -> Novelty:
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
    # Novelty concatenates vector and logits. Here the vector already holds both, standardized, and no logits follow.
    standardized = Outputs(Features((inputs - mean) / deviation, maps), inputs[:, :0])
    optimizer = torch.optim.AdamW(
        novelty.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS, fused=True
    )
    # Without cycling of the momentum, which would need another first beta in each step.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, cycle_momentum=False)
    with _one_thread():
        for step in range(STEPS):
            if step % REPORT_EVERY == 0:
                report(step / STEPS)
            batch = torch.randint(len(inputs), (BATCH_SIZE,), generator=generator)
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(novelty(*standardized.take(batch)), targets[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
    # Fold the standardization into the first layer, so that the score takes vector and logits as they are.
    with torch.no_grad():
        weight = novelty.hidden.weight[:, : novelty.inputs]
        weight.div_(deviation)
        novelty.hidden.bias.sub_(weight @ mean)
    return novelty.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread. The tensors are so small that several threads would mostly wait for each other.

    If other programs use the cores, such waiting takes minutes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""How far a finished network's answers are to be trusted: a temperature, and a score for what it does not know.

Neither changes an answer. The temperature divides the logits, so that a confidence of 90 % is right nine times
in ten (Guo et al., arXiv:1706.04599); it is fitted on validation images, as they are and mildly distorted, for
the clean ones alone hold too few mistakes. The novelty score is a small head on what the network's last layer
sees, fitted to tell training images from :mod:`training.outliers`; an image above its threshold is taken for
none of the classes. The threshold leaves out one in a hundred validation images. Any network will do.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.augment import augment
from training.data import Digits, Splits
from training.evaluate import BATCH, Evaluation
from training.foreign import foreign
from training.models import normalize
from training.outliers import outliers

FALSE_REJECTIONS = 0.01

# Images the score is fitted on: as they are, distorted, and outliers.
CLEAN, DISTORTED, OUTLIERS = 16_000, 8_000, 20_000
# Another pen or few pixels make no digit a stranger, and no letter a digit.
FOREIGN = 0.25
# Of the outliers this share is bent, by so many pixels: letters in print become more like written ones.
BENT, BENDING = 0.7, 1.0
NO_DIGIT = -1
HIDDEN = 128
STEPS, BATCH_SIZE, RATE = 2500, 256, 0.01


class Novelty(nn.Module):
    """Features ``[N, F]`` and logits ``[N, C]`` to a score ``[N]``, the higher the less like the training images."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Logit of being an outlier."""
        score: Tensor = self.score(self.hidden(torch.cat([features, logits], dim=1)).relu())
        return score.squeeze(1)


@dataclass(frozen=True)
class Calibration:
    """What is added to a network when it is exported."""

    temperature: float
    novelty: Novelty
    threshold: float

    def applied(self, evaluation: Evaluation) -> Evaluation:
        """The answers as the exported network gives them."""
        return Evaluation(evaluation.logits / self.temperature, evaluation.labels)

    def state(self) -> dict[str, Any]:
        """As a checkpoint takes it."""
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "inputs": self.novelty.hidden.in_features,
            "novelty": self.novelty.state_dict(),
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> Calibration:
        """From what :meth:`state` gave."""
        novelty = Novelty(state["inputs"])
        novelty.load_state_dict(state["novelty"])
        return cls(state["temperature"], novelty.eval(), state["threshold"])


def split(network: nn.Module) -> tuple[nn.Module, nn.Linear | None]:
    """The network without its last layer, and that layer; both are copies, on the CPU.

    Where the logits do not come from a last linear layer, all of the network and None.
    """
    whole = copy.deepcopy(network).cpu().eval()
    named = [(name, module) for name, module in whole.named_modules() if isinstance(module, nn.Linear)]
    if named:
        name, head = named[-1]
        body = copy.deepcopy(whole)
        body.set_submodule(name, nn.Identity())
        images = normalize(torch.arange(2 * 784).view(2, 28, 28) % 251)
        with torch.inference_mode():
            features = body(images)
            if features.shape == (2, head.in_features) and torch.equal(head(features), whole(images)):
                return body, head
    return whole, None


def calibrate(network: nn.Module, splits: Splits, seed: int) -> Calibration:
    """Fit temperature, score and threshold. The same network, data and seed give the same numbers.

    Without validation images the last training images stand in for them.
    """
    body, head = split(network)
    generator = torch.Generator().manual_seed(seed)
    held = splits.validation if len(splits.validation) else _last(splits.train, 5000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clean = _ask(body, head, held.images)
        moved = _ask(body, head, _distorted(held.images, generator))
        temperature = fit_temperature(torch.cat([clean[1], moved[1]]), torch.cat([held.labels, held.labels]).cpu())

        train = Digits(splits.train.images.cpu(), splits.train.labels.cpu())
        chosen = train.take(torch.randperm(len(train), generator=generator)[: CLEAN + DISTORTED])
        distinct = round(len(chosen) * DISTORTED / (CLEAN + DISTORTED))
        distorted = _distorted(chosen.images[:distinct], generator)
        known = torch.cat([_foreign(distorted, chosen.labels[:distinct], generator), chosen.images[distinct:]])
        strangers = outliers(train.images, min(OUTLIERS, max(64, len(train))), seed)
        bent = round(BENT * len(strangers))
        strangers = torch.cat([_distorted(strangers[:bent], generator, elastic=BENDING), strangers[bent:]])
        strangers = _foreign(strangers, torch.full((len(strangers),), NO_DIGIT), generator)
        inputs = torch.cat(
            [torch.cat([f, logits / temperature], 1) for f, logits in (_ask(body, head, i) for i in (known, strangers))]
        )
        targets = torch.cat([torch.zeros(len(known)), torch.ones(len(strangers))])
        novelty = _fit_novelty(inputs, targets, generator)
        with torch.inference_mode():
            scores = novelty(clean[0], clean[1] / temperature)
    return Calibration(temperature, novelty, float(scores.quantile(1 - FALSE_REJECTIONS)))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """What to divide ``logits [N, C]`` by for the least cross-entropy, by golden section."""
    ratio = (5**0.5 - 1) / 2
    low, high = -2.0, 2.0  # of the logarithm

    def loss(x: float) -> float:
        return F.cross_entropy(logits / float(torch.tensor(x).exp()), labels).item()

    a, b = high - ratio * (high - low), low + ratio * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    for _ in range(30):
        if loss_a < loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - ratio * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + ratio * (high - low)
            loss_b = loss(b)
    return float(torch.tensor((low + high) / 2).exp())


def _fit_novelty(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Novelty:
    mean, deviation = inputs.mean(dim=0), inputs.std(dim=0) + 1e-3
    scaled = (inputs - mean) / deviation
    novelty = Novelty(inputs.shape[1])
    features, logits = scaled[:, :0], scaled  # the split does not matter while fitting
    optimizer = torch.optim.AdamW(novelty.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        batch = torch.randint(len(inputs), (BATCH_SIZE,), generator=generator)
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(novelty(features[batch], logits[batch]), targets[batch])
        loss.backward()
        optimizer.step()
        schedule.step()
    # Scaling goes into the first layer.
    with torch.no_grad():
        novelty.hidden.weight.div_(deviation)
        novelty.hidden.bias.sub_(novelty.hidden.weight @ mean)
    return novelty.eval()


@torch.inference_mode()
def _ask(body: nn.Module, head: nn.Linear | None, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits. Without a head the logits are the features."""
    features = torch.cat([body(normalize(part)) for part in images.cpu().split(BATCH)])
    return features, head(features) if head else features


def _distorted(images: Tensor, generator: torch.Generator, elastic: float = 0.0) -> Tensor:
    if not len(images):
        return images.cpu()
    return augment(images.cpu(), generator, elastic=elastic).clamp(0, 255).round().to(torch.uint8)


def _foreign(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    # In parts, for all that are coarse in one batch have one number of pixels.
    parts = zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)
    return torch.cat([foreign(*part, FOREIGN, generator) for part in parts]).round().to(torch.uint8)


def _last(digits: Digits, count: int) -> Digits:
    return Digits(digits.images[-count:], digits.labels[-count:])

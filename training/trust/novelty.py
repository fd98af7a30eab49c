"""How far a finished network's answers are to be trusted: a temperature, and a score for what it does not know.

Neither changes an answer. The temperature divides the logits, so that a confidence of 90 % is right nine times
in ten (Guo et al., arXiv:1706.04599); it is fitted on validation images, as they are and mildly distorted, for
the clean ones alone hold too few mistakes. The novelty score is a small head on what the network's last layer
sees, fitted to tell training images from :mod:`training.augment.outliers` and, where there are fonts, from letters in
handwriting; an image above its threshold is taken for none of the classes. The threshold leaves out one in a
hundred validation images. Any network will do.
"""

from __future__ import annotations

import copy
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.augment.affine import augment
from training.augment.fonts import render_characters
from training.augment.outliers import outliers
from training.augment.style import restyle
from training.data.digits import Digits, Splits
from training.evaluate import BATCH, Evaluation
from training.networks import Cnn, normalize, over_places

FALSE_REJECTIONS = 0.01

# Images the score is fitted on: as they are, distorted, and outliers.
CLEAN, DISTORTED, OUTLIERS = 16_000, 8_000, 20_000
# With handwriting fonts, these in place of half the outliers, and twice the clean images; digits of the fonts are
# accepted, lest a font be told by its look.
WRITTEN_LETTERS, WRITTEN_DIGITS = 40_000, 10_000
# Another pen or few pixels make no digit a stranger, and no letter a digit.
FOREIGN, FOREIGN_LETTERS = 0.25, 0.1
# Of the outliers this share is bent, by so many pixels: letters in print become more like written ones.
BENT, BENDING = 0.7, 1.0
NO_DIGIT = -1
HIDDEN = 128
# Far from all that it was fitted on a score has no meaning, and float32 would keep too few decimals of a large one.
LARGEST = 50.0
STEPS, BATCH_SIZE, RATE, DECAY = 2500, 256, 0.01, 0.01


class Novelty(nn.Module):
    """Features ``[N, F]`` and logits ``[N, C]`` to a score ``[N]``, the higher the less like the training images.

    Args:
        inputs: F + C.
        maps: feature maps that it looks at itself, beside what the network makes of them, for a letter is told from a
            digit by what makes no difference between digits. 0 is none.
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

    def forward(self, features: Tensor, logits: Tensor, maps: Tensor | None = None) -> Tensor:
        """Logit of being an outlier, within LARGEST either way."""
        seen = [features, logits]
        if self.strokes is not None:
            seen.append(over_places(self.strokes(maps)))
        score: Tensor = self.score(self.hidden(torch.cat(seen, dim=1)).relu())
        return score.squeeze(1).clamp(-LARGEST, LARGEST)


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
            "inputs": self.novelty.inputs,
            "maps": self.novelty.maps,
            "novelty": self.novelty.state_dict(),
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> Calibration:
        """From what :meth:`state` gave."""
        novelty = Novelty(state["inputs"], state.get("maps", 0))  # older ones look at none
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


def look(body: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """What the last layer sees, and the feature maps of the stage before, where the network has such."""
    return body.see(inputs) if isinstance(body, Cnn) else (body(inputs), None)


def calibrate(network: nn.Module, splits: Splits, seed: int, fonts: Sequence[Path] = ()) -> Calibration:
    """Fit temperature, score and threshold. The same network, data, fonts and seed give the same numbers.

    Without validation images the last training images stand in for them.

    Args:
        fonts: handwriting, whose letters the score learns to refuse, those that look like digits as well as it can.
    """
    body, head = split(network)
    generator = torch.Generator().manual_seed(seed)
    held = splits.validation if len(splits.validation) else _last(splits.train, 5000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clean = _ask(body, head, held.images, strokes=bool(fonts))
        moved = _ask(body, head, _distorted(held.images, generator))
        temperature = fit_temperature(torch.cat([clean.logits, moved.logits]), torch.cat([held.labels] * 2).cpu())
        known, strangers = _examples(splits.train, fonts, seed, generator)
        seen = _ask(body, head, torch.cat([known, strangers]), strokes=bool(fonts))
        targets = torch.cat([torch.zeros(len(known)), torch.ones(len(strangers))])
        novelty = _fit_novelty(seen.at(temperature), targets, generator)
        with torch.inference_mode():
            scores = torch.cat([novelty(*part) for part in clean.at(temperature).split(BATCH)])
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


class Seen(NamedTuple):
    """What the score is made from, of N images."""

    features: Tensor
    logits: Tensor
    maps: Tensor | None

    def at(self, temperature: float) -> Seen:
        """With the logits as the exported network gives them."""
        return self._replace(logits=self.logits / temperature)

    def take(self, indices: Tensor) -> Seen:
        """Those of some images."""
        maps = None if self.maps is None else self.maps[indices]
        return Seen(self.features[indices], self.logits[indices], maps)

    def split(self, size: int) -> Iterator[Seen]:
        """So many at a time."""
        for indices in torch.arange(len(self.logits)).split(size):
            yield self.take(indices)


def _examples(train: Digits, fonts: Sequence[Path], seed: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Digits, and what is none."""
    train = Digits(train.images.cpu(), train.labels.cpu())
    clean, others, share = (2 * CLEAN, OUTLIERS // 2, FOREIGN_LETTERS) if fonts else (CLEAN, OUTLIERS, FOREIGN)
    chosen = train.take(torch.randperm(len(train), generator=generator)[: clean + DISTORTED])
    distinct = round(len(chosen) * DISTORTED / (clean + DISTORTED))
    distorted = _distorted(chosen.images[:distinct], generator)
    known = torch.cat([_foreign(distorted, chosen.labels[:distinct], FOREIGN, generator), chosen.images[distinct:]])
    enough = max(64, len(train))  # few digits are not to drown among what is made up
    strangers = outliers(train.images, min(others, enough), seed)
    if fonts:
        digits = _bent(render_characters(fonts, string.digits, min(WRITTEN_DIGITS, enough), seed), generator)
        known = torch.cat([known, _foreign(digits, _unlabelled(digits), FOREIGN, generator)])
        letters = render_characters(fonts, string.ascii_letters, min(WRITTEN_LETTERS, enough), seed)
        strangers = torch.cat([strangers, letters])
        strangers = strangers[torch.randperm(len(strangers), generator=generator)]
    strangers = _bent(strangers, generator)
    return known, _foreign(strangers, _unlabelled(strangers), share, generator)


def _fit_novelty(seen: Seen, targets: Tensor, generator: torch.Generator) -> Novelty:
    inputs = torch.cat([seen.features, seen.logits], dim=1)
    mean, deviation = inputs.mean(dim=0), inputs.std(dim=0) + 1e-3
    novelty = Novelty(inputs.shape[1], 0 if seen.maps is None else seen.maps.shape[1])
    # The split does not matter while fitting.
    scaled = Seen(inputs[:, :0], (inputs - mean) / deviation, seen.maps)
    optimizer = torch.optim.AdamW(novelty.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        batch = torch.randint(len(inputs), (BATCH_SIZE,), generator=generator)
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(novelty(*scaled.take(batch)), targets[batch])
        loss.backward()
        optimizer.step()
        schedule.step()
    # Scaling goes into the first layer.
    with torch.no_grad():
        weight = novelty.hidden.weight[:, : novelty.inputs]
        weight.div_(deviation)
        novelty.hidden.bias.sub_(weight @ mean)
    return novelty.eval()


@torch.inference_mode()
def _ask(body: nn.Module, head: nn.Linear | None, images: Tensor, *, strokes: bool = False) -> Seen:
    """Features and logits, with ``strokes`` the maps too. Without a head the logits are the features."""
    parts = [look(body, normalize(part)) for part in images.cpu().split(BATCH)]
    features = torch.cat([features for features, _ in parts])
    maps = [maps for _, maps in parts if strokes and maps is not None]
    return Seen(features, head(features) if head else features, torch.cat(maps) if maps else None)


def _distorted(images: Tensor, generator: torch.Generator, elastic: float = 0.0) -> Tensor:
    if not len(images):
        return images.cpu()
    return augment(images.cpu(), generator, elastic=elastic).clamp(0, 255).round().to(torch.uint8)


def _bent(images: Tensor, generator: torch.Generator) -> Tensor:
    count = round(BENT * len(images))
    return torch.cat([_distorted(images[:count], generator, elastic=BENDING), images[count:]])


def _unlabelled(images: Tensor) -> Tensor:
    # What has no label gets no upstroke, as ones may.
    return torch.full((len(images),), NO_DIGIT)


def _foreign(images: Tensor, labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    # In parts, for all that are coarse in one batch have one number of pixels.
    parts = zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)
    return torch.cat([restyle(*part, share, generator) for part in parts]).round().to(torch.uint8)


def _last(digits: Digits, count: int) -> Digits:
    return Digits(digits.images[-count:], digits.labels[-count:])

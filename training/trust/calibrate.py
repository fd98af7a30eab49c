"""Calibration of a finished network: the temperature, the novelty score and the acceptance thresholds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.data.digits import Digits, Splits
from training.evaluate import BATCH, Evaluation
from training.networks import Features, Network, normalize
from training.reports import Report, Stage, no_stage
from training.trust.acceptance import Scores, fit_thresholds
from training.trust.example_cache import cached_examples
from training.trust.examples import distort, styled
from training.trust.novelty import Novelty, Outputs, fit_novelty
from training.trust.temperature import fit_temperature

# Number of training images that take the place of the validation set in a run without one.
STAND_IN = 5000
# The acceptance thresholds are fitted on at least this many images, if there are so many. With one validation image
# alone, the thresholds rejected two in three right predictions; with 8, one in seven.
LEAST_JUDGED = 200
# With --replay, the new images, distorted, are this share of the digits that the novelty score is fitted on.
NEW_SHARE = 1 / 16


@dataclass(frozen=True)
class Calibration:
    """What the export adds to a network."""

    temperature: float
    novelty: Novelty
    threshold: float
    """An image with a higher novelty score is rejected as not a digit."""
    confidence: float | None = None
    """A prediction with a lower confidence is rejected as unsure. None in runs of version 0.1."""
    rejected: dict[str, float] = field(default_factory=dict)
    """Share of the validation images that each threshold rejects: ``novelty`` and ``confidence``."""

    def applied(self, evaluation: Evaluation) -> Evaluation:
        """Return ``evaluation`` with the logits of the exported network, divided by the temperature."""
        return Evaluation(evaluation.logits / self.temperature, evaluation.labels)

    def state(self) -> dict[str, Any]:
        """Return the content of ``calibration.pt``."""
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "confidence": self.confidence,
            "rejected": self.rejected,
            "inputs": self.novelty.inputs,
            "maps": self.novelty.maps,
            "novelty": self.novelty.state_dict(),
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> Calibration:
        """Return the calibration that :meth:`state` was called on."""
        weights = state["novelty"]
        # The sizes come from the weights, because the scores of earlier versions were larger.
        strokes = len(weights["strokes.0.weight"]) if state["maps"] else None
        novelty = Novelty(state["inputs"], state["maps"], strokes=strokes, hidden=len(weights["hidden.weight"]))
        novelty.load_state_dict(weights)
        return cls(
            temperature=state["temperature"],
            novelty=novelty.eval(),
            threshold=state["threshold"],
            confidence=state.get("confidence"),
            rejected=state.get("rejected", {}),
        )


def calibrate(
    network: Network, splits: Splits, seed: int, fonts: Sequence[Path] = (), stage: Stage = no_stage
) -> Calibration:
    """Fit temperature, novelty score and the acceptance thresholds on the CPU.

    The same network, data, fonts and seed give the same numbers.

    Args:
        fonts: handwriting fonts. With fonts, the novelty score learns to reject their letters. For this it also gets
            the network's feature maps.
    """
    network = copy.deepcopy(network).cpu().eval()
    generator = torch.Generator().manual_seed(seed)
    held_out, judged = held_out_digits(splits), judged_digits(splits)
    count = len(held_out)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        report = stage("fitting the calibration temperature")
        clean = _outputs(network, judged.images, maps=bool(fonts), report=report)
        # On the clean images alone the network makes too few mistakes to fit the temperature.
        distorted = _outputs(network, distort(held_out.images, generator), maps=False, report=report)
        temperature = fit_temperature(
            torch.cat([clean.logits[:count], distorted.logits]), torch.cat([held_out.labels, held_out.labels]).cpu()
        )
        report = stage("drawing images that are not digits")
        digits, others = cached_examples(splits.train, fonts, report, classes=splits.labels)
        if splits.replay:
            digits = torch.cat([digits, _new_images(splits.replay.added, len(digits), generator)])
        report = stage("running the network on these images")
        outputs = _outputs(network, torch.cat([digits, others]), maps=bool(fonts), report=report)
        targets = torch.cat([torch.zeros(len(digits)), torch.ones(len(others))])
        report = stage("fitting the novelty score")
        novelty = fit_novelty(outputs.scaled(temperature), targets, generator, report)
        report = stage("setting the acceptance thresholds")
        in_styles = _outputs(network, styled(judged, generator, splits.labels), maps=bool(fonts), report=report)
        scores = [_scores(novelty, each.scaled(temperature), judged.labels) for each in (clean, in_styles)]
        thresholds = fit_thresholds(*scores)
    rejected = thresholds.false_rejections(scores[0].first(count))
    return Calibration(temperature, novelty, *thresholds, rejected)


def held_out_digits(splits: Splits) -> Digits:
    """Return the images that the calibration is fitted on: the validation set, or the last training images."""
    if len(splits.validation):
        return splits.validation
    return _last(splits.train, STAND_IN)


def judged_digits(splits: Splits) -> Digits:
    """Return the images that the acceptance thresholds are fitted on: the held-out images, and after them the last
    training images if the validation set is small.
    """
    held_out = held_out_digits(splits)
    missing = LEAST_JUDGED - len(splits.validation)
    if not len(splits.validation) or missing <= 0:
        return held_out
    more = _last(splits.train, missing)
    return Digits(torch.cat([held_out.images, more.images]), torch.cat([held_out.labels, more.labels]))


def _last(digits: Digits, count: int) -> Digits:
    return Digits(digits.images[-count:], digits.labels[-count:])


def _new_images(added: Digits, others: int, generator: torch.Generator) -> Tensor:
    """Return the new images, as they are and distorted. They are at least NEW_SHARE of the other digits."""
    count = max(len(added), round(NEW_SHARE * others))
    indices = torch.randint(len(added), (count,), generator=generator)
    return torch.cat([added.images, distort(added.images[indices], generator)])


@torch.inference_mode()
def _scores(novelty: Novelty, outputs: Outputs, labels: Tensor) -> Scores:
    scores = torch.cat([novelty(*part) for part in outputs.split(BATCH)])
    return Scores.of(outputs.logits.softmax(dim=1).numpy(), scores.numpy(), labels.cpu().numpy())


@torch.inference_mode()
def _outputs(network: Network, images: Tensor, *, maps: bool, report: Report) -> Outputs:
    features = []
    for i, batch in enumerate(images.cpu().split(BATCH)):
        report(i * BATCH / len(images))
        of_batch = network.features(normalize(batch))
        # The feature maps of all images take hundreds of megabytes, so they are kept only if the score needs them.
        features.append(of_batch if maps else of_batch._replace(maps=None))
    vector = torch.cat([of_batch.vector for of_batch in features])
    kept = [of_batch.maps for of_batch in features if of_batch.maps is not None]
    return Outputs(Features(vector, torch.cat(kept) if kept else None), network.head(vector))

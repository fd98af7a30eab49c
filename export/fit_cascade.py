"""Fit a cascade on validation digits: how much its first network counts, and the thresholds of acceptance."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.cascade import Cascade
from export.run import Run
from training.data.digits import Splits
from training.evaluate import BATCH
from training.trust.acceptance import Scores, fit_thresholds
from training.trust.calibrate import held_out_digits
from training.trust.examples import styled

# The first network is the weaker one, so it counts for at most a half.
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
# On a few easy images the loss may be 0. Without this, the other set would then not count.
SMALL = 1e-6


class Outputs(NamedTuple):
    """The outputs of one graph for N images."""

    logits: Tensor
    probabilities: Tensor
    novelty: Tensor


def fit_cascade(run: Run, splits: Splits) -> Run:
    """Return ``run`` with the best share of its first network, and with thresholds for the whole cascade.

    They are fitted on the images that the run was calibrated on, as they are and in other styles. The share has the
    lowest product of the losses on both sets. A product gives both sets the same weight, although the losses on one are
    much larger.

    Args:
        run: the run of the second network, after that of the first one.
        splits: the data set of both runs.
    """
    cascade = run.graph()
    assert isinstance(cascade, Cascade)  # noqa: S101 (run.first is set)
    held_out = held_out_digits(splits)
    labels = held_out.labels.cpu()
    in_styles = styled(held_out, torch.Generator().manual_seed(run.record["config"]["seed"]), splits.labels)
    sets = [
        (_outputs(cascade.first, images), _outputs(cascade.second, images))
        for images in (held_out.images.cpu(), in_styles)
    ]

    def loss(share: float) -> float:
        losses = [F.cross_entropy(_joined(cascade, share, *each)[0], labels).item() for each in sets]
        return math.prod(each + SMALL for each in losses)

    share = min(SHARES, key=loss)
    clean, other = (_scores(*_joined(cascade, share, *each), labels) for each in sets)
    found = fit_thresholds(clean, other)
    calibration = replace(
        run.calibration,
        threshold=found.novelty,
        confidence=found.confidence,
        rejected=found.false_rejections(clean),
    )
    return replace(run, calibration=calibration, share=share)


def _joined(cascade: Cascade, share: float, of_first: Outputs, of_second: Outputs) -> tuple[Tensor, Tensor]:
    """Return logits and novelty scores with this share, from the outputs of both graphs for the same images."""
    left = ~cascade.is_sure(of_first.probabilities, of_first.novelty)
    logits = torch.where(left.unsqueeze(1), of_second.logits.lerp(of_first.logits, share), of_first.logits)
    return logits, torch.where(left, of_second.novelty.lerp(of_first.novelty, share), of_first.novelty)


def _scores(logits: Tensor, novelty: Tensor, labels: Tensor) -> Scores:
    return Scores.of(logits.softmax(dim=1).numpy(), novelty.numpy(), labels.numpy())


@torch.inference_mode()
def _outputs(graph: nn.Module, images: Tensor) -> Outputs:
    return Outputs(*map(torch.cat, zip(*map(graph, images.split(BATCH)), strict=True)))

"""Fit a cascade on validation digits: how much its first network counts, and the acceptance thresholds."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from export.cascade import Cascade
from export.equivalence import torch_classify
from export.run import Run
from serving.contract import ModelOutput
from training.data.digits import Splits
from training.trust.acceptance import Scores, fit_thresholds
from training.trust.calibrate import held_out_digits, judged_digits
from training.trust.examples import styled

# The first network is the weaker one, so it counts for at most a half.
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
# On a few easy images the loss may be 0. Without this, the other set would then not count.
SMALL = 1e-6


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
    judged = judged_digits(splits)
    labels = judged.labels.cpu()
    in_styles = styled(judged, torch.Generator().manual_seed(run.record["config"]["seed"]), splits.labels)
    first, second = torch_classify(cascade.first), torch_classify(cascade.second)
    sets = [(first(images), second(images)) for images in (judged.images.cpu().numpy(), in_styles.numpy())]

    def loss(share: float) -> float:
        joined = [torch.from_numpy(_joined(cascade, share, *each).logits) for each in sets]
        return math.prod(F.cross_entropy(logits, labels).item() + SMALL for logits in joined)

    share = min(SHARES, key=loss)
    joined = [_joined(cascade, share, *each) for each in sets]
    clean, other = (Scores.of(each.probabilities, each.novelty, labels.numpy()) for each in joined)
    found = fit_thresholds(clean, other)
    calibration = replace(
        run.calibration,
        threshold=found.novelty,
        confidence=found.confidence,
        rejected=found.false_rejections(clean.first(len(held_out_digits(splits)))),
    )
    return replace(run, calibration=calibration, share=share)


def _joined(cascade: Cascade, share: float, first: ModelOutput, second: ModelOutput) -> ModelOutput:
    """Return the output of the cascade with this share, from the outputs of both graphs for the same images."""
    is_sure = cascade.is_sure(torch.from_numpy(first.probabilities), torch.from_numpy(first.novelty)).numpy()
    logits = second.logits + share * (first.logits - second.logits)
    novelty = second.novelty + share * (first.novelty - second.novelty)
    logits[is_sure], novelty[is_sure] = first.logits[is_sure], first.novelty[is_sure]
    return ModelOutput(logits, torch.from_numpy(logits).softmax(dim=1).numpy(), novelty)

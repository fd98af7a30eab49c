"""The two acceptance thresholds: the highest novelty score and the lowest confidence.

A prediction is rejected as not a digit if its novelty score is above the novelty threshold, and as unsure if its
confidence is below the confidence threshold. Confidence tells right predictions from wrong ones best, and novelty tells
digits from other pictures.

The thresholds are as strict as they can be without rejecting more right predictions than allowed. The better a network
separates right from wrong predictions, the more wrong ones they reject. They are fitted to scores alone, so a network
of any framework can be fitted, also a published ONNX file.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Shares of right predictions that may be rejected, of clean validation digits and of validation digits in other styles.
CLEAN_REJECTIONS, STYLED_REJECTIONS = 0.01, 0.04
# The part of each share that the novelty score may use. The confidence may use the rest. More for the novelty score
# rejects more outliers and accepts more wrong predictions: 0.5, 0.6 and 0.75 reject 84.4, 86.3 and 87.8 % of the
# outliers of the packaged model, and accept wrong predictions for 1.5, 1.7 and 1.8 % of the validation digits in other
# styles.
NOVELTY_PART = 0.6

Floats = npt.NDArray[np.float64]


class Scores(NamedTuple):
    """The scores of N labelled images."""

    confidence: Floats
    """``[N]``: the probability of the predicted class."""
    novelty: Floats
    """``[N]``."""
    is_right: npt.NDArray[np.bool_]
    """``[N]``: whether the prediction is right."""

    @classmethod
    def of(cls, probabilities: npt.ArrayLike, novelty: npt.ArrayLike, labels: npt.ArrayLike) -> Scores:
        """Return the scores of images with these ``probabilities [N, C]``."""
        rows = np.asarray(probabilities, float)
        return cls(rows.max(axis=1), np.asarray(novelty, float), rows.argmax(axis=1) == np.asarray(labels))

    def first(self, count: int) -> Scores:
        """Return the scores of the first ``count`` images."""
        return Scores(self.confidence[:count], self.novelty[:count], self.is_right[:count])


class Thresholds(NamedTuple):
    """Which predictions are accepted: those with at most this novelty score and at least this confidence."""

    novelty: float
    confidence: float

    def false_rejections(self, scores: Scores) -> dict[str, float]:
        """Return the share of all images that each threshold rejects, right and wrong predictions together."""
        return {
            "novelty": float((scores.novelty > self.novelty).mean()),
            "confidence": float((scores.confidence < self.confidence).mean()),
        }


def fit_thresholds(clean: Scores, styled: Scores) -> Thresholds:
    """Return the strictest thresholds that reject no more right predictions than they may.

    Args:
        clean: scores of validation digits.
        styled: scores of validation digits with augmentation and style augmentation.
    """
    sets = (clean, CLEAN_REJECTIONS), (styled, STYLED_REJECTIONS)
    novelty = max(
        float(np.quantile(scores.novelty[scores.is_right], 1 - NOVELTY_PART * share)) if scores.is_right.any() else 0.0
        for scores, share in sets
    )
    # An image that the novelty score rejects counts once, so the confidence gets all that is left of each share.
    confidence = min(_lowest_confidence(scores, share, novelty) for scores, share in sets)
    # As float32, like the outputs of the graph. Then a comparison gives the same result in every precision. Both are
    # rounded to the side that rejects less.
    single_novelty, single_confidence = np.float32(novelty), np.float32(confidence)
    if float(single_novelty) < novelty:
        single_novelty = np.nextafter(single_novelty, np.float32(np.inf))
    if float(single_confidence) > confidence:
        single_confidence = np.nextafter(single_confidence, np.float32(-np.inf))
    return Thresholds(float(single_novelty), float(single_confidence))


def _lowest_confidence(scores: Scores, share: float, novelty: float) -> float:
    """Return the lowest confidence to accept, as high as possible.

    Both thresholds together reject at most ``share`` of the right predictions.
    """
    kept = np.sort(scores.confidence[scores.is_right & (scores.novelty <= novelty)])
    right = int(scores.is_right.sum())
    budget = int(share * right) - (right - len(kept))
    return float(kept[min(max(budget, 0), len(kept) - 1)]) if len(kept) else 0.0

"""What the metrics count of predictions: label, confidence, novelty, ink, and whether they are accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from serving.contract import IMAGE_SIZE, Images, ModelOutput, Reasons, RejectionReason

NO_REASONS: Reasons = {}


class Reference(Protocol):
    """The distribution of the predictions for the validation set."""

    def edges(self) -> Mapping[str, Sequence[float]]:
        """Return the bounds between the bins of confidence, novelty and ink."""

    def images(self) -> Mapping[str, Sequence[int]]:
        """Return the images of the validation set in each bin, by what is counted."""


class RecordedModel(Protocol):
    """The attributes of a model that the metrics read."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def reference(self) -> Reference | None:
        """The validation set; None if the bundle does not describe it."""

    def judge(self, images: Images, output: ModelOutput, reasons: Reasons) -> list[RejectionReason | None]:
        """Return for each image why it is rejected, or None if it is accepted."""


class Predictions(NamedTuple):
    """What is counted of N predictions."""

    labels: npt.NDArray[np.intp]
    """``[N]``: the index of the predicted class."""
    confidence: npt.NDArray[Any]
    """``[N]``: the probability of that class."""
    novelty: npt.NDArray[Any]
    """``[N]``: the novelty score; a higher one is less like a digit."""
    ink: npt.NDArray[Any]
    """``[N]``: mean brightness, from 0 to 1."""
    reasons: Sequence[RejectionReason | None]
    """Why each is rejected; None if it is accepted."""


def predictions_of(
    model: RecordedModel, images: Images, output: ModelOutput, reasons: Reasons = NO_REASONS
) -> Predictions:
    """Return what is counted of the predictions for uint8 ``images [N, 28, 28]``.

    Args:
        output: the model output for these images.
        reasons: the reasons that decoding has found.
    """
    pixels = images.reshape(len(images), IMAGE_SIZE**2)
    return Predictions(
        output.probabilities.argmax(axis=1),
        output.probabilities.max(axis=1),
        output.novelty,
        pixels.sum(axis=1, dtype=np.uint32) / (255 * IMAGE_SIZE**2),
        model.judge(images, output, reasons) if len(images) else [],
    )

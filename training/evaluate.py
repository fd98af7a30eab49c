"""Evaluation of a network on labelled images: loss, accuracy, confusion matrix, calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.digits import Digits
from training.networks import normalize

# Number of images in each call of the network. With 1000, the feature maps of the cnn leave the cache of a core, and a
# call takes a fifth longer per image. The outputs are the same bit for bit.
BATCH = 250


@dataclass(frozen=True)
class Evaluation:
    """The logits of a network for a set of labelled images, and the figures computed from them."""

    logits: Tensor
    """float32 ``[N, C]``, for C classes."""
    labels: Tensor
    """int64 ``[N]``."""

    @property
    def predictions(self) -> Tensor:
        """The most probable class of each image, int64 ``[N]``."""
        return self.logits.argmax(dim=1)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return F.cross_entropy(self.logits, self.labels).item()

    @property
    def correct(self) -> int:
        """The number of correct predictions."""
        return int((self.predictions == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """The share of correct predictions, 0..1."""
        return self.correct / len(self.labels)

    @property
    def confusion(self) -> Tensor:
        """The confusion matrix, int64 ``[C, C]``: a row for each true class, a column for each predicted class."""
        classes = self.logits.shape[1]
        return torch.bincount(self.labels * classes + self.predictions, minlength=classes**2).view(classes, -1)

    def calibration_error(self, bins: int = 15) -> float:
        """Return the expected calibration error, 0..1, over ``bins`` equal bins of confidence.

        The definition is from Guo et al., arXiv:1706.04599.
        """
        confidence, predictions = self.logits.softmax(dim=1).max(dim=1)
        correct = (predictions == self.labels).float()
        index = (confidence * bins).long().clamp_(max=bins - 1)
        # Each bin contributes |mean confidence - accuracy| times its share of the images. The number of images in the
        # bin cancels out. So each bin contributes |sum of (confidence - correct)| / number of all images.
        gaps = torch.zeros(bins).index_add_(0, index, confidence - correct)
        return gaps.abs().sum().item() / len(self.labels)

    def summary(self) -> dict[str, Any]:
        """Return the figures that ``run.json`` records."""
        return {
            "images": len(self.labels),
            "loss": self.loss,
            "correct": self.correct,
            "errors": len(self.labels) - self.correct,
            "accuracy": self.accuracy,
            "calibration_error": self.calibration_error(),
        }


@torch.inference_mode()
def evaluate(network: nn.Module, digits: Digits) -> Evaluation:
    """Run ``network`` in evaluation mode on every image and return the evaluation, with its tensors on the CPU."""
    was_training = network.training
    network.eval()
    logits = torch.cat([network(normalize(images)) for images in digits.images.split(BATCH)])
    network.train(was_training)
    return Evaluation(logits.float().cpu(), digits.labels.cpu())

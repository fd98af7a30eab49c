"""How good a network is: loss, accuracy, confusion, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.digits import Digits
from training.networks import normalize

BATCH = 1000


@dataclass(frozen=True)
class Evaluation:
    """A network's answers on a set of images, and what follows from them."""

    logits: Tensor
    """float32 ``[N, C]``."""
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
        """How many predictions are right."""
        return int((self.predictions == self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Share of right predictions, 0..1."""
        return self.correct / len(self.labels)

    @property
    def confusion(self) -> Tensor:
        """int64 ``[C, C]``: row the true class, column the predicted one."""
        classes = self.logits.shape[1]
        return torch.bincount(self.labels * classes + self.predictions, minlength=classes**2).view(classes, -1)

    def calibration_error(self, bins: int = 15) -> float:
        """Expected calibration error, 0..1, over equal bins of confidence (Guo et al., arXiv:1706.04599)."""
        confidence, predictions = self.logits.softmax(dim=1).max(dim=1)
        right = (predictions == self.labels).float()
        index = (confidence * bins).long().clamp_(max=bins - 1)
        # Sums over each bin of confidence minus accuracy; their sizes cancel against the bin weights.
        gaps = torch.zeros(bins).index_add_(0, index, confidence - right)
        return gaps.abs().sum().item() / len(self.labels)

    def summary(self) -> dict[str, Any]:
        """The figures for ``run.json``."""
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
    """Ask ``network``, in evaluation mode, about every image. The answer is on the CPU."""
    was_training = network.training
    network.eval()
    logits = torch.cat([network(normalize(images)) for images in digits.images.split(BATCH)])
    network.train(was_training)
    return Evaluation(logits.float().cpu(), digits.labels.cpu())

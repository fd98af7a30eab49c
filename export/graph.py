"""ServingGraph: the network as it is served, from pixels to logits, probabilities and novelty score."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from training.networks import Network, normalize
from training.trust.calibrate import Calibration


class ServingGraph(nn.Module):
    """A network with its input scaling, calibration and softmax, so that clients need not compute these.

    It takes uint8 ``images [N, 28, 28]``.

    Args:
        network: it is copied, and the copy is on the CPU in evaluation mode.
    """

    outputs = ("logits", "probabilities", "novelty")
    """The names of the outputs: float32 ``[N, C]``, ``[N, C]`` and ``[N]``."""

    def __init__(self, network: Network, calibration: Calibration) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu()
        self.novelty = calibration.novelty
        # Dividing the last layer divides the logits, and it costs no time when the graph runs.
        with torch.no_grad():
            self.network.head.weight.div_(calibration.temperature)
            self.network.head.bias.div_(calibration.temperature)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, probabilities and novelty scores."""
        features = self.network.features(normalize(images))
        logits = self.network.head(features.vector)
        return logits, logits.softmax(dim=1), self.novelty(features, logits)

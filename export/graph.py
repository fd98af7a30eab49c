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
        # Convolutions of torch are nearly twice as fast so, and the ONNX file is the same.
        self.network = copy.deepcopy(network).cpu().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.novelty = calibration.novelty
        # Dividing the last layer divides the logits, and it costs no time when the graph runs.
        with torch.no_grad():
            self.network.head.weight.div_(calibration.temperature)
            self.network.head.bias.div_(calibration.temperature)
        for module in self.network.modules():
            if isinstance(module, nn.Sequential):
                pool_last(module)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, probabilities and novelty scores."""
        features = self.network.features(normalize(images))
        logits = self.network.head(features.vector)
        return logits, logits.softmax(dim=1), self.novelty(features, logits)


def pool_last(layers: nn.Sequential) -> None:
    """Move each pooling behind the normalization and the ReLU that follow it.

    Training is faster with the pooling first, because normalization and ReLU then see a quarter of the values. A served
    network is faster with the pooling last: onnxruntime merges normalization and ReLU into the convolution, but only if
    they come directly after it. The maximum of scaled values is the scaled maximum, unless a factor is negative. A
    normalization with a negative factor therefore keeps its place.
    """
    for i in range(len(layers) - 2):
        pool, norm, relu = layers[i], layers[i + 1], layers[i + 2]
        if (
            isinstance(pool, nn.MaxPool2d)
            and isinstance(norm, nn.BatchNorm2d)
            and isinstance(relu, nn.ReLU)
            and bool((norm.weight >= 0).all())
        ):
            layers[i], layers[i + 1], layers[i + 2] = norm, relu, pool

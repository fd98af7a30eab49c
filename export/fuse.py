"""Write a ServingGraph in fewer steps, so that the ONNX file gives the same numbers in less time.

A step of onnxruntime takes about a microsecond, however little it computes. That counts for a single image: the steps
below take a tenth off the time of ``cnn-light``. In large batches they make no difference.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.graph import ServingGraph
from training.networks import DEVIATION, MEAN, Cnn, Network, normalize
from training.trust.novelty import LARGEST


class FusedGraph(nn.Module):
    """The same function as a :class:`ServingGraph`.

    - The first layer also scales the pixels, unless it pads the image: scaled paper is not zero.
    - The logits are a linear function of the features. So the novelty score, which takes both, can take the features
      alone.
    - The features of the network and those of the score are one tensor, which the head and the score both take.
    """

    def __init__(self, graph: ServingGraph) -> None:
        super().__init__()
        graph = copy.deepcopy(graph)
        self.network, novelty = graph.network, graph.novelty
        self.strokes, self.score, head = novelty.strokes, novelty.score, self.network.head
        of_vector, of_logits, of_strokes = novelty.hidden.weight.split(
            [head.in_features, head.out_features, novelty.hidden.in_features - novelty.inputs], dim=1
        )
        with torch.no_grad():
            self.hidden = _linear(
                torch.cat([of_vector + of_logits @ head.weight, of_strokes], dim=1),
                novelty.hidden.bias + of_logits @ head.bias,
            )
            self.head = _linear(F.pad(head.weight, (0, of_strokes.shape[1])), head.bias)
            self.takes_pixels = _take_pixels(self.network)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, probabilities and novelty scores."""
        features = self._features(images.float().unsqueeze(1) if self.takes_pixels else normalize(images))
        logits = self.head(features)
        scores = self.score(self.hidden(features).relu()).squeeze(1)
        return logits, logits.softmax(dim=1), scores.clamp(-LARGEST, LARGEST)

    def _features(self, x: Tensor) -> Tensor:
        """Return the features of the network, and behind them those of the score."""
        if not isinstance(self.network, Cnn):
            vector: Tensor = self.network.features(x).vector
            return vector
        maps = self.network.first_stages(x)
        parts = [self.network.last_stage(maps)] + ([self.strokes(maps)] if self.strokes else [])
        # onnxruntime pools in the layout of its convolutions. For a mean or a maximum it would leave that layout first.
        side = maps.shape[-1]
        return torch.cat([pool(part, side) for part in parts for pool in (F.avg_pool2d, F.max_pool2d)], dim=1).flatten(
            1
        )


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


def _take_pixels(network: Network) -> bool:
    """Let the first layer take pixels in 0..255, and return whether it could."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    if isinstance(first, nn.Conv2d) and first.padding != (0, 0):
        return False
    shift = -MEAN / DEVIATION * first.weight.flatten(1).sum(dim=1)
    first.bias = nn.Parameter(shift if first.bias is None else first.bias + shift)
    first.weight.div_(255 * DEVIATION)
    return True

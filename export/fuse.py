"""FusedGraph: the function of a ServingGraph in fewer steps, for the ONNX file.

Each step of onnxruntime takes about a microsecond, even if it computes little. For a single image, a tenth of the time
is saved here. In large batches little is saved.
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

    - The first layer scales the pixels too, if it has no padding. Padding is zero, and scaled paper is not.
    - The novelty score takes the features alone. In a ServingGraph it also takes the logits, but they are a linear
      function of the features.
    - Head and score take the same tensor. It holds the features of the network and those of the score.
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
        # As poolings, mean and maximum run in the layout of onnxruntime's convolutions, so nothing has to be reordered.
        side = maps.shape[-1]
        pooled = [pool(part, side) for part in parts for pool in (F.avg_pool2d, F.max_pool2d)]
        return torch.cat(pooled, dim=1).flatten(1)


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

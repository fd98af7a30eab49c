"""Cascade: a small network in front of the network of a run. It decides the images that it is sure about.

Most digits are easy to read. A network with a sixth of the multiplications reads them as well, and only the others
need the larger one. P. Viola and M. Jones, "Rapid object detection using a boosted cascade of simple features" (CVPR
2001), describe this idea. Both networks together decide the others, because they make different mistakes, and the
outputs of the first one are already known.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from export.graph import ServingGraph

# The first network decides an image if its class has at least the first probability, and if the image is a digit or
# symbol at all with at least the second one. The novelty score is the logit of the probability that it is neither.
SURE, FAMILIAR = 0.995, 0.75


class Cascade(nn.Module):
    """Two graphs with the input and the outputs of a single :class:`ServingGraph`.

    Args:
        first: the graph that sees all images, a ServingGraph or a TorchScript module of one.
        second: the graph that also sees the images about which the first one is not sure.
        share: how much the first graph counts for these images, from 0 to 1. Their logits and novelty scores are
            weighted means of both graphs.
        sure: the first graph decides an image only if its class has at least this probability, between 0 and 1,
        familiar: and only if the image is one of the classes at all with at least this probability, between 0 and 1.
    """

    outputs = ServingGraph.outputs

    def __init__(
        self, first: nn.Module, second: nn.Module, share: float = 0.0, sure: float = SURE, familiar: float = FAMILIAR
    ) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.share, self.sure, self.familiar = share, sure, familiar
        self.highest_novelty = -math.log(familiar / (1 - familiar))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, probabilities and novelty scores."""
        logits, probabilities, novelty = self.first(images)
        left = ~self.is_sure(probabilities, novelty)
        if bool(left.any()):
            of_second = self.second(images[left])
            logits[left] = of_second[0].lerp(logits[left], self.share)
            probabilities[left] = logits[left].softmax(dim=1)
            novelty[left] = of_second[2].lerp(novelty[left], self.share)
        return logits, probabilities, novelty

    def is_sure(self, probabilities: Tensor, novelty: Tensor) -> Tensor:
        """Return for each image whether the first graph decides it, from the outputs of that graph."""
        return (probabilities.amax(dim=1) >= self.sure) & (novelty <= self.highest_novelty)

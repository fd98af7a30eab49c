"""Cascade: a small network in front of the network of a run. It decides the images that it is sure about.

Most digits are easy to read. A network with a fifth of the operations reads them as well, and only the others need the
larger one. P. Viola and M. Jones, "Rapid object detection using a boosted cascade of simple features" (CVPR 2001),
describe this idea.
"""

from __future__ import annotations

from torch import Tensor, nn

from export.graph import ServingGraph

# The first network decides an image if its class has at least this probability, and if the image is more probably a
# digit or symbol than not: the novelty score is the logit of the opposite.
SURE = 0.99


class Cascade(nn.Module):
    """Two graphs with the input and the outputs of a single :class:`ServingGraph`.

    Args:
        first: the graph that sees all images, a ServingGraph or a TorchScript module of one.
        second: the graph that decides the images about which the first one is not sure.
        sure: probability of its class that an image must have for the first graph, between 0 and 1.
    """

    outputs = ServingGraph.outputs

    def __init__(self, first: nn.Module, second: nn.Module, sure: float = SURE) -> None:
        super().__init__()
        self.first, self.second, self.sure = first, second, sure
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, probabilities and novelty scores."""
        logits, probabilities, novelty = self.first(images)
        left = ~self.is_sure(probabilities, novelty)
        if bool(left.any()):
            of_second = self.second(images[left])
            logits[left] = of_second[0]
            probabilities[left] = of_second[1]
            novelty[left] = of_second[2]
        return logits, probabilities, novelty

    def is_sure(self, probabilities: Tensor, novelty: Tensor) -> Tensor:
        """Return for each image whether the first graph decides it, from the outputs of that graph."""
        return (probabilities.amax(dim=1) >= self.sure) & (novelty <= 0)

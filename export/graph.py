"""ServingGraph: pixels in, logits and probabilities out, nothing left for a client to get wrong."""

from __future__ import annotations

from torch import Tensor, nn

from training.models import normalize


class ServingGraph(nn.Module):
    """uint8 ``images [N, 28, 28]`` to ``logits`` and ``probabilities``, float32 ``[N, C]``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scale, ask the network, softmax."""
        logits = self.network(normalize(images))
        return logits, logits.softmax(dim=1)

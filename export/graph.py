"""ServingGraph: pixels in, logits, probabilities and novelty out, nothing left for a client to get wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.networks import normalize
from training.trust.novelty import Calibration, look, split


class ServingGraph(nn.Module):
    """uint8 ``images [N, 28, 28]`` to ``logits`` and ``probabilities``, float32 ``[N, C]``, and ``novelty [N]``.

    Args:
        calibration: of the network; without it there is no ``novelty``, and the temperature is 1.
    """

    def __init__(self, network: nn.Module, calibration: Calibration | None = None) -> None:
        super().__init__()
        self.network, head = (network, None) if calibration is None else split(network)
        self.head = head
        self.novelty = calibration.novelty if calibration else None
        self.scale = 1.0
        if calibration is not None and head is not None:
            # Folded into the last layer, the temperature costs nothing.
            with torch.no_grad():
                head.weight.div_(calibration.temperature)
                head.bias.div_(calibration.temperature)
        elif calibration is not None:
            self.scale = 1 / calibration.temperature
        self.eval()

    @property
    def outputs(self) -> list[str]:
        """Their names in order."""
        return ["logits", "probabilities", *(["novelty"] if self.novelty is not None else [])]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Scale, ask the network, softmax; ask how novel it is."""
        features, maps = look(self.network, normalize(images))
        logits = features if self.head is None else self.head(features)
        if self.scale != 1:
            logits = logits * self.scale
        answers = (logits, logits.softmax(dim=1))
        return answers if self.novelty is None else (*answers, self.novelty(features, logits, maps))

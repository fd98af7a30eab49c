"""An ensemble of trained networks. It teaches a student, and the accuracy benchmark evaluates it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training import trained
from training.config import TrainConfig
from training.networks import Network, autocast, normalize


class Ensemble(nn.Module):
    """Networks whose probabilities are averaged.

    The output is the logarithm of the mean probabilities. It can be used as logits, because its softmax is that mean.
    """

    digests: dict[str, str]
    """SHA-256 of the file of each network's weights, by the name of its run folder or published version."""
    order: tuple[str, ...]
    """The classes of the output, if their order is not that of each network when it was trained."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.digests = {}
        self.order = ()

    @classmethod
    def load(cls, places: Sequence[Path | str], labels: Sequence[str] = ()) -> Ensemble:
        """Load the networks of finished runs and published versions, in evaluation mode and without gradients.

        The order of the places does not matter, not even for rounding.

        Args:
            labels: the classes of each network, in the order that the output should have; the default is that of the
                networks.

        Raises:
            OSError, ValueError, KeyError, TypeError, RuntimeError, CheckpointError: a place holds no such network, or
                it is damaged.
        """
        networks: dict[str, Network] = {}
        digests: dict[str, str] = {}
        order: tuple[str, ...] = ()
        for place in map(str, places):
            network, _, known, digests[place] = trained.read(place)
            if labels and known != tuple(labels):
                order = tuple(labels)
                _reorder(network, [known.index(label) for label in labels])
            networks[digests[place]] = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ensemble = cls([networks[digest] for digest in sorted(digests.values())]).eval().requires_grad_(False)
        ensemble.digests = digests
        ensemble.order = order
        return ensemble

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities ``[N, C]`` for network input ``[N, 1, 28, 28]``."""
        outputs = torch.stack([network(x).float().log_softmax(dim=1) for network in self.networks])
        return outputs.logsumexp(dim=0) - math.log(len(self.networks))

    def soft_labels(self, config: TrainConfig, images: Tensor) -> Tensor:
        """Return log-probabilities ``[N, C]`` for images in 0..255 ``[N, 28, 28]``, in the precision of ``config``."""
        with torch.no_grad(), autocast(config.precision, images.device):
            outputs: Tensor = self(normalize(images))
        return outputs.float()


def _reorder(network: Network, classes: list[int]) -> None:
    """Give the outputs of ``network`` the order of ``classes``."""
    with torch.no_grad():
        network.head.weight.copy_(network.head.weight[classes])
        network.head.bias.copy_(network.head.bias[classes])

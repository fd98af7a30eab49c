"""Finished networks, one or several, asked together: by those who learn from them, and to be measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training import checkpoint
from training.networks import build


class Ensemble(nn.Module):
    """Networks whose mean probabilities are the answer.

    What :meth:`forward` gives is the logarithm of that mean, which serves as logits: its softmax is the mean itself.
    """

    digests: dict[str, str]
    """SHA-256 of each network's ``model.pt`` by its run folder, where it was loaded from one."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.digests = {}

    @classmethod
    def load(cls, folders: Sequence[Path]) -> Ensemble:
        """The networks of finished runs, for evaluation only.

        Raises:
            CheckpointError: a folder's ``model.pt`` is damaged or something else.
            OSError: it could not be read.
        """
        networks, digests = [], {}
        for folder in folders:
            digests[str(folder)] = hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()
            saved = checkpoint.load(folder / "model.pt")
            network = build(saved["model"])
            network.load_state_dict(saved["weights"])
            networks.append(network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        ensemble = cls(networks).eval().requires_grad_(False)
        ensemble.digests = digests
        return ensemble

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities ``[N, 10]`` of network input ``[N, 1, 28, 28]``."""
        answers = torch.stack([network(x).float().log_softmax(dim=1) for network in self.networks])
        return answers.logsumexp(dim=0) - math.log(len(self.networks))

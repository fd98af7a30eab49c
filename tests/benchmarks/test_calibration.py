"""The networks whose calibrations are compared."""

from __future__ import annotations

import torch

from benchmarks import calibration
from training.networks import build


def test_network_is_trained(mnist, monkeypatch):
    monkeypatch.setattr(calibration, "TRAINED_IMAGES", 256)
    network = calibration.trained("mlp", 0, mnist)
    assert not network.training
    torch.manual_seed(0)
    assert not torch.equal(network.head.weight, build("mlp").head.weight)
    assert all(torch.isfinite(weight).all() for weight in network.parameters())

"""--from: a trained network gives its weights to one with fewer channels."""

from __future__ import annotations

import json

import pytest
import torch

from tests.training.support import FAST, first
from training.config import TrainConfig
from training.loop.errors import TrainingError
from training.loop.narrow import can_narrow, narrow_weights
from training.loop.start import start_from
from training.loop.train import train
from training.networks import Cnn, build, normalize

WIDE, NARROW = ([12], [16], [8, 8]), ([6], [10], [8, 8])


def with_twins(wide):
    """A network in evaluation whose first two convolutions have each of the first channels twice."""
    network = Cnn(*wide)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.rand_like(parameter), alpha=0.1)
        for i, count in ((0, 6), (4, 10)):
            convolution, norm = network.first_stages[i], network.first_stages[i + 2]
            twins = torch.arange(convolution.out_channels) % count
            for tensor in (convolution.weight, norm.weight, norm.bias):
                tensor.copy_(tensor[twins])
    return network.eval()


def test_channels_that_others_can_replace_are_dropped_without_a_loss(mnist):
    torch.manual_seed(0)
    wide, narrow = with_twins(WIDE), Cnn(*NARROW)
    images = first(mnist.train, 300).images
    before = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    narrow.load_state_dict(narrow_weights(wide, narrow, images))
    with torch.no_grad():
        expected, found = wide(normalize(images)), narrow.eval()(normalize(images))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    assert all(torch.equal(before[name], tensor) for name, tensor in wide.state_dict().items())


def test_only_a_network_of_the_same_convolutions_can_be_narrowed():
    cnn = build("cnn")
    assert can_narrow(cnn, build("cnn-light"))
    assert not any(can_narrow(cnn, build(other)) for other in ("cnn-small", "cnn-speed", "cnn-large", "cnn-7x7", "mlp"))
    assert not can_narrow(build("cnn-light"), cnn)
    assert not can_narrow(build("mlp"), build("mlp"))


def test_run_narrows_the_network_that_it_starts_from(small, tmp_path, no_plots):
    train(TrainConfig(**FAST | {"model": "cnn", "epochs": 8}), small, tmp_path / "wide")
    settings = FAST | {"model": "cnn-light", "epochs": 1, "learning_rate": 1e-9, "start": str(tmp_path / "wide")}
    assert train(TrainConfig(**settings), small, tmp_path / "narrow").accuracy > 0.8  # 0.1 with fresh weights
    record = json.loads((tmp_path / "narrow" / "run.json").read_text())
    wide = json.loads((tmp_path / "wide" / "run.json").read_text())
    assert record["start"] == {settings["start"]: wide["model_sha256"]}
    with pytest.raises(TrainingError, match="is a cnn-light, not a cnn; leave --model out"):
        start_from(TrainConfig(start=str(tmp_path / "narrow")), build("cnn"), "01", small.train.images)

"""Outliers among the training images: the network learns to be unsure about them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.support import first
from training.augment.outliers import outliers
from training.config import ConfigError, TrainConfig
from training.data.digits import NO_CLASS, Digits
from training.loop.extras import draw_extras
from training.loop.inputs import Inputs
from training.loop.state import State
from training.loop.step import take_step
from training.loop.train import train
from training.trained import read


@pytest.fixture
def few(mnist):
    return replace(mnist, train=first(mnist.train, 256), test=first(mnist.test, 100))


def test_run_draws_outliers_if_told(few):
    assert draw_extras(TrainConfig.of(), [], few) == []
    [(others, share)] = draw_extras(TrainConfig.of(outliers=0.25), [], few)
    assert (len(others), share) == (256, 0.25)
    assert (others.labels == NO_CLASS).all()


def test_classes_that_are_letters_get_no_letters_as_outliers(few):
    letters = replace(few, labels=tuple("ABCDEFGHIJ"))
    [(others, _)] = draw_extras(TrainConfig.of(outliers=0.25), [], letters)
    seed = TrainConfig.of().seed_for("outliers")
    assert torch.equal(others.images, outliers(few.train.images, 256, seed, with_symbols=False))


def test_loss_of_an_outlier_is_least_for_equal_probabilities():
    state = State.new(TrainConfig.of(model="mlp", optimizer="gd"), torch.device("cpu"))
    with torch.no_grad():
        state.network.head.weight.zero_()
        state.network.head.bias.zero_()
    before = state.network.head.bias.clone()
    outlier = Digits(torch.zeros(1, 28, 28), torch.tensor([NO_CLASS]))
    nothing = Inputs(torch.zeros(0, 28, 28), torch.zeros(0, dtype=torch.int64), None, outlier)
    loss = take_step(state, [nothing], 1)
    assert loss.item() == pytest.approx(torch.log(torch.tensor(10.0)).item())
    assert torch.allclose(state.network.head.bias, before, atol=1e-6)


def test_network_is_less_sure_about_outliers(few, tmp_path):
    unseen = outliers(few.train.images, 200, seed=77)
    confidence = {}
    for share in (0.0, 1.0):
        config = TrainConfig.of(model="mlp", optimizer="adam", epochs=20, outliers=share, validation=0)
        train(config, few, tmp_path / str(share))
        network = read(tmp_path / str(share)).network.eval()
        with torch.no_grad():
            logits = network(unseen.float().div(255).sub(0.1307).div(0.3081).unsqueeze(1))
        confidence[share] = logits.softmax(dim=1).amax(dim=1).mean().item()
    assert confidence[1.0] < 0.75 * confidence[0.0]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_share_out_of_its_bounds_is_rejected(share):
    with pytest.raises(ConfigError, match="--outliers"):
        TrainConfig.of(outliers=share)

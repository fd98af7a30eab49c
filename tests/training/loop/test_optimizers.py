"""The optimizers by name and the schedules: their settings, and that each optimizer learns."""

from __future__ import annotations

import pytest
import torch

from tests.training.support import first
from training.config import OPTIMIZER_DEFAULTS, TrainConfig
from training.data.digits import Splits
from training.loop.optimizers import FIRST_RATE, WARM_UP, build_optimizer, rate_at, set_rate
from training.loop.train import train
from training.networks import build

# The class and the settings of each optimizer as the tutorial explains it.
KINDS = {
    "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.99), "eps": 1e-8}),
    "gd": (torch.optim.SGD, {"momentum": 0}),
    "sgd": (torch.optim.SGD, {"momentum": 0}),
    "mini-batch": (torch.optim.SGD, {"momentum": 0}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0, "nesterov": False}),
    "adagrad": (torch.optim.Adagrad, {"lr_decay": 0}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.99, "momentum": 0, "centered": False}),
    "adam": (torch.optim.Adam, {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}),
}


@pytest.fixture
def small(mnist, monkeypatch):
    """512 images to train on. These tests check steps only, so finish() is left out."""
    monkeypatch.setattr("training.loop.train.finish", lambda *_: None)
    return Splits(
        name="mnist",
        labels=mnist.labels,
        digests=mnist.digests,
        train=first(mnist.train, 512),
        validation=first(mnist.validation, 0),
        test=first(mnist.test, 0),
    )


class Steps:
    """Takes the place of Progress and records losses and learning rates."""

    def __init__(self):
        self.losses, self.rates = [], []

    def begin(self, total_steps, done_steps):
        self.total = total_steps

    def step(self, epoch, step, loss, rate):
        self.losses.append(loss)
        self.rates.append(rate)

    def line(self, text):
        pass

    def stage(self, name):
        return lambda share: None


def steps_of(config, splits, output):
    steps = Steps()
    train(config, splits, output, progress=steps)
    return steps


def test_every_optimizer_is_tested():
    assert KINDS.keys() == OPTIMIZER_DEFAULTS.keys()


@pytest.mark.parametrize("name", OPTIMIZER_DEFAULTS)
def test_class_and_settings_are_those_of_the_tutorial(name):
    config = TrainConfig.of(optimizer=name)
    optimizer = build_optimizer(config, build("mlp"))
    kind, settings = KINDS[name]
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert {key: group[key] for key in settings} == settings
        assert group["lr"] == config.learning_rate


@pytest.mark.parametrize("name", OPTIMIZER_DEFAULTS)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_every_parameter_is_trained_and_only_matrices_have_weight_decay(name, model):
    network = build(model)
    optimizer = build_optimizer(TrainConfig.of(optimizer=name, weight_decay=0.3), network)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.3 if p.ndim > 1 else 0.0 for p in network.parameters()}


@pytest.mark.parametrize("name", OPTIMIZER_DEFAULTS)
def test_loss_halves(name, small, tmp_path):
    epochs = {"gd": 30, "sgd": 1}.get(name, 6)
    config = TrainConfig.of(model="mlp", optimizer=name, epochs=epochs)
    losses = steps_of(config, small, tmp_path / "run").losses
    part = max(1, len(losses) // 10)
    before, after = sum(losses[:part]) / part, sum(losses[-part:]) / part
    assert after < before / 2


@pytest.mark.parametrize(("name", "steps"), [("gd", 1), ("sgd", 512), ("mini-batch", 4), ("adamw", 4)])
def test_number_of_steps_per_epoch(name, steps, small, tmp_path):
    config = TrainConfig.of(model="mlp", optimizer=name, epochs=1)
    assert steps_of(config, small, tmp_path / "run").total == steps


def test_last_batch_of_an_epoch_may_be_smaller(small, tmp_path):
    config = TrainConfig.of(model="cnn", optimizer="adam", epochs=1, batch_size=511)
    assert len(steps_of(config, small, tmp_path / "run").losses) == 2


def test_step_in_parts_has_the_same_loss(small, tmp_path, monkeypatch):
    config = TrainConfig.of(model="mlp", optimizer="gd", epochs=3)
    whole = steps_of(config, small, tmp_path / "whole").losses
    monkeypatch.setattr("training.loop.inputs.PART_SIZE", 100)
    assert steps_of(config, small, tmp_path / "parts").losses == pytest.approx(whole, rel=1e-4)


def test_gradient_descent_is_weights_minus_rate_times_gradient():
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    network = torch.nn.ParameterList([weight])
    optimizer = build_optimizer(TrainConfig.of(optimizer="gd", learning_rate=0.1), network)
    (weight**2).sum().backward()
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.tensor([[0.8, -1.6]]))


def test_momentum_adds_the_previous_step():
    weight = torch.nn.Parameter(torch.tensor([[1.0]]))
    optimizer = build_optimizer(
        TrainConfig.of(optimizer="momentum", learning_rate=0.1), torch.nn.ParameterList([weight])
    )
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.1 - 0.1 * 1.9)


def test_one_cycle_rises_to_the_peak_then_falls_to_zero():
    config = TrainConfig(learning_rate=0.5)
    assert rate_at(config, 0) == pytest.approx(0.5 * FIRST_RATE)
    assert rate_at(config, WARM_UP) == pytest.approx(0.5)
    assert rate_at(config, (1 + WARM_UP) / 2) == pytest.approx(0.25)
    assert rate_at(config, 1) == pytest.approx(0)
    rates = [rate_at(config, i / 1000) for i in range(1001)]
    peak = rates.index(max(rates))
    assert peak == 1000 * WARM_UP
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_constant_schedule_keeps_the_learning_rate():
    config = TrainConfig(learning_rate=0.5, schedule="constant")
    assert {rate_at(config, i / 10) for i in range(11)} == {0.5}


def test_steps_take_the_learning_rates_of_the_schedule(small, tmp_path):
    config = TrainConfig(model="mlp", epochs=2)
    assert steps_of(config, small, tmp_path / "run").rates == [rate_at(config, i / 8) for i in range(8)]


def test_set_rate_changes_every_parameter_group():
    optimizer = build_optimizer(TrainConfig(), build("mlp"))
    set_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]

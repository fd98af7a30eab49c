"""The optimizers by name: what they are, and that each of them learns."""

from __future__ import annotations

import pytest
import torch

from training.config import OPTIMIZER_DEFAULTS, RECIPES, TrainConfig
from training.data.digits import Splits
from training.loop.optimizers import FIRST_RATE, WARM_UP, build_optimizer, rate_at, set_rate
from training.loop.train import train
from training.networks import NETWORKS, build

TUTORIAL = [name for name in OPTIMIZER_DEFAULTS if name != "adamw"]

# As the tutorial explains them: the class, and the settings that make it what it is.
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


def first(digits, count):
    return digits.take(torch.arange(count))


@pytest.fixture
def small(mnist, monkeypatch):
    """512 images to train on; only the steps matter here, so what follows the last one is left out."""
    monkeypatch.setattr("training.loop.train._finish", lambda *_: None)
    return Splits(
        name="mnist",
        labels=mnist.labels,
        digests=mnist.digests,
        train=first(mnist.train, 512),
        validation=first(mnist.validation, 0),
        test=first(mnist.test, 0),
    )


class Steps:
    """Stands in for Progress and keeps what it is told."""

    def __init__(self):
        self.losses, self.rates = [], []

    def begin(self, total_steps, done_steps):
        self.total = total_steps

    def step(self, epoch, step, loss, rate):
        self.losses.append(loss)
        self.rates.append(rate)

    def line(self, text):
        pass


def steps_of(config, splits, output):
    steps = Steps()
    train(config, splits, output, progress=steps)
    return steps


def test_all_of_them_are_here():
    assert KINDS.keys() == OPTIMIZER_DEFAULTS.keys()


@pytest.mark.parametrize("name", OPTIMIZER_DEFAULTS)
def test_is_what_the_tutorial_explains(name):
    config = TrainConfig.of(optimizer=name)
    optimizer = build_optimizer(config, build("mlp"))
    kind, settings = KINDS[name]
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert {key: group[key] for key in settings} == settings
        assert group["lr"] == config.learning_rate


@pytest.mark.parametrize("name", OPTIMIZER_DEFAULTS)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_every_parameter_is_trained_and_matrices_alone_decay(name, model):
    network = build(model)
    optimizer = build_optimizer(TrainConfig.of(optimizer=name, weight_decay=0.3), network)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.3 if p.ndim > 1 else 0.0 for p in network.parameters()}


@pytest.mark.parametrize("name", TUTORIAL)
def test_tutorials_train_plainly(name):
    config = TrainConfig.of(optimizer=name)
    assert (config.schedule, config.weight_decay, config.augment, config.ema) == ("constant", 0, 0, 0)
    said = TrainConfig.of(optimizer=name, schedule="one-cycle", augment=0.5, learning_rate=0.25)
    assert (said.schedule, said.augment, said.learning_rate) == ("one-cycle", 0.5, 0.25), "what is said holds"


def test_recipes_give_way_to_what_is_said():
    assert TrainConfig.of(recipe="plain").schedule == "constant"
    assert TrainConfig.of(recipe="plain").model == "cnn"
    assert TrainConfig.of(recipe="plain", schedule="one-cycle").schedule == "one-cycle"
    best = {model: TrainConfig.of(recipe="best", model=model) for model in NETWORKS}
    assert all(config.validation == 0 and config.epochs > TrainConfig.epochs for config in best.values())
    assert best["mlp"].augment < best["cnn"].augment
    assert TrainConfig.of(recipe="best", model="mlp", epochs=3).epochs == 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_name_what_exists(recipe):
    for model in RECIPES[recipe]:
        config = TrainConfig.of(recipe=recipe, **({"model": model} if model else {}))
        assert config.model in NETWORKS


@pytest.mark.parametrize("name", OPTIMIZER_DEFAULTS)
def test_learns(name, small, tmp_path):
    epochs = {"gd": 30, "sgd": 1}.get(name, 6)
    config = TrainConfig.of(model="mlp", optimizer=name, epochs=epochs)
    losses = steps_of(config, small, tmp_path / "run").losses
    part = max(1, len(losses) // 10)
    before, after = sum(losses[:part]) / part, sum(losses[-part:]) / part
    assert after < before / 2


@pytest.mark.parametrize(("name", "steps"), [("gd", 1), ("sgd", 512), ("mini-batch", 4), ("adamw", 4)])
def test_steps_of_an_epoch(name, steps, small, tmp_path):
    config = TrainConfig.of(model="mlp", optimizer=name, epochs=1)
    assert steps_of(config, small, tmp_path / "run").total == steps


def test_last_batch_may_be_smaller(small, tmp_path):
    config = TrainConfig.of(model="cnn", optimizer="adam", epochs=1, batch_size=511)
    assert len(steps_of(config, small, tmp_path / "run").losses) == 2


def test_a_step_in_parts_is_the_same_step(small, tmp_path, monkeypatch):
    config = TrainConfig.of(model="mlp", optimizer="gd", epochs=3)
    whole = steps_of(config, small, tmp_path / "whole").losses
    monkeypatch.setattr("training.loop.train.MICRO_BATCH", 100)
    assert steps_of(config, small, tmp_path / "parts").losses == pytest.approx(whole, rel=1e-4)


def test_gradient_descent_is_weights_minus_rate_times_gradient():
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    network = torch.nn.ParameterList([weight])
    optimizer = build_optimizer(TrainConfig.of(optimizer="gd", learning_rate=0.1), network)
    (weight**2).sum().backward()
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.tensor([[0.8, -1.6]]))


def test_momentum_carries_on():
    weight = torch.nn.Parameter(torch.tensor([[1.0]]))
    optimizer = build_optimizer(
        TrainConfig.of(optimizer="momentum", learning_rate=0.1), torch.nn.ParameterList([weight])
    )
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.1 - 0.1 * 1.9)


def test_one_cycle_rises_then_falls_to_zero():
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


def test_constant_is_constant():
    config = TrainConfig(learning_rate=0.5, schedule="constant")
    assert {rate_at(config, i / 10) for i in range(11)} == {0.5}


def test_schedule_is_what_the_steps_take(small, tmp_path):
    config = TrainConfig(model="mlp", epochs=2)
    assert steps_of(config, small, tmp_path / "run").rates == [rate_at(config, i / 8) for i in range(8)]


def test_set_rate_reaches_every_parameter():
    optimizer = build_optimizer(TrainConfig(), build("mlp"))
    set_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]

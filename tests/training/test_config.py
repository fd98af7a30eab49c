"""TrainConfig: bounds, recipes, and the defaults of the optimizers."""

from __future__ import annotations

import math

import pytest

from training.config import OPTIMIZER_DEFAULTS, RECIPES, ConfigError, TrainConfig, flag
from training.networks import NETWORKS


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"learning_rate": math.inf},
        {"learning_rate": math.nan},
        {"weight_decay": -0.1},
        {"style": 1.5},
        {"distillation_temperature": 0.0},
        {"ema": 1.0},
        {"ema": -0.1},
        {"validation": -1},
        {"validation": 30_001},
        {"subset": -1},
        {"seed": -1},
        {"schedule": "cosine"},
        {"dataset": "letters"},
        {"prepare": "photo"},
        {"mirror": "left"},
        {"rotate": 181},
        {"balance": 1.5},
        {"optimizer": "lion"},
    ],
)
def test_value_out_of_bounds_is_rejected_with_its_flag(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ConfigError, match=f"^{flag(name)} {value}: "):
        TrainConfig(**wrong)


def test_error_names_value_and_rule():
    with pytest.raises(ConfigError, match=r"^--ema 1\.2: must be at least 0 and less than 1$"):
        TrainConfig(ema=1.2)


def test_teacher_cache_without_a_teacher_is_rejected():
    with pytest.raises(ConfigError, match="--teacher-cache 2: needs a teacher; add --teacher"):
        TrainConfig(teacher_cache=2)


@pytest.mark.parametrize("name", [name for name in OPTIMIZER_DEFAULTS if name != "adamw"])
def test_tutorials_optimizers_train_plainly_by_default(name):
    config = TrainConfig.of(optimizer=name)
    assert (config.schedule, config.weight_decay, config.augment, config.ema) == ("constant", 0, 0, 0)
    given = TrainConfig.of(optimizer=name, schedule="one-cycle", augment=0.5, learning_rate=0.25)
    assert (given.schedule, given.augment, given.learning_rate) == ("one-cycle", 0.5, 0.25), "given settings win"


def test_given_settings_win_over_a_recipe():
    assert TrainConfig.of(recipe="plain").schedule == "constant"
    assert TrainConfig.of(recipe="plain").model == "cnn"
    assert TrainConfig.of(recipe="plain", schedule="one-cycle").schedule == "one-cycle"
    best = {model: TrainConfig.of(recipe="best", model=model) for model in NETWORKS}
    assert all(config.validation == 0 and config.epochs > TrainConfig.epochs for config in best.values())
    assert best["mlp"].augment < best["cnn"].augment
    assert TrainConfig.of(recipe="best", model="mlp", epochs=3).epochs == 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_have_valid_settings_and_networks(recipe):
    for model in RECIPES[recipe]:
        config = TrainConfig.of(recipe=recipe, **({"model": model} if model else {}))
        assert config.model in NETWORKS


def test_seeds_differ_by_purpose_and_by_run():
    seeds = [TrainConfig(seed=seed).seed_for("step", step) for seed in (0, 1) for step in (0, 1)]
    assert len(set(seeds)) == 4
    assert TrainConfig(seed=1).seed_for("step", 1) == seeds[-1]

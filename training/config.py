"""TrainConfig: everything that decides the result of a training run.

Imports nothing heavy, so that ``mnist-train --help`` is quick and works without torch.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

# The tutorial trains plainly: a constant rate, images as they are, the last step's weights.
PLAIN: dict[str, Any] = {"schedule": "constant", "weight_decay": 0.0, "augment": 0.0, "ema": 0.0}

OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "gd": PLAIN | {"learning_rate": 0.5, "batch_size": 0},
    "sgd": PLAIN | {"learning_rate": 0.01, "batch_size": 1},
    "mini-batch": PLAIN | {"learning_rate": 0.1},
    "momentum": PLAIN | {"learning_rate": 0.05},
    "adagrad": PLAIN | {"learning_rate": 0.02},
    "rmsprop": PLAIN | {"learning_rate": 0.001},
    "adam": PLAIN | {"learning_rate": 0.001},
}
"""The optimizers by name, each with the defaults that differ from those of :class:`TrainConfig`."""


RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {"": PLAIN},
    "speed": {
        "": {
            "model": "cnn-speed",
            "epochs": 1,
            "label_smoothing": 0.1,
            "augment": 0.0,
            "ema": 0.0,
            "precision": "bfloat16",
            "validation": 0,
        }
    },
    "best": {
        "": {"epochs": 40, "precision": "bfloat16", "validation": 0},
        "mlp": {"epochs": 300, "augment": 0.5, "contrast": 1.0, "batch_size": 256, "precision": "float32"},
    },
}
"""Other defaults under one name: for every network, and what differs for some."""


class ConfigError(ValueError):
    """A setting is out of its bounds or names something that does not exist."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a run. Two runs with equal configs on one machine end with equal weights.

    Raises:
        ConfigError: a value breaks its rule; the message names the value, the rule and the way out.
    """

    model: Annotated[
        str,
        "cnn (the default), cnn-small, cnn-large, cnn-speed, cnn-5x5, cnn-7x7, or mlp, the tutorial's 784-28-10.",
    ] = "cnn"
    dataset: Annotated[str, "mnist or fashion-mnist."] = "mnist"
    epochs: Annotated[int, "Passes over the training images."] = 8
    optimizer: Annotated[
        str,
        "adamw, or one of the tutorial's: gd (all images in one step), sgd (one image a step), mini-batch, "
        "momentum, adagrad, rmsprop, adam. The tutorial's train plainly unless told otherwise: constant "
        "rate, no augmentation, no averaging, no weight decay.",
    ] = "adamw"
    batch_size: Annotated[int, "Images per step; 0 is all of them."] = 128
    learning_rate: Annotated[float, "Rate of the optimizer, the peak where the schedule has one."] = 0.01
    schedule: Annotated[str, "one-cycle (warm up, then down to zero) or constant."] = "one-cycle"
    weight_decay: Annotated[float, "Decay of the weight matrices; biases and norms are left alone."] = 0.02
    label_smoothing: Annotated[float, "Share of a label spread over all classes; 0 is off."] = 0.0
    augment: Annotated[float, "How far images are rotated, scaled, sheared and shifted at random; 0 is off."] = 1.0
    elastic: Annotated[float, "Standard deviation in pixels of random bending; 0 is off."] = 0.0
    contrast: Annotated[float, "Contrast of what is moved or bent, which resampling blurs; 1 leaves it blurred."] = 1.4
    erase: Annotated[float, "Share of the images that lose a random patch; 0 is off."] = 0.0
    foreign: Annotated[
        float,
        "Share of the images made unlike MNIST's: ones with an upstroke, other proportions, other pens, "
        "pictures of few pixels; 0 is off.",
    ] = 0.0
    clean_epochs: Annotated[int, "Last epochs on the images as they are."] = 0
    teacher: Annotated[str, "Run folders, separated by commas, whose mean answer is learnt beside the label."] = ""
    teacher_weight: Annotated[float, "Weight of the teachers' answer in the loss; the label has the rest."] = 0.9
    temperature: Annotated[float, "What logits are divided by where teachers' answers are learnt."] = 2.0
    lessons: Annotated[
        int,
        "Epochs of augmented images that the teachers are asked of once for all their pupils, kept beside the first "
        "teacher; later epochs show them again. 0 asks anew in each step.",
    ] = 0
    fonts: Annotated[
        str,
        "Folder with handwriting fonts, whose digits are learnt beside the training images, and whose letters the "
        "novelty score learns to refuse; without, it knows letters in print alone.",
    ] = ""
    ema: Annotated[float, "Decay of the running average of the weights, which is kept; 0 is off."] = 0.998
    precision: Annotated[str, "float32, or bfloat16 for the arithmetic of a step (weights stay float32)."] = "float32"
    validation: Annotated[int, "Training images set aside to choose by; the test set never chooses."] = 5000
    subset: Annotated[int, "Train on this many images only, for a quick try; 0 is all."] = 0
    seed: Annotated[int, "Seed of the weights, the order and the augmentation."] = 0

    def __post_init__(self) -> None:
        """Check every bound that can be checked without the data and without torch."""
        check_name("dataset", self.dataset, ("mnist", "fashion-mnist"))
        check_name("optimizer", self.optimizer, OPTIMIZER_DEFAULTS)
        check_name("schedule", self.schedule, ("one-cycle", "constant"))
        self._check("epochs", self.epochs >= 1, "must be at least 1")
        self._check("batch_size", self.batch_size >= 0, "must not be negative; 0 takes all images in one step")
        self._check("learning_rate", 0 < self.learning_rate < float("inf"), "must be a positive number")
        self._check("weight_decay", 0 <= self.weight_decay < float("inf"), "must not be negative; 0 is off")
        check_name("precision", self.precision, ("float32", "bfloat16"))
        self._check("label_smoothing", 0 <= self.label_smoothing < 1, "must lie in [0, 1); 0 is off")
        self._check("augment", 0 <= self.augment <= 3, "must lie between 0, which is off, and 3")
        self._check("elastic", 0 <= self.elastic <= 5, "must lie between 0, which is off, and 5 pixels")
        self._check("contrast", 1 <= self.contrast <= 5, "must lie between 1, which leaves images blurred, and 5")
        self._check("erase", 0 <= self.erase <= 1, "must lie between 0, which is off, and 1")
        self._check("foreign", 0 <= self.foreign <= 1, "must lie between 0, which is off, and 1")
        self._check("clean_epochs", self.clean_epochs >= 0, "must not be negative")
        self._check("teacher_weight", 0 <= self.teacher_weight <= 1, "must lie between 0 and 1")
        self._check("temperature", 0 < self.temperature < float("inf"), "must be a positive number")
        self._check("lessons", self.lessons >= 0, "must not be negative; 0 asks the teachers in each step")
        self._check("lessons", self.lessons == 0 or bool(self.teacher), "needs the --teacher who gives them")
        self._check("fonts", not self.fonts or self.dataset == "mnist", "letters are strangers to mnist's digits alone")
        self._check("ema", 0 <= self.ema < 1, "must lie in [0, 1); 0 is off")
        self._check("validation", 0 <= self.validation <= 30_000, "must lie between 0 and 30000")
        self._check("subset", self.subset >= 0, "must not be negative; 0 takes all images")
        self._check("seed", 0 <= self.seed < 2**32, "must lie between 0 and 4294967295")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: {rule}")

    @classmethod
    def of(cls, *, recipe: str = "", **given: Any) -> TrainConfig:
        """A config from what was said, the rest from the recipe's and the optimizer's defaults."""
        settings = OPTIMIZER_DEFAULTS.get(given.get("optimizer", cls.optimizer), {})
        if recipe:
            check_name("recipe", recipe, RECIPES)
            settings = settings | RECIPES[recipe][""]
            model = given.get("model", settings.get("model", cls.model))
            settings = settings | RECIPES[recipe].get(model, {})
        return cls(**(settings | given))

    def asdict(self) -> dict[str, Any]:
        """Plain values by field name, as written to ``run.json`` and the checkpoint."""
        return dataclasses.asdict(self)


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Raise ConfigError unless ``name`` is known, suggesting the nearest one that is."""
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"--{what} {name!r} is not known: {hint}choose from {', '.join(known)}")

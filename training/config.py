"""TrainConfig: every setting that decides the result of a training run.

This module imports nothing heavy, so that ``mnist-train --help`` is quick and works without torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

# The value of precision that means: the faster one on the machine of the run.
AUTO = "auto"

# Training without extras: constant learning rate, no weight decay, no augmentation, no weight averaging.
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
"""The optimizers by name. Each has the defaults that differ from those of :class:`TrainConfig`."""


KNOWN_DATASETS = ("mnist", "fashion-mnist", "kmnist", "emnist-letters", "emnist-balanced", "qmnist", "usps")
"""The known data sets. Any other is a folder or file of the user."""
PREPARATIONS = ("symbol", "dotted", "as-is")
"""How a picture may become 28x28 pixels, by the names in the manifest of a model."""

DATASET_DEFAULTS: dict[str, dict[str, Any]] = {"fashion-mnist": {"prepare": "as-is"}}
"""The defaults of a known data set that differ from those of :class:`TrainConfig`."""

OWN_DEFAULTS: dict[str, Any] = {"balance": 0.5}
"""The same for the user's own data."""


REPLAY_DEFAULTS: dict[str, Any] = {"epochs": 1, "batch_size": 32, "learning_rate": 0.0002, "teacher_weight": 1.0}
"""The same for a run that starts from a model and must not forget what it knows: many small steps."""

LEAST_REPLAYED = 12_800
"""If such a run replays fewer images, the default is as many epochs as show this many: 400 steps."""


RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {"": PLAIN},
    "speed": {
        "": {
            "model": "cnn-fast",
            "epochs": 1,
            "label_smoothing": 0.1,
            "augment": 0.0,
            "ema": 0.0,
            "precision": AUTO,
            "validation": 0,
        }
    },
    "small-data": {
        "": {
            "epochs": 150,
            "batch_size": 32,
            "learning_rate": 0.005,
            "elastic": 0.5,
            "style": 0.25,
            "label_smoothing": 0.05,
        }
    },
    "best": {
        "": {"epochs": 40, "precision": AUTO, "validation": 0},
        "mlp": {"epochs": 300, "augment": 0.5, "contrast": 1.0, "batch_size": 256, "precision": "float32"},
    },
}
"""The recipes by name. The key "" has the defaults for every network. The name of a network has what differs for it."""


class ConfigError(ValueError):
    """A setting is out of its bounds, or it names something that does not exist."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a run. Two runs with the same config on the same machine end with the same weights.

    The text beside each setting is the help text of its flag.

    Raises:
        ConfigError: a value breaks its rule. The message names the value, the rule and the way out.
    """

    model: Annotated[
        str,
        "Network to train: cnn, cnn-small, cnn-first, cnn-light, cnn-large, cnn-fast, cnn-speed, cnn-5x5, cnn-7x7, or "
        "mlp (fully connected, 784-28-10, as in examples/digits.py). With --from, the default is the network of that "
        "model.",
    ] = "cnn"
    dataset: Annotated[
        str,
        f"Data set: {', '.join(KNOWN_DATASETS)}, or the path of your own: a folder with a folder for each class, with "
        "labels.csv or with IDX files, or an .npz file.",
    ] = "mnist"
    prepare: Annotated[
        str,
        "How a picture becomes 28x28 pixels, in training and in the service: symbol (find the ink, scale and centre it "
        "as in MNIST), dotted (the same, and keep dots as small as dirt, such as those of Ä) or as-is (the whole "
        "picture, for photos and textures). The default for fashion-mnist is as-is. With --from, the default for your "
        "own pictures is that of the model; with --replay, no other is allowed.",
    ] = "symbol"
    start: Annotated[
        str,
        "Start from the weights of another model: a run folder, a published version such as models/mnist/1, or "
        "`packaged` (the model that comes with this program). The new network is of the same kind, unless --model says "
        "otherwise: a cnn becomes narrower with --model cnn-light. Classes of the same name keep their weights; others "
        "start anew.",
    ] = ""
    keep: Annotated[
        float,
        "Share of the weights of --from in the result, from 0 to below 1. With 0.3, the result is 0.3 times the "
        "weights before the run plus 0.7 times those after it. So it forgets less of what the other model knew.",
    ] = 0.0
    replay: Annotated[
        str,
        "Replay data set: one that the model must not forget while it learns the new pictures of --dataset. A name, "
        "such as mnist, or the path of your own. The run trains on the images of both, some of the new pictures in "
        "each step. With --from, the model that the run starts from is the teacher for the replay data set, and the "
        "defaults are 32 images per step, a learning rate of 0.0002, a --teacher-weight of 1, and 1 epoch; if there "
        f"are fewer than {LEAST_REPLAYED} images, more epochs, until so many were shown.",
    ] = ""
    epochs: Annotated[int, "Number of passes over the training images."] = 8
    optimizer: Annotated[
        str,
        "adamw, or one of the optimizers of examples/optimizers.py: gd (all images in one step), sgd (one image per "
        "step), mini-batch, momentum, adagrad, rmsprop, adam. These have other defaults than adamw: their own learning "
        "rate, a constant schedule, no augmentation, no weight averaging, no weight decay.",
    ] = "adamw"
    batch_size: Annotated[int, "Number of images per step; 0 takes all training images in one step."] = 128
    learning_rate: Annotated[float, "Learning rate; with the one-cycle schedule, the highest learning rate."] = 0.01
    schedule: Annotated[str, "Learning rate over a run: one-cycle (rises, then falls to 0) or constant."] = "one-cycle"
    weight_decay: Annotated[
        float, "Weight decay of the weight matrices; biases and BatchNorm have none. 0 turns it off."
    ] = 0.02
    label_smoothing: Annotated[
        float, "Share of each label that is spread evenly over all classes, from 0 to below 1; 0 turns it off."
    ] = 0.0
    augment: Annotated[
        float,
        "Strength of random rotation, scaling, shear and shift, from 0 to 3; 1 is the usual strength, "
        "and 0 turns them off.",
    ] = 1.0
    rotate: Annotated[
        float,
        "Largest angle of the random rotation in degrees, from 0 to 180, at --augment 1. 0 forbids rotation, for "
        "symbols that differ by it.",
    ] = 18.0
    mirror: Annotated[
        str, "Mirror images at random, for symbols that allow it: none, horizontal, vertical or both."
    ] = "none"
    elastic: Annotated[
        float, "Strength of random bending, from 0 to 5: the standard deviation of the shift in pixels. 0 turns it off."
    ] = 0.0
    contrast: Annotated[
        float, "Contrast factor that undoes the blur of augmented images, from 1 to 5; 1 leaves the blur."
    ] = 1.4
    style: Annotated[
        float,
        "Style augmentation: change images as if somebody else had written them. Each kind of change applies to this "
        "share of the images, from 0 to 1: another width, another stroke width, a lower resolution and, for a 1, a "
        "wide bar. Twice this share of the digits 1 get an upstroke, and half of this share of the images become black "
        "and white. 0 turns it off.",
    ] = 0.0
    teacher: Annotated[
        str,
        "Teachers, separated by commas: run folders, published versions, or `packaged`. The student learns from the "
        "labels and from the mean of the teachers' probabilities. Without this flag there is no teacher.",
    ] = ""
    teacher_weight: Annotated[
        float,
        "Weight of the teachers' soft labels in the loss, from 0 to 1; the labels have the rest. With --replay and "
        "--from, the default is 1.",
    ] = 0.9
    distillation_temperature: Annotated[
        float,
        "Distillation temperature: the logits of student and teachers are divided by it before they are compared.",
    ] = 2.0
    teacher_cache: Annotated[
        int,
        "Number of epochs of augmented images to store with the teachers' soft labels, in the folder of the first "
        "teacher. All students of the same teachers share them; later epochs use them again. "
        "0 stores none and runs the teachers in each step.",
    ] = 0
    fonts: Annotated[
        str,
        "With --dataset mnist or --replay mnist: folder with handwriting fonts. Their digits are added to the training "
        "images, and the novelty score learns to reject their letters. Without this flag it learns to reject printed "
        "letters only.",
    ] = ""
    scripts: Annotated[
        float,
        "With --dataset mnist or --replay mnist: how many digits to add per training image, from 0 to 1, in the school "
        "scripts of several countries, for example a 7 with a bar and a 1 with a long upstroke. 0 adds none.",
    ] = 0.0
    outliers: Annotated[
        float,
        "How many images of other things to add per training image, from 0 to 1: scribbles, plots and, if all classes "
        "are digits, letters and signs. The network learns to be unsure about them, so more of them are rejected. 0 "
        "adds none.",
    ] = 0.0
    ema: Annotated[
        float,
        "Decay per step of the moving average of the weights, from 0 to below 1. The run saves the averaged weights as "
        "its result. 0 turns averaging off.",
    ] = 0.998
    precision: Annotated[
        str,
        "Precision of the arithmetic in a step: float32, bfloat16, or auto (the one that is faster on this machine). "
        "The weights are always float32.",
    ] = "float32"
    validation: Annotated[
        int,
        "Number of training images to leave out for the validation set, from 0 to 30000; 0 means no validation set. "
        "Of your own data, any other number than 0 leaves out 15 %.",
    ] = 5000
    balance: Annotated[
        float,
        "How often images of rare classes are shown, from 0 (each image once per epoch) to 1 (each class equally "
        "often). The default for your own data is 0.5.",
    ] = 0.0
    subset: Annotated[int, "Number of training images to use, for a quick try; 0 uses all."] = 0
    seed: Annotated[int, "Seed of the initial weights, the order of the images and the augmentation."] = 0

    def __post_init__(self) -> None:
        """Check every bound that can be checked without the data and without torch."""
        if not is_place(self.dataset):
            check_name("dataset", self.dataset, KNOWN_DATASETS, "the path of a folder, such as ./letters")
        if self.replay:
            self._check("replay", is_place(self.dataset), "needs --dataset with the path of your own pictures")
        if self.replay and not is_place(self.replay):
            check_name("replay", self.replay, KNOWN_DATASETS, "the path of a folder, such as ./letters")
        self._check("keep", 0 <= self.keep < 1, "must be from 0 to below 1")
        self._check("keep", not self.keep or bool(self.start), "needs --from with the model whose weights to keep")
        check_name("prepare", self.prepare, PREPARATIONS)
        check_name("mirror", self.mirror, ("none", "horizontal", "vertical", "both"))
        check_name("optimizer", self.optimizer, OPTIMIZER_DEFAULTS)
        check_name("schedule", self.schedule, ("one-cycle", "constant"))
        check_name("precision", self.precision, ("float32", "bfloat16", AUTO))
        infinity = float("inf")
        self._check("epochs", self.epochs >= 1, "must be at least 1")
        self._check("batch_size", self.batch_size >= 0, "must be at least 0; 0 takes all images in one step")
        self._check("learning_rate", 0 < self.learning_rate < infinity, "must be greater than 0 and finite")
        self._check("weight_decay", 0 <= self.weight_decay < infinity, "must be at least 0 and finite")
        self._check("label_smoothing", 0 <= self.label_smoothing < 1, "must be at least 0 and less than 1")
        self._check("augment", 0 <= self.augment <= 3, "must be from 0 to 3")
        self._check("rotate", 0 <= self.rotate <= 180, "must be from 0 to 180 degrees")
        self._check("balance", 0 <= self.balance <= 1, "must be from 0 to 1")
        self._check("elastic", 0 <= self.elastic <= 5, "must be from 0 to 5 pixels")
        self._check("contrast", 1 <= self.contrast <= 5, "must be from 1 to 5")
        self._check("style", 0 <= self.style <= 1, "must be from 0 to 1")
        self._check("teacher_weight", 0 <= self.teacher_weight <= 1, "must be from 0 to 1")
        temperature = self.distillation_temperature
        self._check("distillation_temperature", 0 < temperature < infinity, "must be greater than 0 and finite")
        self._check("teacher_cache", self.teacher_cache >= 0, "must be at least 0; 0 runs the teachers in each step")
        self._check("teacher_cache", self.teacher_cache == 0 or bool(self.teacher), "needs a teacher; add --teacher")
        learnt = self.replay or self.dataset
        needs_mnist = "needs --dataset mnist or --replay mnist"
        self._check("fonts", not self.fonts or learnt == "mnist", f"{needs_mnist}; or leave out --fonts")
        self._check("scripts", 0 <= self.scripts <= 1, "must be from 0 to 1")
        self._check("scripts", not self.scripts or learnt == "mnist", f"{needs_mnist}; or leave out --scripts")
        self._check("outliers", 0 <= self.outliers <= 1, "must be from 0 to 1")
        self._check("ema", 0 <= self.ema < 1, "must be at least 0 and less than 1")
        self._check("validation", 0 <= self.validation <= 30_000, "must be from 0 to 30000")
        self._check("subset", self.subset >= 0, "must be at least 0; 0 uses all images")
        self._check("seed", 0 <= self.seed < 2**32, "must be from 0 to 4294967295")

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ConfigError(f"{flag(name)} {getattr(self, name)}: {rule}")

    @classmethod
    def of(cls, *, recipe: str = "", **given: Any) -> TrainConfig:
        """Return a config of the given settings. The others get the recipe's defaults, then the optimizer's."""
        # With replay, the training images are those of the replay data set.
        dataset = given.get("replay") or given.get("dataset", cls.dataset)
        settings = OWN_DEFAULTS if is_place(dataset) else DATASET_DEFAULTS.get(dataset, {})
        if given.get("replay") and given.get("start"):
            settings = settings | REPLAY_DEFAULTS
        settings = settings | OPTIMIZER_DEFAULTS.get(given.get("optimizer", cls.optimizer), {})
        return cls(**(settings | cls.chosen(recipe=recipe, **given)))

    @classmethod
    def chosen(cls, *, recipe: str = "", **given: Any) -> dict[str, Any]:
        """Return the settings that the recipe sets, and those given. A setting in both has the given value."""
        if not recipe:
            return given
        check_name("recipe", recipe, RECIPES)
        settings = RECIPES[recipe][""]
        model = given.get("model", settings.get("model", cls.model))
        return settings | RECIPES[recipe].get(model, {}) | given

    def augmentation(self) -> dict[str, Any]:
        """Return the arguments for :func:`training.augment.affine.augment`."""
        return {
            "strength": self.augment,
            "rotation": self.rotate,
            "mirror": self.mirror,
            "elastic": self.elastic,
            "contrast": self.contrast,
        }

    def seed_for(self, *purpose: object) -> int:
        """Return the seed of one purpose of this run, for instance ``seed_for("step", 12)``."""
        # torch's CPU generator takes 32 bits of a seed. The CRC spreads neighbouring steps over all of them.
        return zlib.crc32(repr((self.seed, *purpose)).encode())

    def asdict(self) -> dict[str, Any]:
        """Return plain values by field name, as written to ``run.json`` and the checkpoint."""
        return dataclasses.asdict(self)


def flag(name: str) -> str:
    """Return the command-line flag of a setting: ``--batch-size`` of ``batch_size``."""
    # The flag is --from, which cannot be the name of a field in Python.
    return "--from" if name == "start" else f"--{name.replace('_', '-')}"


def is_place(dataset: str) -> bool:
    """Return whether a data set is the path of the user's own, and not a name. A path has a separator."""
    return "/" in dataset or os.sep in dataset


def check_name(setting: str, name: str, known: Iterable[str], other: str = "") -> None:
    """Raise ConfigError unless ``name`` is one of ``known``. The message suggests the most similar one.

    Args:
        other: what else the setting may be, for the message.
    """
    known = list(known)
    if name not in known:
        similar = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {similar[0]}? " if similar else ""
        raise ConfigError(
            f"{flag(setting)} {name}: unknown name; {hint}choose from {', '.join(known)}{other and f', or {other}'}"
        )

"""Train from Python, as ``mnist-train`` does."""

from __future__ import annotations

import inspect
import numbers
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from training.config import KNOWN_DATASETS, ConfigError, TrainConfig, check_name
from training.data.own.cli import place_of, say_findings
from training.hints import setting_meant
from training.openmp import sleep_while_waiting
from training.origin import check_prepare, config_of, exists, with_absolute_places
from training.python.arrays import Data, on_disk
from training.python.needs import needing_torch
from training.python.results import TrainingRun

# For each type of a setting: the type of the values that it takes, and its name in messages. The types of the module
# numbers include the numbers of NumPy.
KINDS: dict[Any, tuple[type, str]] = {
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "a text"),
}

# Settings that choose how to train. Who gives none of them is advised a recipe for few pictures.
WAYS_TO_TRAIN = {"recipe", "model", "start", "replay"}


def train(
    config: TrainConfig | Mapping[str, Any] | None = None,
    data: Data | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    checkpoint_every: int = 0,
    device: str = "cpu",
    source: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TrainingRun:
    """Train a network and return its run. The same settings give the same weights as ``mnist-train``.

    Args:
        config: the settings that differ from the defaults, for example ``{"recipe": "small-data", "epochs": 40}``. The
            names are those of :class:`TrainConfig`, and ``recipe``. A TrainConfig is taken as it is.
        data: the name of a known data set, the path of your own, or its arrays by name, for example ``{"images": x,
            "labels": y}`` with the names of an ``.npz`` file. Without it, the data set of ``config``.
        output: the run folder; the default is ``runs/MODEL``.
        resume: continue from the last checkpoint in the run folder, if there is one, with the settings of that run. If
            ``data`` is arrays, they are not compared: the run folder holds the images that the run began with.
        checkpoint_every: number of steps between checkpoints within an epoch; 0 saves only after each epoch.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        source: folder with the files of a known data set, and the only source; the default is to try the folder of the
            variable ``MNIST_DATA`` first, then the other sources.
        progress: print a line for each epoch.

    Raises:
        ConfigError: a setting breaks its rule.
        DataError: there is no such data set, or it cannot be used.
        TrainingError: the run cannot begin, or the loss is no longer finite.
        CheckpointError: the checkpoint to resume from is damaged.
        OSError: a file could not be written.
    """
    with ExitStack() as stack:
        is_arrays = isinstance(data, Mapping)
        settings, chosen = _settings(config, None if data is None else _place(stack.enter_context(on_disk(data))))
        folder = Path(output or Path("runs") / settings.model).expanduser()
        # torch reads this variable when it is imported.
        sleep_while_waiting()
        with needing_torch("training.train"):
            from training.device import check_device
            from training.loop.folder import check_output
            from training.loop.progress import Progress
            from training.loop.resume import begin_or_resume
            from training.loop.train import train as run
            from training.networks import NETWORKS

        check_name("model", settings.model, NETWORKS)
        check_device(device)
        check_output(folder, settings.dataset, settings.replay, resume=resume)
        shown = Progress(sys.stdout if progress else None)
        stack.callback(shown.clear)
        if is_arrays:
            # Their file is another one each time. The folder of a run that is resumed has the images.
            del chosen["dataset"]
        has_chosen = isinstance(config, TrainConfig) or not WAYS_TO_TRAIN.isdisjoint(config or {})
        tell = partial(say_findings, config=settings, has_chosen=has_chosen)
        named = source or os.environ.get("MNIST_DATA")
        settings, splits = begin_or_resume(
            settings,
            chosen,
            folder,
            Path(named).expanduser() if named else None,
            only_folder=source is not None,
            stage=shown.stage,
            tell=tell if progress else lambda _: None,
        )
        run(
            settings,
            splits,
            folder,
            resume=resume,
            checkpoint_every=checkpoint_every,
            device=device,
            progress=shown,
        )
    return TrainingRun.read(folder)


def _settings(
    config: TrainConfig | Mapping[str, Any] | None, dataset: str | None
) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the config of a run, and the settings that were chosen, for a run that is resumed.

    Raises:
        ConfigError: a setting is unknown or breaks its rule.
    """
    if isinstance(config, TrainConfig):
        config = config if dataset is None else replace(config, dataset=dataset)
        check_prepare(config)
        config = TrainConfig(**with_absolute_places(config.asdict()))
        return config, config.asdict()
    if not isinstance(config, Mapping | None):
        raise ConfigError(
            f'config: got {type(config).__name__}: must be settings by name, such as {{"epochs": 4}}, or a TrainConfig'
        )
    given = {name: _checked(name, value) for name, value in (config or {}).items()}
    if "dataset" in given:
        given["dataset"] = _place(given["dataset"])
    if given.get("replay"):
        # The run folder keeps the pictures, so a run may be resumed without this folder.
        given["replay"] = place_of(given["replay"])
    if dataset is not None:
        given["dataset"] = dataset
    return config_of(given)


def _checked(name: str, value: Any) -> Any:
    """Return the value of a setting in the type that it must have."""
    kinds: dict[str, Any] = {**get_type_hints(TrainConfig), "recipe": str}
    if name in inspect.signature(train).parameters:
        raise ConfigError(f"config {name!r}: is an argument and no setting; write training.train(..., {name}=...)")
    if name not in kinds:
        meant = setting_meant(name, kinds)
        hint = f"did you mean {meant}? " if meant else ""
        raise ConfigError(f"config {name!r}: unknown setting; {hint}choose from {', '.join(kinds)}")
    kind = kinds[name]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, KINDS[kind][0]) or isinstance(value, bool):
        raise ConfigError(f"config {name} = {value!r:.60}: must be {KINDS[kind][1]}")
    return kind(value)


def _place(data: str | os.PathLike[str]) -> str:
    """Return the name of a known data set as it is, and anything else as an absolute path."""
    if isinstance(data, str) and data in KNOWN_DATASETS:
        return data
    place = Path(data).expanduser().absolute()
    # An empty name comes from an unset variable, and would stand for the current folder.
    if not os.fspath(data) or not exists(place):
        raise ConfigError(f"data {os.fspath(data)}: does not exist; name a folder, or {', '.join(KNOWN_DATASETS)}")
    return str(place)

"""The config of a run, and the folders that it names: other models, and fonts. This module imports nothing heavy."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.config import ConfigError, TrainConfig, is_place

PACKAGED = "packaged"
MANIFEST, RECORD, ONNX = "manifest.json", "run.json", "model.onnx"
# How many other models an error names.
SHOWN = 5
WAY_OUT = "name a finished run folder, a published version such as models/mnist/1, or `packaged`"


def origin(place: str) -> Path:
    """Return the folder of the model with this name."""
    if place != PACKAGED:
        return expanded(place)
    # The packaged model lies in the package of the service, which is found without an import.
    found = importlib.util.find_spec("serving")
    [package] = (found and found.submodule_search_locations) or [""]
    return Path(package) / "release" / "mnist" / "1"


def is_published(place: str) -> bool:
    """Return whether this is a published version and not a run folder."""
    return exists(origin(place) / MANIFEST)


def exists(path: Path) -> bool:
    """Return whether there is such a file or folder; False where nobody can look, or if the name is too long."""
    return os.path.exists(path)  # noqa: PTH110 (Path.exists() may raise an OSError)


def config_of(given: Mapping[str, Any]) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the config of a run, and the settings that its user or a recipe has chosen, both with absolute places.

    Args:
        given: what the user has set, by name, and perhaps ``recipe``. By default the model is that of ``start``, and
            the user's own pictures are prepared as for it.

    Raises:
        ConfigError: a setting breaks its rule, or there is no model to start from.
    """
    if given.get("start"):
        defaults = {"model": model_of(given["start"])}
        if is_place(given.get("replay") or given.get("dataset", "")):
            defaults["prepare"] = prepare_of(given["start"])
        given = defaults | dict(given)
    config, chosen = TrainConfig.of(**given), TrainConfig.chosen(**given)
    check_prepare(config)
    # Only now, so that errors name the places as they were given.
    return TrainConfig(**with_absolute_places(config.asdict())), with_absolute_places(chosen)


def check_prepare(config: TrainConfig) -> None:
    """Check that a run with ``--replay`` prepares pictures as the model that it starts from, which it continues.

    Raises:
        ConfigError: it does not, or there is no such model.
    """
    if config.replay and config.start and (before := prepare_of(config.start)) != config.prepare:
        raise ConfigError(
            f"--prepare {config.prepare}: with --replay, it must be that of --from {config.start}, which is {before}; "
            f"give --prepare {before}, or leave out --from"
        )


def with_absolute_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` with absolute paths of the other models and the fonts, for a resume from any folder."""
    changed = dict(settings)
    for name in ("teacher", "fonts", "start"):
        if place := settings.get(name):
            # Only --teacher names several folders.
            places = place.split(",") if name == "teacher" else [place]
            changed[name] = ",".join(map(_absolute, places))
    return changed


def _absolute(place: str) -> str:
    return place if place == PACKAGED else str(expanded(place).absolute())


def expanded(place: str) -> Path:
    """Return a path in which ``~`` stands for the home folder. If there is no such home folder, it stays."""
    try:
        return Path(place).expanduser()
    except RuntimeError:
        return Path(place)


def as_place(path: Path) -> str:
    """Return a path as a value of ``--dataset``, which takes a text without a separator for a name."""
    return str(path) if is_place(str(path)) else f"./{path}"


def model_of(place: str) -> str:
    """Return the name of the network that ``--from`` names.

    Raises:
        ConfigError: there is no such model.
    """
    return _facts(place)[0]


def prepare_of(place: str) -> str:
    """Return how pictures are prepared for the model that ``--from`` names: ``symbol``, ``dotted`` or ``as-is``.

    Raises:
        ConfigError: there is no such model.
    """
    return _facts(place)[1]


def _facts(place: str) -> tuple[str, str]:
    folder = origin(place)
    try:
        if is_published(place):
            record = json.loads((folder / MANIFEST).read_bytes())["training"]
        else:
            record = json.loads((folder / RECORD).read_bytes())
        # Version 0.1 knew one way only.
        return str(record["config"]["model"]), str(record["dataset"].get("prepare", TrainConfig.prepare))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        near = [*models_near(folder), PACKAGED]
        way_out = f"choose from {', '.join(near)}" if len(near) > 1 else WAY_OUT
        hint = f"did you mean {PACKAGED}? " if difflib.get_close_matches(place, [PACKAGED]) else ""
        raise ConfigError(f"--from {place}: there is no trained model; {hint}{way_out}") from error


def digest_of(place: str) -> str:
    """Return the SHA-256 of the ONNX file of a published version as its manifest says it; empty if there is none."""
    try:
        return str(json.loads((origin(place) / MANIFEST).read_bytes())["files"][ONNX]["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def labels_of(place: str) -> tuple[str, ...]:
    """Return the classes of the model that ``--from`` names, which exists."""
    if is_published(place):
        return tuple(json.loads((origin(place) / MANIFEST).read_bytes())["labels"])
    return tuple(json.loads((origin(place) / RECORD).read_bytes())["dataset"]["labels"])


def models_near(folder: Path) -> list[str]:
    """Return up to SHOWN published versions and finished runs in ``folder``, or else in a folder above it."""
    for place in (folder, *folder.parents[:2]):
        files = (place.glob(pattern) for pattern in (f"[0-9]*/{MANIFEST}", f"*/[0-9]*/{MANIFEST}", f"*/{RECORD}"))
        with contextlib.suppress(OSError):  # The folder cannot be read.
            if found := [str(path.parent) for each in files for path in sorted(each)]:
                return found[:SHOWN]
    return []

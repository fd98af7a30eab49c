"""Resume: which settings a resumed run has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from training import checkpoint
from training.checkpoint import CheckpointError
from training.config import AUTO, TrainConfig, flag
from training.loop.errors import TrainingError

# Teachers, fonts and first weights are known by their digests, so their folders may have moved.
KNOWN_BY_DIGEST = ("teacher", "fonts", "start")


def resumed_config(last: Path, chosen: Mapping[str, Any]) -> TrainConfig:
    """Return the config of the run that ``last`` belongs to, with the settings of ``chosen`` that may change.

    Args:
        last: the checkpoint of the run.
        chosen: the settings that the user has chosen, as flags or by a recipe.

    Raises:
        TrainingError: a chosen setting differs from that of the run.
        CheckpointError: the checkpoint is damaged.
    """
    saved = load_state(last)["config"]
    # The run has chosen its precision already.
    chosen = {name: value for name, value in chosen.items() if (name, value) != ("precision", AUTO)}
    check_same_run(saved, chosen, last.parent)
    return TrainConfig(**{**saved, **chosen})


def load_state(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint that holds the state of a run.

    Raises:
        CheckpointError: it is damaged, or holds weights only.
    """
    saved = checkpoint.load(path)
    if "config" not in saved:
        raise CheckpointError(f"{path}: holds weights only, not the state of a run. Name another --output.")
    return saved


def check_same_run(saved: Mapping[str, Any], chosen: Mapping[str, Any], folder: Path) -> None:
    """Check that a run with the settings ``saved`` can go on with the settings ``chosen``. Only epochs may grow.

    Raises:
        TrainingError: a setting differs. The message names every such setting.
    """
    # The checkpoint of an older version has fewer settings.
    saved = {field.name: field.default for field in fields(TrainConfig)} | dict(saved)
    changes = [
        f"{flag(name)} {saved[name]}, not {value}"
        for name, value in chosen.items()
        if saved[name] != value and name not in KNOWN_BY_DIGEST and not (name == "epochs" and value > saved[name])
    ]
    if changes:
        few = " --epochs can only grow;" if chosen.get("epochs", saved["epochs"]) < saved["epochs"] else ""
        raise TrainingError(
            f"--output {folder}: belongs to another run, which has {', '.join(changes)};{few} "
            "leave these flags out to resume it, or name another --output."
        )

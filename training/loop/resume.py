"""The config and the images of a run, new or resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from training import checkpoint
from training.checkpoint import CheckpointError
from training.config import AUTO, TrainConfig, flag, is_place
from training.data.digits import Splits
from training.data.load import Selection, load_data, load_saved
from training.data.own.check import Check
from training.loop.errors import TrainingError
from training.loop.replay import with_enough_epochs
from training.reports import Stage

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
    before = load_state(last)["config"]
    # The run has chosen its precision already.
    chosen = {name: value for name, value in chosen.items() if (name, value) != ("precision", AUTO)}
    check_same_run(before, chosen, last.parent)
    return TrainConfig(**{**before, **chosen})


def begin_or_resume(
    config: TrainConfig,
    chosen: Mapping[str, Any],
    output: Path,
    folder: Path | None,
    *,
    only_folder: bool,
    stage: Stage,
    tell: Callable[[Check], None],
) -> tuple[TrainConfig, Splits]:
    """Return the config and the images of a run: if ``output`` holds one, those that it began with.

    Args:
        config: of a new run.
        chosen: the settings that the user has chosen, as flags or by a recipe.
        folder, only_folder: as in :class:`training.data.load.Selection`.
        stage, tell: as for :func:`training.data.load.load_data`.

    Raises:
        TrainingError: a chosen setting differs from that of the run.
        CheckpointError: the checkpoint is damaged.
        DataError: there is no such data set, or it cannot be used.
    """
    last = output / "last.pt"
    is_resumed = last.exists()
    if is_resumed:
        config = resumed_config(last, chosen)
    selection = Selection(config.prepare, folder, only_folder, config.validation, config.subset)
    # A file of pictures alone does not show that the run is resumed: a run that was killed before its first checkpoint
    # leaves one too.
    if is_resumed and is_place(config.dataset):
        return config, load_saved(output, selection, config.replay)
    splits = load_data(config.dataset, selection, config.replay, stage=stage, tell=tell)
    return config if is_resumed else with_enough_epochs(config, chosen, splits), splits


def load_state(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint that holds the state of a run.

    Raises:
        CheckpointError: it is damaged, or holds weights only.
    """
    state = checkpoint.load(path)
    if "config" not in state:
        raise CheckpointError(f"{path}: holds weights only, not the state of a run; name another --output")
    return state


def check_same_run(before: Mapping[str, Any], chosen: Mapping[str, Any], folder: Path) -> None:
    """Check that a run with the settings ``before`` can go on with the settings ``chosen``. Only epochs may grow.

    Raises:
        TrainingError: a setting differs. The message names every such setting.
    """
    # The checkpoint of an older version has fewer settings.
    before = {field.name: field.default for field in fields(TrainConfig)} | dict(before)
    changes = [
        f"{flag(name)} {before[name]}, not {value}"
        for name, value in chosen.items()
        if before[name] != value and name not in KNOWN_BY_DIGEST and not (name == "epochs" and value > before[name])
    ]
    if changes:
        few = " --epochs can only grow;" if chosen.get("epochs", before["epochs"]) < before["epochs"] else ""
        raise TrainingError(
            f"--output {folder}: belongs to another run, which has {', '.join(changes)};{few} "
            "leave these flags out to resume it, or name another --output"
        )

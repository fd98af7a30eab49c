"""Load the data set that a setting names: one of the known sets, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.config import is_place
from training.data import digits
from training.data.datasets import DATASETS
from training.data.digits import Splits
from training.data.own.check import Check
from training.data.own.load import load_own
from training.data.own.prepare import Stage, no_stage
from training.data.torchvision_sets import load_from_torchvision


def load_data(
    dataset: str,
    *,
    prepare: str,
    folder: Path | None = None,
    validation: int = 0,
    subset: int = 0,
    stage: Stage = no_stage,
    tell: Callable[[Check], None] = lambda _: None,
) -> Splits:
    """Return the data set ``dataset``: its name, or the path of the user's own.

    Args:
        prepare: how pictures come to 28x28; ``symbol`` or ``as-is``.
        folder: where to look for a known data set first.
        validation: size of the validation set; for the user's own data, whether there is one.
        subset: number of training images to keep; 0 keeps all.
        stage: begins the stages that take long.
        tell: called with what was found in the user's own data.

    Raises:
        DataError: there is no such data set, or it cannot be used.
    """
    if is_place(dataset):
        return load_own(Path(dataset), prepare, validation=validation, subset=subset, stage=stage, tell=tell)
    if dataset in DATASETS:
        return digits.load(dataset, folder=folder, validation=validation, subset=subset, prepare=prepare)
    return load_from_torchvision(dataset, prepare, folder=folder, validation=validation, subset=subset, stage=stage)

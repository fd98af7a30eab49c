"""Load the data set that a setting names: one of the known sets, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from training.config import KNOWN_DATASETS, is_place
from training.data import digits
from training.data.datasets import DATASETS
from training.data.digits import Splits
from training.data.errors import DataError
from training.data.own import saved
from training.data.own.check import Check
from training.data.own.files import DATA_FILE, REPLAY_FILE
from training.data.own.layouts import holds_classes
from training.data.own.load import load_own
from training.data.own.replay import with_replay
from training.data.torchvision_sets import load_from_torchvision
from training.origin import as_place
from training.reports import Stage, no_stage


@dataclass(frozen=True)
class Selection:
    """Where a known data set is looked for, which of its images are taken, and how pictures are prepared."""

    prepare: str = "symbol"
    """How pictures come to 28x28; ``symbol``, ``dotted`` or ``as-is``."""
    folder: Path | None = None
    """Where to look for a known data set first."""
    only_folder: bool = False
    """Whether to look for it nowhere else."""
    validation: int = 0
    """Size of the validation set; for the user's own data, whether there is one."""
    subset: int = 0
    """Number of training images to keep; 0 keeps all. With a replay data set, of that one."""


def load_data(
    dataset: str,
    selection: Selection,
    replay: str = "",
    *,
    stage: Stage = no_stage,
    tell: Callable[[Check], None] = lambda _: None,
) -> Splits:
    """Return the data set ``dataset``: its name, or the path of the user's own.

    Args:
        replay: the replay data set, by its name or its path; empty if there is none.
        stage: begins the stages that take long.
        tell: called with what was found in the user's own data.

    Raises:
        DataError: there is no such data set, or it cannot be used.
    """
    own = partial(load_own, Path(dataset), selection.prepare, validation=selection.validation, stage=stage, tell=tell)
    if replay:
        old = load_data(replay, selection, stage=stage)
        return with_replay(own(replayed=old.labels), old)
    if is_place(dataset):
        return own(subset=selection.subset)
    if dataset in DATASETS:
        try:
            return digits.load(dataset, **asdict(selection))
        except DataError as error:
            folder = selection.folder
            if selection.only_folder and folder and holds_classes(folder):
                raise DataError(
                    f"--data {folder}: holds pictures of your own, not {dataset}; did you mean "
                    f"--dataset {as_place(folder)}?"
                ) from error
            raise
    return load_from_torchvision(dataset, **asdict(selection), stage=stage)


def load_saved(run: Path, selection: Selection, replay: str) -> Splits:
    """Return the data set of a run folder that keeps the user's pictures. They are taken as they were saved.

    Args:
        selection: for ``replay``. It is prepared as the user's pictures were.
        replay: the replay data set; empty if there is none. If it is a known one, the run folder does not keep it.

    Raises:
        DataError: a file is missing or damaged, or there is no such data set.
    """
    new = saved.load(run / DATA_FILE)
    if not replay:
        return new
    if replay not in KNOWN_DATASETS or (run / REPLAY_FILE).is_file():
        return with_replay(new, saved.load(run / REPLAY_FILE))
    return with_replay(new, load_data(replay, replace(selection, prepare=new.prepare)))

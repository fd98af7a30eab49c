"""Load the data set that a setting names: one of the known sets, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.config import KNOWN_DATASETS, is_place
from training.data import digits
from training.data.datasets import DATASETS
from training.data.digits import Splits
from training.data.own import saved
from training.data.own.check import Check
from training.data.own.layouts import holds_classes
from training.data.own.load import load_own
from training.data.own.replay import REPLAY_FILE, with_replay
from training.data.sources import DataError
from training.data.torchvision_sets import load_from_torchvision
from training.origin import as_place
from training.reports import Stage, no_stage


def load_data(
    dataset: str,
    *,
    prepare: str,
    folder: Path | None = None,
    only_folder: bool = False,
    validation: int = 0,
    subset: int = 0,
    replay: str = "",
    stage: Stage = no_stage,
    tell: Callable[[Check], None] = lambda _: None,
) -> Splits:
    """Return the data set ``dataset``: its name, or the path of the user's own.

    Args:
        prepare: how pictures come to 28x28; ``symbol`` or ``as-is``.
        folder: where to look for a known data set first.
        only_folder: whether to look for it nowhere else.
        validation: size of the validation set; for the user's own data, whether there is one.
        subset: number of training images to keep; 0 keeps all. With ``replay``, of the replay data set.
        replay: the replay data set, by its name or its path; empty if there is none.
        stage: begins the stages that take long.
        tell: called with what was found in the user's own data.

    Raises:
        DataError: there is no such data set, or it cannot be used.
    """
    if replay:
        old = load_data(
            replay,
            prepare=prepare,
            folder=folder,
            only_folder=only_folder,
            validation=validation,
            subset=subset,
            stage=stage,
        )
        where = Path(dataset)
        new = load_own(where, prepare, validation=validation, replayed=old.labels, stage=stage, tell=tell)
        return with_replay(new, old)
    if is_place(dataset):
        return load_own(Path(dataset), prepare, validation=validation, subset=subset, stage=stage, tell=tell)
    if dataset in DATASETS:
        try:
            return digits.load(
                dataset,
                folder=folder,
                only_folder=only_folder,
                validation=validation,
                subset=subset,
                prepare=prepare,
            )
        except DataError as error:
            if only_folder and folder and holds_classes(folder):
                raise DataError(
                    f"--data {folder}: holds pictures of your own, not {dataset}; did you mean "
                    f"--dataset {as_place(folder)}?"
                ) from error
            raise
    return load_from_torchvision(
        dataset,
        prepare,
        folder=folder,
        only_folder=only_folder,
        validation=validation,
        subset=subset,
        stage=stage,
    )


def load_saved(
    run: Path,
    replay: str = "",
    *,
    folder: Path | None = None,
    only_folder: bool = False,
    validation: int = 0,
    subset: int = 0,
) -> Splits:
    """Return the data set of a run folder that keeps the user's pictures.

    Args:
        replay: the replay data set. If it is a known one, the run folder does not keep it.
        folder, only_folder, validation, subset: as for :func:`load_data`.

    Raises:
        DataError: a file is missing or damaged, or there is no such data set.
    """
    new = saved.load(run / saved.FILE)
    if not replay:
        return new
    if (run / REPLAY_FILE).is_file():
        return with_replay(new, saved.load(run / REPLAY_FILE))
    if replay not in KNOWN_DATASETS and not is_place(replay):
        raise DataError(f"{run / REPLAY_FILE}: is missing; put it back, or train again with another --output")
    old = load_data(
        replay,
        prepare=new.prepare,
        folder=folder,
        only_folder=only_folder,
        validation=validation,
        subset=subset,
    )
    return with_replay(new, old)

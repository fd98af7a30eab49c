"""From a data set on the disk to images in memory, in three parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from training.data.digits import Digits, Splits, shuffled
from training.data.own.check import Check, demand_trainable
from training.data.own.files import DATA_FILE, SHEET
from training.data.own.inspection import inspect, model_name
from training.data.own.samples import MIN_CLASSES
from training.data.own.saved import digest_of, in_random_order, to_bytes
from training.data.own.sheet import to_png
from training.data.own.split import TEST, TRAIN, VALIDATION
from training.reports import Stage, no_stage


def load_own(
    place: Path,
    how: str,
    *,
    validation: int = 0,
    subset: int = 0,
    replayed: Sequence[str] = (),
    stage: Stage = no_stage,
    tell: Callable[[Check], None] = lambda _: None,
) -> Splits:
    """Return the data set at ``place``.

    Args:
        how: ``symbol``, ``dotted`` or ``as-is``.
        validation: 0 means no validation set. Any other number means the usual share.
        subset: number of training images to keep; 0 keeps all.
        replayed: the classes of the replay data set. Then there may be a single class, and no test set.
        stage: begins the stages that take long.
        tell: called with what was found, before it is known whether that is enough to train.

    Raises:
        DataError: it is not a data set, or no network can be trained with it.
    """
    least = 1 if replayed else MIN_CLASSES
    found = inspect(place, how, with_validation=validation > 0, least=least, stage=stage)
    tell(found)
    demand_trainable(found, place, replayed)
    train = _part(found, TRAIN)
    if subset:
        train = shuffled(train).split(subset)[0]
    splits = Splits(
        name=model_name(place),
        labels=found.labels,
        digests={},
        train=train,
        validation=_part(found, VALIDATION),
        test=_part(found, TEST),
        prepare=how,
        several="allowed" if found.allows_several else "rejected",
        is_own=True,
    )
    splits.digests["pictures"] = digest_of(splits)
    return replace(in_random_order(splits), files={DATA_FILE: to_bytes(splits), SHEET: to_png(found)})


def _part(found: Check, part: str) -> Digits:
    index = {label: i for i, label in enumerate(found.labels)}
    chosen = [each for each, its in zip(found.kept, found.parts, strict=True) if its == part]
    images = [each.image for each in chosen if each.image is not None]
    pixels = np.stack(images) if images else np.zeros((0, 28, 28), np.uint8)
    labels = torch.tensor([index[each.sample.label] for each in chosen], dtype=torch.int64)
    return Digits(torch.from_numpy(pixels), labels)

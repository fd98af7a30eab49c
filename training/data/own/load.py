"""From a data set on the disk to images in memory: find, prepare, check, divide."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from training.config import KNOWN_DATASETS
from training.data.digits import Digits, Splits
from training.data.errors import DataError
from training.data.own.check import Check, check, demand_trainable
from training.data.own.layouts import bare_classes, find, stray_pictures, unlisted_pictures
from training.data.own.prepare import prepare_all
from training.data.own.samples import MIN_CLASSES
from training.data.own.saved import FILE, digest_of, in_random_order, to_bytes
from training.data.own.sheet import to_png
from training.data.own.split import TEST, TRAIN, VALIDATION
from training.reports import Stage, no_stage

SHEET = "classes.png"
# The order in which ``subset`` takes training images.
SUBSET_SEED = 20_200


def check_not_known(place: Path) -> None:
    """Check that ``place`` is not the name of a known data set, in which there is nothing to look for.

    Raises:
        DataError: it is.
    """
    if str(place) in KNOWN_DATASETS and not place.exists():
        raise DataError(
            f"{place}: is a known data set and needs no check; train with it: mnist-train --dataset {place}"
        )


def inspect(
    place: Path, how: str, *, with_validation: bool, least: int = MIN_CLASSES, stage: Stage = no_stage
) -> Check:
    """Return what is in the data set at ``place``.

    Raises:
        DataError: it is not a data set, or it has too few or too many classes.
    """
    samples = find(place)
    found = prepare_all(samples, how, stage("reading the pictures"))
    result = check(found, place, with_validation=with_validation, least=least)
    bare = [name for name in bare_classes(place) if name not in result.labels]
    return replace(result, bare=bare, stray=stray_pictures(place), unlisted=unlisted_pictures(place, samples))


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
        how: ``symbol`` or ``as-is``.
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
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SUBSET_SEED))
        train = train.take(order[:subset])
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
    return replace(in_random_order(splits), files={FILE: to_bytes(splits), SHEET: to_png(found)})


def model_name(place: Path) -> str:
    """Return the name of the data set, which is also the default name of its models: that of its folder or file.

    Accents are left out. With letters of another script the name stays as it is, and the export asks for another one:
    without these letters, different data sets would have the same name.
    """
    name = place.absolute().stem if place.is_file() else place.absolute().name
    letters = [sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign)]
    if any(sign.isalnum() and not sign.isascii() for sign in letters):
        return name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "".join(letters)).strip("._-")[:128] or "own"


def _part(found: Check, part: str) -> Digits:
    index = {label: i for i, label in enumerate(found.labels)}
    chosen = [each for each, its in zip(found.kept, found.parts, strict=True) if its == part]
    images = [each.image for each in chosen if each.image is not None]
    pixels = np.stack(images) if images else np.zeros((0, 28, 28), np.uint8)
    labels = torch.tensor([index[each.sample.label] for each in chosen], dtype=torch.int64)
    return Digits(torch.from_numpy(pixels), labels)

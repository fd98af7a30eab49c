"""Look at a data set on the disk: find its samples, prepare and check them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path

from training.config import KNOWN_DATASETS
from training.data.errors import DataError
from training.data.own.check import Check, check
from training.data.own.layouts import (
    bare_classes,
    find,
    hidden_folders,
    holds_classes,
    stray_pictures,
    unlisted_pictures,
)
from training.data.own.prepare import prepare_all
from training.data.own.samples import MIN_CLASSES
from training.reports import Stage, no_stage


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
    labels = {sample.label for sample in samples}
    inner = place / min(labels)
    # An unpacked archive often has another folder around the data set.
    if len(labels) == 1 < least and holds_classes(inner):
        raise DataError(
            f"{place}: has 1 class ({inner.name}): must have {least} or more; if the folders in {inner.name} are the "
            f"classes, name {inner}"
        )
    found = prepare_all(samples, how, stage("reading the pictures"))
    result = check(found, place, with_validation=with_validation, least=least)
    bare = [name for name in bare_classes(place) if name not in result.labels]
    return replace(
        result,
        bare=bare,
        stray=stray_pictures(place),
        hidden=hidden_folders(place),
        unlisted=unlisted_pictures(place, samples),
        is_dotted=how == "dotted",
    )


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

"""The images of a run in its own folder: ``data.npz``.

The user's folder may grow, move or vanish after the run. With this file a resumed run goes on with the same images, and
the export can certify the run with the test set that it was trained with.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from training.data.digits import Digits, Splits, shuffled
from training.data.errors import DataError
from training.data.own import npz
from training.data.own.files import FACTS

PARTS = ("train", "validation", "test")


def digest_of(splits: Splits) -> str:
    """Return the SHA-256 of the classes, and of all images and labels in their order."""
    digest = hashlib.sha256("\n".join(splits.labels).encode())
    for part in PARTS:
        digits: Digits = getattr(splits, part)
        digest.update(f"\n{part} {len(digits)}\n".encode())
        for tensor in (digits.images, digits.labels):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def to_bytes(splits: Splits) -> bytes:
    """Return the content of the file ``data.npz``."""
    buffer = io.BytesIO()
    arrays = {f"{part}_images": getattr(splits, part).images.numpy() for part in PARTS}
    arrays |= {f"{part}_labels": getattr(splits, part).labels.numpy() for part in PARTS}
    facts = {name: np.array(getattr(splits, name)) for name in FACTS}
    np.savez_compressed(buffer, **arrays, **facts)  # type: ignore[arg-type]
    return buffer.getvalue()


def load(path: Path) -> Splits:
    """Return what :func:`to_bytes` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    way_out = "train again with another --output"
    if not path.exists():
        raise DataError(f"{path}: is missing; put it back, or {way_out}")
    names = [f"{part}_{kind}" for part in PARTS for kind in ("images", "labels")]
    found = npz.read(path, [*names, *FACTS], way_out)
    try:
        tensors = {name: torch.from_numpy(found[name]) for name in names}
        train, validation, test = (Digits(tensors[f"{part}_images"], tensors[f"{part}_labels"]) for part in PARTS)
        name, prepare, several = (str(found[fact]) for fact in ("name", "prepare", "several"))
        labels = tuple(map(str, found["labels"]))
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read: {str(error)[:200]}; {way_out}") from error
    splits = Splits(name, labels, {}, train, validation, test, prepare=prepare, several=several, is_own=True)
    splits.digests["pictures"] = digest_of(splits)
    return in_random_order(splits)


def in_random_order(splits: Splits) -> Splits:
    """Return the data set with shuffled parts.

    A user's data is sorted by class, and calibration and export take the first or last images of a part. The digest and
    the file are those of the sorted images, so this comes after them.
    """
    return replace(
        splits,
        train=shuffled(splits.train),
        validation=shuffled(splits.validation),
        test=shuffled(splits.test),
    )

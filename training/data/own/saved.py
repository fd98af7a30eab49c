"""The images of a run in its own folder: ``data.npz``.

The user's folder may grow, move or vanish after the run. With this file a resumed run goes on with the same images, and
the export can certify the run with the test set that it was trained with.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from training.data.digits import Digits, Splits
from training.data.sources import DataError

FILE = "data.npz"
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
    """Return the content of FILE."""
    buffer = io.BytesIO()
    arrays = {f"{part}_images": getattr(splits, part).images.numpy() for part in PARTS}
    arrays |= {f"{part}_labels": getattr(splits, part).labels.numpy() for part in PARTS}
    facts = {name: np.array(getattr(splits, name)) for name in ("name", "labels", "prepare", "several")}
    np.savez_compressed(buffer, **arrays, **facts)  # type: ignore[arg-type]
    return buffer.getvalue()


def load(path: Path) -> Splits:
    """Return what :func:`to_bytes` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            train, validation, test = (
                Digits(torch.from_numpy(archive[f"{part}_images"]), torch.from_numpy(archive[f"{part}_labels"]))
                for part in PARTS
            )
            name, prepare, several = (str(archive[fact]) for fact in ("name", "prepare", "several"))
            labels = tuple(map(str, archive["labels"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {str(error)[:200]}; train again with another --output") from error
    splits = Splits(name, labels, {}, train, validation, test, prepare=prepare, several=several, is_own=True)
    splits.digests["pictures"] = digest_of(splits)
    return splits

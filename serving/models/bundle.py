"""A model bundle on disk: its manifest, and the check that its files match the manifest.

    <repository>/<name>/<version>/manifest.json         what the version is, and how it was tested
                                  model.onnx
                                  model.torchscript.pt
                                  model.int8.onnx       if it was exported with --int8
                                  golden.npz            digits, and the logits of the trained network for them
                                  provenance.intoto.json  how the bundle was made
                                  README.md             the model card
                                  model.sig             signature of all other files, if it was exported with --sign

The package ``export`` writes bundles. This module reads them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from serving import files
from serving.contract import SYMBOL, Preparation, Several
from serving.errors import BundleError
from serving.models import disk
from serving.models.reference import Reference
from serving.models.results import ClassResult, Count, Latency, Mistake, SetResult
from serving.settings import NAME_PATTERN

MANIFEST = disk.MANIFEST
ONNX = "model.onnx"
INT8 = "model.int8.onnx"
TORCHSCRIPT = "model.torchscript.pt"
GOLDEN = "golden.npz"
CARD = "README.md"
PROVENANCE = "provenance.intoto.json"
SIGNATURE = "model.sig"

# The format of each ONNX file, as ``equivalence`` names it.
FORMAT_NAMES = {ONNX: "onnx", INT8: "int8"}

# Raise this number when the meaning of a manifest changes.
FORMAT = 1

# The files of the packaged bundle have 1 MB together.
MAX_BUNDLE_BYTES = 1_000_000_000
# The way out of a damaged version, for messages.
RENEW = "copy the version again, or retire it with mnist-export --retire"
# A response has one probability per label and image, and the metrics have one series per label.
MAX_LABELS, MAX_LABEL_LENGTH = 1000, 128
# Levels of lists and objects. The packaged manifest has five.
MAX_DEPTH = 50


class Tensor(msgspec.Struct, frozen=True):
    """An input or output of the graph. An axis of -1 has any length."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class File(msgspec.Struct, frozen=True):
    """Digest and size of a file."""

    sha256: str
    bytes: Count


class Equivalence(msgspec.Struct, frozen=True):
    """Result of comparing one exported format with the trained network."""

    images: int
    """Images compared."""
    labels_differing: int
    """Images for which this format and the trained network give different labels."""
    logits_difference: float
    """Largest absolute difference of a logit between this format and the trained network."""
    probabilities_difference: float
    """Largest absolute difference of a probability."""
    tolerance: Annotated[float, Meta(ge=0, le=100)]
    """Largest difference allowed, at the export and whenever the bundle is loaded."""
    novelty_difference: float
    """Largest absolute difference of a novelty score."""


class RejectionThreshold(msgspec.Struct, frozen=True):
    """Which images are rejected as not a digit."""

    threshold: Annotated[float, Meta(ge=-1e6, le=1e6)]
    """An image with a higher novelty score is rejected."""
    false_rejections: dict[str, float]
    """Share of clean digits that it rejects. The keys are ``validation`` and ``test``. The threshold was chosen on the
    validation set."""


class ConfidenceThreshold(msgspec.Struct, frozen=True):
    """Which predictions are rejected as unsure."""

    threshold: Annotated[float, Meta(ge=0, le=1)]
    """A prediction with a lower confidence is rejected."""
    false_rejections: dict[str, float]
    """Share of clean digits below it. The keys are those of :class:`RejectionThreshold`."""


class FirstNetwork(msgspec.Struct, frozen=True):
    """The first network of a cascade. It decides the images that it is sure about, and both decide the rest."""

    training: dict[str, Any]
    """As in the manifest, of the run of this network."""
    parameters: int
    sure: float
    """Probability of its class that an image must have, for the first network to decide it."""
    familiar: float
    """Probability of being one of the classes at all that the image must have for that."""
    decided: float
    """Share of the test images that it decides."""
    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """How much it counts for the other images, beside the second network."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``manifest.json``: what a version is, and how it was tested."""

    format: int
    name: Annotated[str, Meta(pattern=rf"^{NAME_PATTERN}$(?!\n)")]
    version: Annotated[int, Meta(ge=1)]
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
    temperature: Annotated[float, Meta(gt=0)]
    """Calibration temperature. The last layer already contains it."""
    prepare: Preparation = SYMBOL
    """How a picture comes to the 28x28 of the network: as a lone ``symbol``, ``dotted`` or ``as-is``."""
    several: Several = "rejected"
    """What happens to a picture in several pieces: ``rejected``, or ``allowed`` where a symbol consists of them."""
    confidence: ConfidenceThreshold | None = None
    """None: no prediction is rejected as unsure, as in bundles of version 0.1."""
    serve: str = ONNX
    """The ONNX file to serve. If there are two, this is the faster one by ``microseconds``."""
    correct: dict[str, int] = {}
    """Test images with the correct label by ONNX file, if there are two files."""
    microseconds: dict[str, float] = {}
    """Time per image by ONNX file, measured at the export, if there are two files."""
    sets: dict[str, SetResult] = {}
    """Results by set of images. The first set is the test set."""
    classes: tuple[ClassResult, ...] = ()
    """Results on the test set by class, in the order of the labels."""
    mistakes: tuple[Mistake, ...] = ()
    """Which classes are taken for which on the test set, the most frequent first."""
    latency: Latency | None = None
    first: FirstNetwork | None = None
    """The first network, if the bundle is a cascade. ``training`` and ``temperature`` belong to the second one."""
    provenance: dict[str, Any] = {}
    """Where the bundle comes from: revisions of the source, hosts, seed, digests of teachers and fonts."""
    reference: Reference | None = None
    """How the predictions for the validation set are distributed; None in older bundles, and without a validation
    set."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files matched their digests when it was read."""

    folder: Path
    manifest: Manifest
    digest: str = ""
    """The SHA-256 of the file of the manifest; empty if the manifest is not from a file."""

    def content(self, name: str) -> bytes:
        """Return the content of a file, which matches its digest now.

        Raises:
            BundleError: it was altered since the bundle was read.
            OSError: it cannot be read.
        """
        expected = self.manifest.files[name]
        content = files.read(self.folder / name, expected.bytes)
        if hashlib.sha256(content).hexdigest() != expected.sha256:
            raise BundleError(f"{self.folder / name} was altered while it was loaded")
        return content

    def tolerance(self, file: str) -> float:
        """Return the largest difference allowed between the logits of an ONNX file and the golden logits."""
        return self.manifest.equivalence[FORMAT_NAMES[file]].tolerance


def read(folder: Path) -> Bundle:
    """Read the manifest in ``folder`` and check every file that it lists.

    Raises:
        BundleError: the manifest is missing or invalid, or a file is missing or altered.
    """
    path = folder / MANIFEST
    try:
        content = files.read(path, disk.MAX_MANIFEST_BYTES)
        manifest = decode(content)
    except OSError as error:
        raise BundleError(
            f"{folder} is not a model bundle: cannot read {MANIFEST}: {error.strerror}{_bundle_below(folder)}"
        ) from error
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise BundleError(f"{path} is not a valid manifest: {error}") from error
    if manifest.format != FORMAT:
        raise BundleError(
            f"{path} has format {manifest.format}, but this version reads format {FORMAT}; export the run again with it"
        )
    if not {ONNX, GOLDEN} <= manifest.files.keys() or "onnx" not in manifest.equivalence:
        raise BundleError(
            f"{path} does not list {ONNX} and {GOLDEN} with their SHA-256, or lacks the equivalence; {RENEW}"
        )
    if manifest.serve not in manifest.files or FORMAT_NAMES.get(manifest.serve) not in manifest.equivalence:
        raise BundleError(
            f"{path} names {manifest.serve} as the file to serve, but lacks its SHA-256 or its equivalence; {RENEW}"
        )
    for name in manifest.files:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise BundleError(f"{path} names a file outside its folder: {name!r}")
    total = sum(file.bytes for file in manifest.files.values())
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(f"{path} lists files of {total} bytes together: must be at most {MAX_BUNDLE_BYTES}")
    # The sizes of all files come first: reading a file to find its digest takes much longer.
    for check in (_check_size, _check_digest):
        for name, expected in manifest.files.items():
            try:
                check(folder / name, expected)
            except OSError as error:
                raise BundleError(f"{folder / name} cannot be read: {error.strerror}") from error
    return Bundle(folder, manifest, hashlib.sha256(content).hexdigest())


def _bundle_below(folder: Path) -> str:
    """Return the end of a message that names a bundle in a model or in a repository; empty if there is none."""
    for model in (folder, *(folder / name for name in disk.published(folder))):
        with suppress(OSError, IndexError):  # It cannot be read, or it has no version.
            return f"; name one version of a model, such as {model / str(disk.versions(model)[-1])}"
    return ""


def decode(content: bytes) -> Manifest:
    """Return the manifest in the content of ``manifest.json``.

    Raises:
        MsgspecError, ValueError, OverflowError, RecursionError: the content is not a valid manifest.
    """
    # Python's own parser can find a key that comes twice, of which another reader may take the other value.
    members = json.loads(content.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
    _check_depth(members, MAX_DEPTH)
    manifest = msgspec.convert(members, Manifest)
    # Not as annotations of the field: Litestar would describe a tuple with a length wrongly in the schema of the API.
    if not 0 < len(manifest.labels) <= MAX_LABELS:
        raise ValueError(f"Expected 1 to {MAX_LABELS} labels, got {len(manifest.labels)} - at `$.labels`")
    if any(len(label) > MAX_LABEL_LENGTH for label in manifest.labels):
        raise ValueError(f"Expected `str` of length <= {MAX_LABEL_LENGTH} - at `$.labels[...]`")
    test = manifest.result.get("test", {})
    if not isinstance(test, dict) or not isinstance(test.get("accuracy", 0.0), float | int):
        raise ValueError("Expected a number - at `$.result.test.accuracy`")
    if manifest.reference:
        manifest.reference.check(len(manifest.labels))
    # The service sends the manifest (``GET /certificate``), so msgspec must be able to write and read all its values.
    return msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        [(key, _)] = Counter(key for key, _ in members).most_common(1)
        raise ValueError(f"the key {key!r} comes twice in one object")
    return found


def _check_depth(value: Any, levels: int) -> None:
    if not levels:
        raise ValueError(f"it has more than {MAX_DEPTH} levels of lists and objects")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for member in value:
            _check_depth(member, levels - 1)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is not a finite number")
    return number


def file_of(path: Path) -> File:
    """Return the digest and the size of a file.

    Raises:
        OSError: it cannot be read, or it is not a regular file.
    """
    size = files.size_of(path)
    return File(files.digest(path, size), size)


def _check_size(path: Path, expected: File) -> None:
    size = files.size_of(path)
    if size != expected.bytes:
        raise BundleError(f"{path} has {size} bytes, but its manifest says {expected.bytes}; {RENEW}")


def _check_digest(path: Path, expected: File) -> None:
    digest = files.digest(path, expected.bytes)
    if digest != expected.sha256:
        raise BundleError(
            f"{path} was altered: its SHA-256 is {digest}, but its manifest says {expected.sha256}; {RENEW}"
        )

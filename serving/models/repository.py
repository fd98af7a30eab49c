"""Models and their versions: on disk, loaded, and followed while they change."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from serving.contract import Images, ModelOutput
from serving.errors import BundleError, ModelNotFoundError, ModelUnavailableError
from serving.models import bundle
from serving.models.bundle import Bundle
from serving.models.classifier import INPUTS, Classifier, outputs
from serving.pictures.mnist_form import Reason

# No leading zero: 01 and 1 would be one version in two folders.
VERSION = re.compile(r"[1-9][0-9]{0,17}")
# Nothing that a path or a URL reads otherwise; a leading dot is an export under way.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

# Seconds that a model may keep the event loop, and the images that are worth them even of a slow one: from there on
# the time per image hardly falls.
TURN = 0.0005
AT_LEAST = 8

# By an image's place in its request, why it is no single digit.
Reasons = Mapping[int, Reason | None]
Judgement = Reason | Literal["no digit"] | None

log = logging.getLogger("serving")


@dataclass(eq=False)
class Model:
    """A certified version, loaded and verified on this CPU; ``with model:`` while a request uses it."""

    bundle: Bundle
    classifier: Classifier
    _leases: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """What every request asks for, at hand."""
        manifest = self.bundle.manifest
        self.name: str = manifest.name
        """Its name in the repository."""
        self.version: str = str(manifest.version)
        """Its version, in the form the API gives it."""
        self.labels: tuple[str, ...] = manifest.labels
        """Names of the classes."""
        self.precision = "int8" if manifest.serve == bundle.INT8 else "float32"
        """What its arithmetic is done in."""
        self.at_once = max(AT_LEAST, int(TURN / self.classifier.seconds_per_image))
        """So many images the event loop classifies before it looks at its sockets again."""
        # An image of novelty above it is no digit.
        self._limit = manifest.novelty.threshold if manifest.novelty else math.inf
        self._free = threading.Condition(self._lock)

    def judge(self, images: Images, answers: ModelOutput, reasons: Reasons) -> list[Judgement]:
        """Why each image is not accepted, None where it is.

        Args:
            reasons: what was found already, by the image's place.
        """
        novelty = answers.novelty.tolist() if answers.novelty is not None else [-math.inf] * len(images)
        # As bytes: of a single image NumPy's own any() takes several times as long.
        pixels = images.tobytes()
        size = len(pixels) // len(images)
        blank = bytes(size)
        return [
            "empty"
            if pixels.startswith(blank, i * size)
            else reasons.get(i) or ("no digit" if score > self._limit else None)
            for i, score in enumerate(novelty)
        ]

    def __enter__(self) -> None:
        """A request begins to use the model."""
        with self._lock:
            self._leases += 1

    def __exit__(self, *_: object) -> None:
        """It has done."""
        with self._lock:
            self._leases -= 1
            if not self._leases:
                self._free.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until no request uses the model; False if some still do after ``seconds``."""
        with self._free:
            return self._free.wait_for(lambda: self._leases == 0, seconds)


@dataclass(frozen=True)
class Entry:
    """A line of the repository's index."""

    name: str
    version: str
    state: str
    """READY or UNAVAILABLE."""
    reason: str = ""


def versions(repository: Path, name: str) -> list[int]:
    """Version numbers of the model ``name`` in ascending order; other entries are passed over."""
    folder = repository / name
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    return sorted(int(entry.name) for entry in entries if VERSION.fullmatch(entry.name))


def load(repository: Path, name: str, version: int | None = None) -> Model:
    """Load a version, the newest unless one is named, and prove it on this CPU.

    Raises:
        BundleError: there is none, or it is not what its manifest certifies.
    """
    known = versions(repository, name)
    if not known:
        raise BundleError(f"{repository} holds no model {name!r}: publish one with mnist-export")
    if version is not None and version not in known:
        raise BundleError(f"{repository / name} has no version {version}: choose from {', '.join(map(str, known))}")
    version = version or known[-1]
    model = load_folder(repository / name / str(version))
    if (model.name, model.version) != (name, str(version)):
        raise BundleError(f"{model.bundle.folder} holds {model.name} version {model.version}: was it renamed?")
    return model


def load_folder(folder: Path) -> Model:
    """Load and prove the bundle in ``folder``.

    Raises:
        BundleError: it is not what its manifest certifies.
    """
    found = bundle.read(folder)
    file = found.manifest.serve
    classifier = Classifier(folder / file)
    expected = (INPUTS, outputs(len(found.manifest.labels), novelty=found.manifest.novelty is not None))
    for actual in ((classifier.inputs, classifier.outputs), (found.manifest.inputs, found.manifest.outputs)):
        if actual != expected:
            raise BundleError(f"{folder} takes and gives {actual}; this service needs {expected}")
    classifier.verify(folder / bundle.GOLDEN, found.tolerance(file))
    return Model(found, classifier)


# Names, sizes and times of a version's files: unchanged, there is nothing new to try.
Fingerprint = tuple[tuple[str, int, int], ...]


class Repository:
    """The models of a folder, the newest versions of each loaded, kept in step with the folder by :meth:`scan`.

    A version that cannot be proved is refused and tried again when its files change; what was loaded
    goes on answering. Safe to share by threads: readers see the state before a scan or after it.

    Args:
        folder: the repository on disk.
        keep: newest versions of each model to have loaded; 0 is all.
        unloaded: folder in which an unloaded model is remembered by an empty file of its name, where all
            processes of a service find it.
        on_load, on_drop, on_refuse: told of each version as it comes and goes.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        unloaded: Path,
        *,
        on_load: Callable[[str, str], None] = lambda name, version: None,
        on_drop: Callable[[str, str], None] = lambda name, version: None,
        on_refuse: Callable[[str, str], None] = lambda name, version: None,
    ) -> None:
        self.folder = folder
        self._keep = keep
        self._unloaded = unloaded
        self._on_load, self._on_drop, self._on_refuse = on_load, on_drop, on_refuse
        self._scanning = threading.Lock()
        # By name, then by version, newest first. Replaced as a whole, never changed.
        self._models: dict[str, dict[str, Model]] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._fingerprints: dict[tuple[str, str], Fingerprint] = {}

    def get(self, name: str, version: str | None = None) -> Model:
        """A loaded version, the newest unless one is named.

        Raises:
            ModelNotFoundError, ModelUnavailableError: there is none.
        """
        loaded = self._models.get(name, {})
        if version is None and loaded:
            return next(iter(loaded.values()))
        if version is not None and version in loaded:
            return loaded[version]
        for entry in self.index():
            if entry.name == name and version in (None, entry.version):
                raise ModelUnavailableError(f"model {name!r} version {entry.version} is unavailable: {entry.reason}")
        raise ModelNotFoundError(
            f"there is no model {name!r}" if version is None else f"model {name!r} has no version {version!r}"
        )

    def versions(self, name: str) -> list[str]:
        """The loaded versions of a model in ascending order."""
        return sorted(self._models.get(name, {}), key=int)

    def models(self) -> list[Model]:
        """Every loaded version."""
        return [model for loaded in self._models.values() for model in loaded.values()]

    def index(self) -> list[Entry]:
        """Every version on disk or in memory: loaded, refused, unloaded, or passed over for newer ones."""
        try:
            names = {*self._names(), *self._models}
        except OSError:
            names = {*self._models}
        return [
            self._entry(name, version)
            for name in sorted(names)
            for version in sorted({*map(str, versions(self.folder, name)), *self._models.get(name, {})}, key=int)
        ]

    def _entry(self, name: str, version: str) -> Entry:
        reason = self._refused.get((name, version), "")
        if version in self._models.get(name, {}):
            return Entry(name, version, "READY", reason)
        if self._is_unloaded(name):
            reason = "unloaded"
        return Entry(name, version, "UNAVAILABLE", reason or f"only the {self._keep} newest versions are loaded")

    def scan(self) -> None:
        """Bring what is loaded in step with the folder."""
        with self._scanning:
            try:
                names = self._names()
            except OSError as error:
                # A share that is away for a moment takes no model down.
                log.warning("the repository cannot be read, its models stay: %s", error)
                return
            for name in {*names, *self._models}:
                self._scan_model(name)

    def load(self, name: str) -> None:
        """Load a model that was unloaded, and try again what was refused.

        Raises:
            ModelNotFoundError, ModelUnavailableError: no version of it can be loaded.
        """
        if NAME.fullmatch(name):
            (self._unloaded / name).unlink(missing_ok=True)
        with self._scanning:
            for key in [key for key in self._refused if key[0] == name]:
                self._fingerprints.pop(key, None)
        self.scan()
        self.get(name)

    def unload(self, name: str, seconds: float) -> None:
        """Take a model out of service, and wait until the requests that use it are answered.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        if name not in self._models and not versions(self.folder, name):
            raise ModelNotFoundError(f"there is no model {name!r}")
        (self._unloaded / name).touch()
        going = list(self._models.get(name, {}).values())
        self.scan()
        for model in going:
            model.drain(seconds)

    def _names(self) -> list[str]:
        return [entry.name for entry in self.folder.iterdir() if NAME.fullmatch(entry.name) and entry.is_dir()]

    def _is_unloaded(self, name: str) -> bool:
        return (self._unloaded / name).exists()

    def _scan_model(self, name: str) -> None:
        before = self._models.get(name, {})
        after: dict[str, Model] = {}
        on_disk = [] if self._is_unloaded(name) else [str(version) for version in versions(self.folder, name)]
        for version in reversed(on_disk):
            if self._keep and len(after) == self._keep:
                break
            model = self._current(name, version, before.get(version))
            if model:
                after[version] = model
        self._models = {other: loaded for other, loaded in self._models.items() if other != name} | (
            {name: after} if after else {}
        )
        for key in [key for key in self._fingerprints if key[0] == name and key[1] not in on_disk]:
            self._fingerprints.pop(key)
            self._refused.pop(key, None)
        for version in before.keys() - after.keys():
            self._fingerprints.pop((name, version), None)
            log.info("dropped model %s version %s", name, version)
            self._on_drop(name, version)

    def _current(self, name: str, version: str, loaded: Model | None) -> Model | None:
        """The version as it is on disk now; what was ``loaded`` if the disk has nothing that can be proved."""
        key = (name, version)
        fingerprint = _fingerprint(self.folder / name / version)
        if self._fingerprints.get(key) == fingerprint:
            return loaded
        self._fingerprints[key] = fingerprint
        try:
            model = load(self.folder, name, int(version))
        except BundleError as error:
            self._refused[key] = str(error)
            log.error("refused model %s version %s: %s", name, version, error)
            self._on_refuse(name, version)
            return loaded
        self._refused.pop(key, None)
        if loaded is None:
            self._on_load(name, version)
        log.info("loaded model %s version %s", name, version)
        return model


def _fingerprint(folder: Path) -> Fingerprint:
    found = []
    try:
        for path in folder.iterdir():
            status = path.stat()
            found.append((path.name, status.st_size, status.st_mtime_ns))
    except OSError:
        return ()
    return tuple(sorted(found))

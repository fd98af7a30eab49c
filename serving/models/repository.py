"""The model repository: which versions are on disk, and which of them are loaded."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from serving.errors import BundleError, ModelNotFoundError, ModelUnavailableError
from serving.models.model import Model, load_folder

# No leading zero: otherwise the folders 01 and 1 would be the same version.
VERSION = re.compile(r"[1-9][0-9]{0,17}")
# Only characters that mean nothing special in a path or a URL. A leading dot marks an unfinished export.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

log = logging.getLogger("serving")


class Change(NamedTuple):
    """What a scan did with one version."""

    kind: Literal["loaded", "dropped", "rejected"]
    """``rejected``: the version could not be verified and is not served."""
    name: str
    version: str


@dataclass(frozen=True)
class Entry:
    """One version in the index of the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""
    """Why the version is unavailable, or why its files on disk were rejected."""


class Fingerprint(NamedTuple):
    """Name, size and modification time of a file. While they stay the same, the file is not read again."""

    name: str
    size: int
    modified: int


def versions(repository: Path, name: str) -> list[int]:
    """Return the version numbers of the model ``name`` on disk in ascending order."""
    try:
        entries = list((repository / name).iterdir())
    except OSError:
        return []
    return sorted(int(entry.name) for entry in entries if VERSION.fullmatch(entry.name))


def load(repository: Path, name: str, version: int | None = None) -> Model:
    """Load one version of a model, by default the newest, and verify it on this CPU.

    Raises:
        BundleError: there is no such version, or it cannot be verified.
    """
    known = versions(repository, name)
    if not known:
        raise BundleError(f"{repository} holds no model {name!r}; publish one with mnist-export")
    if version is not None and version not in known:
        raise BundleError(f"{repository / name} has no version {version}; choose one of {', '.join(map(str, known))}")
    version = version or known[-1]
    model = load_folder(repository / name / str(version))
    if (model.name, model.version) != (name, str(version)):
        raise BundleError(f"{model.bundle.folder} holds {model.name} version {model.version}: was it renamed?")
    return model


class Repository:
    """The models of a repository folder, with the newest versions of each model loaded.

    :meth:`scan` loads new versions and drops removed ones. A version that cannot be verified is rejected, and is tried
    again when its files change. If the files of a loaded version are damaged, the loaded version stays. Threads may
    share a repository: a reader gets the versions of a model from before a scan or from after it, never a mixture.

    Args:
        folder: the repository on disk.
        keep: number of versions to load per model, the newest first; 0 loads all.
        unloaded: the names of the models that are unloaded at the start.
    """

    def __init__(self, folder: Path, keep: int, unloaded: Iterable[str] = ()) -> None:
        self.folder = folder
        self._keep = keep
        self._unloaded = set(unloaded)
        self._scanning = threading.Lock()
        # By name, then by version, newest first. A scan replaces the dictionary after each model and never changes it
        # in place, so readers need no lock.
        self._models: dict[str, dict[str, Model]] = {}
        # By name and version: why the files on disk were rejected, and the fingerprints of the files that were tried.
        self._rejected: dict[tuple[str, str], str] = {}
        self._fingerprints: dict[tuple[str, str], tuple[Fingerprint, ...]] = {}

    # Reading

    def get(self, name: str, version: str | None = None) -> Model:
        """Return a loaded version of a model, by default the newest.

        Raises:
            ModelNotFoundError: there is no such model or version.
            ModelUnavailableError: it exists, but it is not loaded.
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
        """Return the loaded versions of a model in ascending order."""
        return sorted(self._models.get(name, {}), key=int)

    def models(self) -> list[Model]:
        """Return every loaded version of every model."""
        return [model for loaded in self._models.values() for model in loaded.values()]

    def index(self) -> list[Entry]:
        """Return every version that is on disk or loaded, with its state."""
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
        reason = self._rejected.get((name, version), "")
        if version in self._models.get(name, {}):
            return Entry(name, version, "READY", reason)
        if self._is_unloaded(name):
            reason = "unloaded"
        return Entry(
            name, version, "UNAVAILABLE", reason or f"not loaded: the service loads the newest {self._keep} only"
        )

    # Changing

    def scan(self) -> list[Change]:
        """Load new versions and drop removed ones. Return the changes."""
        with self._scanning:
            try:
                names = self._names()
            except OSError as error:
                # A network share may be unreachable for a moment. That must not unload any model.
                log.warning("cannot read the model repository; the loaded models stay: %s", error)
                return []
            return [change for name in {*names, *self._models} for change in self._scan_model(name)]

    def load(self, name: str) -> list[Change]:
        """Load a model that was unloaded, and try its rejected versions again. Return the changes.

        The model may still be unavailable afterwards; then :meth:`get` raises an error with the reason.

        Raises:
            ModelNotFoundError: the name is not a valid name of a model.
        """
        _check_name(name)
        self._unloaded.discard(name)
        with self._scanning:
            for key in [key for key in self._rejected if key[0] == name]:
                self._fingerprints.pop(key, None)
        return self.scan()

    def unload(self, name: str) -> list[Change]:
        """Unload a model. Return the changes.

        Requests that already use the model continue; :meth:`Model.drain` waits for them.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        _check_name(name)
        if name not in self._models and not versions(self.folder, name):
            raise ModelNotFoundError(f"there is no model {name!r}")
        self._unloaded.add(name)
        return self.scan()

    def _names(self) -> list[str]:
        return [entry.name for entry in self.folder.iterdir() if NAME.fullmatch(entry.name) and entry.is_dir()]

    def _is_unloaded(self, name: str) -> bool:
        return name in self._unloaded

    def _scan_model(self, name: str) -> list[Change]:
        changes: list[Change] = []
        before = self._models.get(name, {})
        after: dict[str, Model] = {}
        on_disk = [] if self._is_unloaded(name) else [str(version) for version in versions(self.folder, name)]
        for version in reversed(on_disk):
            if self._keep and len(after) == self._keep:
                break
            model, change = self._scan_version(name, version, before.get(version))
            if model:
                after[version] = model
            if change:
                changes.append(change)
        self._models = {other: loaded for other, loaded in self._models.items() if other != name} | (
            {name: after} if after else {}
        )
        for key in [key for key in self._fingerprints if key[0] == name and key[1] not in on_disk]:
            self._fingerprints.pop(key)
            self._rejected.pop(key, None)
        for version in before.keys() - after.keys():
            self._fingerprints.pop((name, version), None)
            log.info("dropped model %s version %s", name, version)
            changes.append(Change("dropped", name, version))
        return changes

    def _scan_version(self, name: str, version: str, loaded: Model | None) -> tuple[Model | None, Change | None]:
        """Return the model to serve for a version: the one on disk if it can be verified, otherwise ``loaded``."""
        key = (name, version)
        fingerprint = _fingerprint(self.folder / name / version)
        if self._fingerprints.get(key) == fingerprint:
            return loaded, None
        self._fingerprints[key] = fingerprint
        try:
            model = load(self.folder, name, int(version))
        except BundleError as error:
            self._rejected[key] = str(error)
            log.error("rejected model %s version %s: %s", name, version, error)
            return loaded, Change("rejected", name, version)
        self._rejected.pop(key, None)
        log.info("loaded model %s version %s", name, version)
        return model, Change("loaded", name, version)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ModelNotFoundError(f"there is no model {name!r}")


def _fingerprint(folder: Path) -> tuple[Fingerprint, ...]:
    found = []
    try:
        for path in folder.iterdir():
            status = path.stat()
            found.append(Fingerprint(path.name, status.st_size, status.st_mtime_ns))
    except OSError:
        return ()
    return tuple(sorted(found))

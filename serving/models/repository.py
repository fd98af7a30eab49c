"""The model repository: which versions are on disk, and which of them are loaded."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from serving.errors import BundleError, ModelNotFoundError, ModelUnavailableError, quoted
from serving.models import disk
from serving.models.disk import NAME, Fingerprint
from serving.models.missing import choose_one_of, why_missing, why_unreadable
from serving.models.model import Model, load_folder
from serving.models.rollout import RolloutState, choose
from serving.models.state import UNKNOWN, Entry, ModelState, public
from serving.models.trust import Trust
from serving.settings import NAME_RULE

log = logging.getLogger("serving")

# A version for which there was too little memory is tried again after this time, although its files stay the same.
RETRY_SECONDS = 60.0


class Change(NamedTuple):
    """What a scan did with one version."""

    kind: Literal["loaded", "dropped", "rejected"]
    """``rejected``: the version could not be verified and is not served."""
    name: str
    version: str


def versions(repository: Path, name: str) -> list[int]:
    """Return the version numbers of the model ``name`` on disk in ascending order."""
    try:
        return disk.versions(repository / name)
    except OSError:
        return []


def load(repository: Path, name: str, version: int | None = None, trust: Trust | None = None) -> Model:
    """Load one version of a model, by default the newest, and verify it on this CPU.

    Args:
        trust: who must have signed it; see :func:`serving.models.model.load_folder`.

    Raises:
        BundleError: there is no such version, or it cannot be verified.
    """
    if not NAME.fullmatch(name):
        raise BundleError(f"{name!r} is not a valid model name: it {NAME_RULE}")
    try:
        known = disk.versions(repository / name)
    except OSError as error:
        raise BundleError(why_unreadable(repository, name, error)) from error
    if not known:
        raise BundleError(why_missing(repository, name))
    if version is not None and version not in known:
        raise BundleError(f"{repository / name} has no version {version!r}; choose one of {', '.join(map(str, known))}")
    version = version or known[-1]
    model = load_folder(repository / name / str(version), trust)
    if (model.name, model.version) != (name, str(version)):
        raise BundleError(f"{model.bundle.folder} holds {model.name} version {model.version}: was it renamed?")
    return model


class Repository:
    """The models of a repository folder, with the newest versions of each model loaded.

    :meth:`scan` loads new versions and drops removed ones. A version that cannot be verified is rejected, and is tried
    again when its files change. If the files of a loaded version are damaged, or if they can no longer be read, the
    loaded version stays. Only the methods that change the repository read the disk, which may take long. Threads may
    share a repository: a reader gets the versions of a model from before a scan or from after it, never a mixture.

    Args:
        folder: the repository on disk.
        keep: number of versions to load per model, the newest first; 0 loads all.
        unloaded: the names of the models that are unloaded at the start.
        trust: who must have signed a version; None loads those that nobody signed too.
    """

    def __init__(self, folder: Path, keep: int, unloaded: Iterable[str] = (), trust: Trust | None = None) -> None:
        self.folder = folder
        self._trust = trust
        self._keep = keep
        self._unloaded = set(unloaded)
        self._scanning = threading.Lock()
        # By name. A scan replaces the state of a model and never changes it in place, so readers need no lock.
        self._models: dict[str, ModelState] = {}
        # By name and version: why the files on disk were rejected, and the fingerprints of the files that were tried.
        self._rejected: dict[tuple[str, str], str] = {}
        self._fingerprints: dict[tuple[str, str], Fingerprint] = {}
        # By name and version: when a version that lacked memory is tried again, in the time of time.monotonic.
        self._again: dict[tuple[str, str], float] = {}
        # By name of the model: why its folder cannot be read. The empty name stands for the whole repository.
        self._faults: dict[str, str] = {}
        # By name of the model. Without an entry, the newest version responds.
        self._rollouts: dict[str, RolloutState] = {}

    # Reading

    def get(self, name: str, version: str | None = None) -> Model:
        """Return a loaded version of a model, by default the stable one. Without a rollout, that is the newest.

        Raises:
            ModelNotFoundError: there is no such model or version.
            ModelUnavailableError: it exists, but it is not loaded.
        """
        loaded, entries, stable, _ = self._models.get(name, UNKNOWN)
        if version is None and stable:
            return stable
        if version is not None and version in loaded:
            return loaded[version]
        for entry in reversed(entries):
            if not entry.version:
                raise ModelUnavailableError(f"model {name!r} is unavailable: {entry.reason}")
            if version in (None, entry.version):
                raise ModelUnavailableError(f"model {name!r} version {entry.version} is unavailable: {entry.reason}")
        if not entries:
            raise self._unknown(name)
        raise ModelNotFoundError(f"model {quoted(name)} has no version {quoted(version)}{choose_one_of(list(loaded))}")

    def pair(self, name: str) -> tuple[Model, Model] | None:
        """Return the stable version of a model and its candidate, or None if it has no candidate."""
        state = self._models.get(name, UNKNOWN)
        return (state.stable, state.candidate) if state.stable and state.candidate else None

    def versions(self, name: str) -> list[str]:
        """Return the loaded versions of a model in ascending order."""
        return sorted(self._models.get(name, UNKNOWN).loaded, key=int)

    def models(self) -> list[Model]:
        """Return every loaded version of every model."""
        return [model for state in self._models.values() for model in state.loaded.values()]

    def index(self) -> list[Entry]:
        """Return every version that the last scan found, with its state."""
        return [entry for _, state in sorted(self._models.items()) for entry in state.entries]

    def rejected(self) -> list[tuple[str, str]]:
        """Return the name and version of each version on disk that could not be verified."""
        return list(self._rejected)

    @property
    def is_readable(self) -> bool:
        """Whether the last scan could read the folder of the repository and the folders of all models."""
        return not self._faults

    # Changing

    def scan(self) -> list[Change]:
        """Load new versions and drop removed ones. Return the changes."""
        with self._scanning:
            names: set[str] = set()
            fault = ""
            try:
                names = disk.names(self.folder)
            except OSError as error:
                fault = f"{self.folder} cannot be read: {error.strerror}"
            self._log_fault("", fault)
            return [
                change
                for name in sorted({*names, *self._models})
                for change in self._scan_model(name, is_listed=name in names, fault=fault)
            ]

    def load(self, name: str) -> list[Change]:
        """Load a model that was unloaded, and try its rejected versions again. Return the changes.

        The model may still be unavailable afterwards; then :meth:`get` raises an error with the reason.

        Raises:
            ModelNotFoundError: the name is not a valid name of a model.
        """
        if not NAME.fullmatch(name):
            raise self._unknown(name)
        self._unloaded.discard(name)
        with self._scanning:
            for key in [key for key in self._rejected if key[0] == name]:
                self._rejected.pop(key)
                self._fingerprints.pop(key, None)
        return self.scan()

    def unload(self, name: str) -> list[Change]:
        """Unload a model. Return the changes.

        Requests that already use the model continue; :meth:`Model.drain` waits for them.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        if not NAME.fullmatch(name) or (name not in self._models and not disk.has_version(self.folder / name)):
            raise self._unknown(name)
        self._unloaded.add(name)
        return self.scan()

    def follow_rollouts(self, states: Mapping[str, RolloutState]) -> None:
        """Follow these rollout states, by name of the model. A stable version stays loaded, however old it is."""
        with self._scanning:
            self._rollouts = dict(states)
            self._models = {
                name: self._state(name, state.loaded, state.entries) for name, state in self._models.items()
            }

    def _unknown(self, name: str) -> ModelNotFoundError:
        return ModelNotFoundError(f"there is no model {quoted(name)}{choose_one_of(sorted(self._models))}")

    def _state(self, name: str, loaded: Mapping[str, Model], entries: tuple[Entry, ...]) -> ModelState:
        if not loaded:
            return ModelState(loaded, entries)
        stable, candidate = choose(self._rollouts.get(name), list(loaded))
        return ModelState(loaded, entries, loaded[stable], loaded[candidate] if candidate else None)

    def _scan_model(self, name: str, *, is_listed: bool, fault: str) -> list[Change]:
        """Update one model.

        Args:
            is_listed: whether the repository has an entry of this name.
            fault: why the repository cannot be read, if so.
        """
        before = self._models.get(name, UNKNOWN)
        on_disk: list[str] = []
        if not fault:
            on_disk, fault = self._versions_on_disk(name, before) if is_listed else ([], "")
            self._log_fault(name, fault)
        if fault:
            # A network disk may be unreachable for a moment, so the loaded versions stay.
            on_disk = [entry.version for entry in before.entries if entry.version]
        is_unloaded = name in self._unloaded
        wanted = [] if is_unloaded else on_disk
        after, changes = self._scan_versions(name, wanted, before, fault)
        changes += self._drop(name, before.loaded.keys() - after.keys(), wanted)
        entries = [
            self._entry(name, version, fault, is_loaded=version in after, is_unloaded=is_unloaded)
            for version in on_disk
        ]
        if fault and not entries:
            entries = [Entry(name, "", "UNAVAILABLE", public(fault, self.folder))]
        self._models = {other: state for other, state in self._models.items() if other != name} | (
            {name: self._state(name, after, tuple(entries))} if entries else {}
        )
        return changes

    def _versions_on_disk(self, name: str, before: ModelState) -> tuple[list[str], str]:
        """Return the versions in the folder of a model in ascending order, and why it cannot be read, if so."""
        try:
            return [str(version) for version in disk.versions(self.folder / name)], ""
        except OSError as error:
            # A file beside the models is no fault. One that has replaced the folder of a model is.
            is_file = isinstance(error, NotADirectoryError) and before == UNKNOWN
            return [], "" if is_file else f"{self.folder / name} cannot be read: {error.strerror}"

    def _scan_versions(
        self, name: str, wanted: Sequence[str], before: ModelState, fault: str
    ) -> tuple[dict[str, Model], list[Change]]:
        """Return the models to serve of the wanted versions, newest first, and the changes."""
        after: dict[str, Model] = {}
        changes: list[Change] = []
        rollout = self._rollouts.get(name)
        for version in reversed(wanted):
            if self._keep and len(after) >= self._keep and not (rollout and version == rollout.stable):
                continue
            model, change = before.loaded.get(version), None
            if not fault:
                model, change = self._scan_version(name, version, model)
            if model:
                after[version] = model
            if change:
                changes.append(change)
        return after, changes

    def _drop(self, name: str, dropped: Collection[str], wanted: Sequence[str]) -> list[Change]:
        """Forget the files of the versions that are dropped or no longer wanted. Return the changes."""
        # A version that cannot be read at the moment has no fingerprint.
        for key in {*self._fingerprints, *self._rejected}:
            if key[0] == name and key[1] not in wanted:
                self._fingerprints.pop(key, None)
                self._rejected.pop(key, None)
                self._again.pop(key, None)
        for version in dropped:
            self._fingerprints.pop((name, version), None)
            log.info("dropped model %s version %s", name, version)
        return [Change("dropped", name, version) for version in dropped]

    def _scan_version(self, name: str, version: str, loaded: Model | None) -> tuple[Model | None, Change | None]:
        """Return the model to serve for a version: the one on disk if it can be verified, otherwise ``loaded``."""
        key = (name, version)
        fingerprint = disk.fingerprint(self.folder / name / version)
        is_due = time.monotonic() > self._again.get(key, math.inf)
        if self._fingerprints.get(key) == fingerprint and not is_due:
            return loaded, None
        self._fingerprints[key] = fingerprint
        self._again.pop(key, None)
        try:
            model = load(self.folder, name, int(version), self._trust)
        except BundleError as error:
            if isinstance(error.__cause__, OSError):
                # The cause may go away although the files stay the same: an unreachable disk, or rights that a server
                # of files grants. After other errors, a version is tried again only when its files change.
                self._fingerprints.pop(key)
            elif _lacked_memory(error):
                self._again[key] = time.monotonic() + RETRY_SECONDS
            if self._rejected.get(key) == str(error):
                return loaded, None
            self._rejected[key] = str(error)
            log.error("rejected model %s version %s: %.2000s", name, version, error)
            return loaded, Change("rejected", name, version)
        self._rejected.pop(key, None)
        log.info("loaded model %s version %s", name, version)
        return model, Change("loaded", name, version)

    def _entry(self, name: str, version: str, fault: str, *, is_loaded: bool, is_unloaded: bool) -> Entry:
        reason = public(fault or self._rejected.get((name, version), ""), self.folder)
        if is_loaded:
            return Entry(name, version, "READY", reason)
        if is_unloaded:
            reason = "unloaded"
        newest_only = f"not loaded: the service loads the newest {self._keep} only; the operator can raise --versions"
        return Entry(name, version, "UNAVAILABLE", reason or newest_only)

    def _log_fault(self, name: str, fault: str) -> None:
        """Log that a folder cannot be read, or that it can be read again. Each is logged once, not at every scan."""
        before = self._faults.pop(name, "")
        if fault:
            self._faults[name] = fault
        if fault and fault != before:
            log.error("the loaded versions stay in service: %s", fault)
        elif before and not fault:
            log.info("this error has passed: %s", before)


def _lacked_memory(error: BundleError) -> bool:
    """Return whether there was too little memory: requests had taken it at that moment, or the bundle asks for more.

    onnxruntime only gives the name of the exception in C++.
    """
    return isinstance(error.__cause__, MemoryError) or "bad_alloc" in str(error)

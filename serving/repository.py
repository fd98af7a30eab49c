"""Models and their versions on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from serving import bundle
from serving.bundle import Bundle, BundleError
from serving.classifier import INPUTS, Classifier, outputs

# No leading zero: 01 and 1 would be one version in two folders.
VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Model:
    """A certified version, loaded and verified on this CPU."""

    bundle: Bundle
    classifier: Classifier

    @property
    def name(self) -> str:
        """Its name in the repository."""
        return self.bundle.manifest.name

    @property
    def version(self) -> str:
        """Its version, in the form the API gives it."""
        return str(self.bundle.manifest.version)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.bundle.manifest.labels


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
    classifier = Classifier(folder / bundle.ONNX)
    expected = (INPUTS, outputs(len(found.manifest.labels)))
    for actual in ((classifier.inputs, classifier.outputs), (found.manifest.inputs, found.manifest.outputs)):
        if actual != expected:
            raise BundleError(f"{folder} takes and gives {actual}; this service needs {expected}")
    classifier.verify(folder / bundle.GOLDEN, found.tolerance)
    return Model(found, classifier)

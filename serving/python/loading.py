"""Find the model that a path names, load it, and verify it on this CPU."""

from __future__ import annotations

import os
from pathlib import Path

from serving.errors import BundleError
from serving.models import bundle, disk, missing, repository
from serving.models.model import load_folder
from serving.models.trust import Trust
from serving.python.model import LoadedModel
from serving.settings import RELEASE, Settings


def load(path: str | os.PathLike[str] | None = None, version: int | None = None, trust: str = "") -> LoadedModel:
    """Load a published model and verify it on this CPU, as the service does.

    Args:
        path: a version such as ``models/letters/1``, a model such as ``models/letters``, or a repository that holds
            one model. Without it, the packaged model is loaded.
        version: a version of the model; by default the newest.
        trust: load only what one of these has signed, as ``mnist-serve --trust`` does. Needs the extra ``sign``.

    Raises:
        BundleError: there is no such model or version, or it cannot be verified.
    """
    signers = Trust.of(trust)
    folder = RELEASE / Settings.model if path is None else Path(path).expanduser().absolute()
    try:
        is_version = (folder / bundle.MANIFEST).exists()
        if not (is_version or disk.has_version(folder)):
            folder = _only_model(folder)
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error.strerror}") from error
    if is_version:
        if version is not None and folder.name != str(version):
            raise BundleError(f"{path} is one version of a model; leave version={version} out, or give {folder.parent}")
        return LoadedModel(load_folder(folder, trust=signers))
    return LoadedModel(repository.load(folder.parent, folder.name, version, signers))


def _only_model(folder: Path) -> Path:
    """Return the folder of the only model in a repository.

    Raises:
        BundleError: it holds none, or several.
        OSError: it cannot be read.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder} is no folder; name a published model, such as models/mnist")
    found = disk.published(folder)
    if len(found) > 1:
        raise BundleError(f"{folder} holds the models {', '.join(found)}; name one, for example {folder / found[0]}")
    if not found and (folder / missing.RECORD).exists():
        raise BundleError(f"{folder} is a run folder; publish it with export.publish or mnist-export first")
    if not found:
        raise BundleError(f"{folder} holds no published model; publish one with export.publish or mnist-export")
    return folder / found[0]

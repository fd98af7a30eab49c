"""Take a published version out of service. Its folder stays in the repository under a hidden name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from serving.errors import BundleError
from serving.models.disk import published
from serving.models.repository import load, versions

# Serving reads only folders whose names are numbers. Triton and KServe ignore this name too.
RETIRED = ".retired-"


def retire(repository: Path, name: str, version: int) -> tuple[Path, int]:
    """Hide a version, so that a running service drops it. Return its new folder, and the version that is served then.

    The service loads the other version before it drops this one, so no request is lost.

    Raises:
        BundleError: there is no such version, it is the only one, the newest of the others cannot be verified, one of
            this number was retired before, or the folder of the model is not writable.
    """
    known = versions(repository, name)
    if version not in known:
        choice = f"choose one of {', '.join(map(str, known))}" if known else "no version is published there"
        raise BundleError(f"{repository / name} has no version {version}: {choice}")
    left = [each for each in known if each != version]
    if not left:
        raise BundleError(f"version {version} is the only one of {repository / name}: publish another one first")
    load(repository, name, left[-1])
    target = repository / name / f"{RETIRED}{version}"
    # os.rename would replace a link.
    if os.path.lexists(target):
        raise BundleError(f"{target} exists already: remove it first, or give it another name")
    try:
        (repository / name / str(version)).rename(target)
    except OSError as error:
        raise BundleError(
            f"version {version} stays: {repository / name} cannot be changed: {error.strerror or error}; "
            "make this folder writable"
        ) from error
    return target, left[-1]


def newest(repository: Path, name: str) -> int:
    """Return the newest version.

    Raises:
        BundleError: there is none.
    """
    known = versions(repository, name)
    if not known:
        others = published(repository)
        way_out = f"it holds {', '.join(others)}; choose with --name" if others else "publish one with mnist-export"
        raise BundleError(f"{repository} holds no model {name!r}; {way_out}")
    return known[-1]


def next_version(repository: Path, name: str) -> int:
    """Return the number of the next version. No later version gets the number of a retired one."""
    retired = [
        int(match[1])
        for path in (repository / name).glob(f"{RETIRED}*")
        if (match := re.fullmatch(rf"{re.escape(RETIRED)}(\d+)", path.name))
    ]
    return max([*versions(repository, name), *retired], default=0) + 1

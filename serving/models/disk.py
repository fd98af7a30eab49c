"""What a repository folder holds: its models, their versions, and the fingerprints of their files."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

from serving.settings import NAME_PATTERN, Settings

# No leading zero: otherwise the folders 01 and 1 would be the same version.
VERSION = re.compile(r"[1-9][0-9]{0,17}")
MAX_VERSION = 10**18 - 1
NAME = re.compile(NAME_PATTERN)

# What makes a folder a version, and its largest size. The packaged one has 23 kB.
MANIFEST, MAX_MANIFEST_BYTES = "manifest.json", 1_000_000

# A bundle has at most eight files. Of a folder with more than this, the fingerprint leaves some out.
MAX_FILES = 1000

Fingerprint = tuple[tuple[str | int, ...], ...]
"""Inode, size and times of a folder and of each file in it. While they stay the same, no file is read again."""


def names(repository: Path) -> set[str]:
    """Return the entries of a repository that may be models: folders, links, and what else has such a name.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(repository) as entries:
        return {entry.name for entry in entries if NAME.fullmatch(entry.name)}


def versions(model: Path) -> list[int]:
    """Return the version numbers in the folder of a model in ascending order.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(model) as entries:
        return sorted(int(entry.name) for entry in entries if VERSION.fullmatch(entry.name))


def published(repository: Path) -> list[str]:
    """Return the names of the models that have a version on disk; nothing if the folder cannot be read."""
    try:
        return sorted(name for name in names(repository) if has_version(repository / name))
    except OSError:
        return []


def default_model(repository: Path) -> str:
    """Return the name of the model that is used if nobody names one: the only one of the repository, or ``mnist``."""
    found = published(repository)
    return found[0] if len(found) == 1 else Settings.model


def has_version(model: Path) -> bool:
    """Return whether the folder of a model can be read and has a version."""
    try:
        return bool(versions(model))
    except OSError:
        return False


def fingerprint(folder: Path) -> Fingerprint:
    """Return the fingerprint of a folder, which may be unreadable or missing."""
    try:
        with os.scandir(folder) as entries:
            files = sorted(entry.name for entry in islice(entries, MAX_FILES))
    except OSError as error:
        return (_identity(folder), (str(error.errno),))
    return (_identity(folder), *(_identity(folder / file) for file in files))


def _identity(path: Path) -> tuple[str | int, ...]:
    """Return values of which at least one changes when a file or a folder gets other content.

    Size and time of modification are not enough. A link may be changed to point to another file with the same size and
    time; then the inode differs. A program may set the time of modification back; then the time of the last change of
    the inode differs.
    """
    try:
        status = path.stat()
    except OSError as error:
        return path.name, str(error.errno)
    return path.name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

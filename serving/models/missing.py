"""Say why a model is missing or cannot be read, and which ones there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from serving.models import disk
from serving.models.bundle import MANIFEST
from serving.settings import RELEASE

# The file that a run folder has. Training names it, and nothing of the service imports training.
RECORD = "run.json"
# How many models or versions a message names.
SHOWN = 10


def choose_one_of(names: Sequence[str]) -> str:
    """Return the end of a message that names what the client may choose; empty if there is nothing."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"; choose one of {', '.join(names[:SHOWN])}{more}" if names else ""


def why_unreadable(repository: Path, name: str, error: OSError) -> str:
    """Return why the folder of a model could not be listed, and what to do."""
    folder = repository / name
    is_missing = isinstance(error, FileNotFoundError) and not os.path.lexists(folder)
    if is_missing or os.path.isfile(repository):  # noqa: PTH113 (Path.is_file may raise an error)
        return why_missing(repository, name)
    return f"{folder} cannot be read: {error.strerror}; name a repository that this user can read"


def why_missing(repository: Path, name: str) -> str:
    """Return why a repository does not hold a model of this name, and what to do."""
    if os.path.isfile(repository):  # noqa: PTH113 (Path.is_file may raise an error)
        return f"{repository} is a file; name the folder that holds <name>/<version>/"
    if not os.path.lexists(repository):
        return f"{repository} does not exist; publish a model there with mnist-export RUN --repository {repository}"
    folder = repository if repository.name not in ("", "..") else repository.resolve()
    way_out = "not a repository; use --repository {0.parent} --model {0.name}"
    if os.path.lexists(folder / MANIFEST):
        return f"{repository} is one version of a model and {way_out.format(folder.parent)}"
    if disk.has_version(folder):
        return f"{repository} is a model and {way_out.format(folder)}"
    if os.path.lexists(folder / RECORD):
        return f"{repository} is a run and not a repository; use mnist-export {repository} --repository models first"
    others = ", ".join(disk.published(repository)[:SHOWN])
    if repository == RELEASE:
        return f"the packaged repository holds no model {name!r}, only {others}; name yours with --repository"
    way_out = f"it holds {others}; choose with --model" if others else "publish one with mnist-export"
    return f"{repository} holds no model {name!r}; {way_out}"

"""What a scan of the repository found: the entries of its index, with reasons that clients may read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from serving.errors import shortened
from serving.models.model import Model

ABSOLUTE_PATH = re.compile(r"""(?<![\w.])/[^\s'":;,()]+""")
MAX_REASON = 500


@dataclass(frozen=True)
class Entry:
    """One version in the index of the repository."""

    name: str
    version: str
    """Empty if no version is known, because the folder of the model cannot be read."""
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""
    """Why the version is unavailable, or why its files on disk were rejected or cannot be read."""


class ModelState(NamedTuple):
    """What the last scan found of one model."""

    loaded: Mapping[str, Model]
    """By version, newest first."""
    entries: tuple[Entry, ...]
    """Every version, in ascending order."""
    stable: Model | None = None
    """The version that responds to requests that name no version."""
    candidate: Model | None = None
    """The version that is compared with it."""


UNKNOWN = ModelState({}, ())


def public(reason: str, repository: Path) -> str:
    """Return a reason that clients may read: its paths are relative to the repository. The log has the full paths."""
    place = str(repository)
    if repository.is_absolute() and place != os.sep:
        reason = reason.replace(f"{place}{os.sep}", "").replace(place, "the repository")
    elif reason.startswith(f"{place} "):
        reason = "the repository" + reason.removeprefix(place)
    reason = ABSOLUTE_PATH.sub("...", reason.removeprefix(f"{place}{os.sep}"))
    return shortened(reason, MAX_REASON)

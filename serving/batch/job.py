"""What every process of a run needs to know: the model, the form of the rows, and standard input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from serving import files
from serving.batch.rows import Form
from serving.models import disk


@dataclass(frozen=True)
class Job:
    """The same work for any pictures. It can be sent to another process."""

    repository: Path
    model: str
    version: int
    form: Form
    folder: str
    """The folder that the names of pictures start from: another machine works in another folder."""
    stdin: bytes | None = None
    """The content of standard input, if it is a picture."""


class _Classes(msgspec.Struct):
    """The part of a manifest that the head of a table needs."""

    labels: tuple[str, ...] = ()


def labels_of(repository: Path, model: str, version: int) -> tuple[str, ...]:
    """Return the classes of a version, or nothing if its manifest cannot be read: loading it says why."""
    try:
        content = files.read(repository / model / str(version) / disk.MANIFEST, disk.MAX_MANIFEST_BYTES)
        return msgspec.json.decode(content, type=_Classes).labels
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return ()


def newest_version(repository: Path, model: str) -> int:
    """Return the newest version of a model, so that all processes use the same one.

    Raises:
        BundleError: there is none.
    """
    try:
        return disk.versions(repository / model)[-1]
    except (OSError, IndexError):
        from serving.models.repository import load

        # This says why there is none.
        return int(load(repository, model).version)

"""The versions that were published earlier, and how the errors of a new version compare with those of the last one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from export.records import Count, ReplayRecord
from serving.errors import BundleError
from serving.models import bundle
from serving.models.bundle import Bundle, Manifest
from serving.models.repository import versions


class _Dataset(msgspec.Struct):
    name: str
    replay: ReplayRecord | None = None


class _Test(msgspec.Struct):
    images: Count
    errors: Count


class Tested(NamedTuple):
    """On what a version was tested. With ``--replay``, this is the test set of the replay data set."""

    name: str
    images: int
    errors: int


def newest_first(repository: Path, name: str) -> Iterator[Bundle]:
    """Yield the versions that match their manifests."""
    for version in reversed(versions(repository, name)):
        try:
            yield bundle.read(repository / name / str(version))
        except BundleError:
            continue


def replayed(dataset: dict[str, Any]) -> ReplayRecord | None:
    """Return what a record says about the replay data set; None if there is none."""
    return msgspec.convert(dataset["replay"], ReplayRecord) if dataset.get("replay") else None


def tested(manifest: Manifest) -> Tested | None:
    """Return on what a version was tested; None if its manifest does not say."""
    try:
        dataset = msgspec.convert(manifest.training["dataset"], _Dataset)
        test = dataset.replay or msgspec.convert(manifest.result["test"], _Test)
    except (KeyError, msgspec.ValidationError):
        return None
    return Tested(dataset.replay.name if dataset.replay else dataset.name, test.images, test.errors)


def compared(new: Bundle, repository: Path) -> str:
    """Return a line with the errors of a new version and of the version before it.

    It is empty if there is no version before, or if the two were not tested on as many images of the same data set.
    """
    name, now = new.manifest.name, tested(new.manifest)
    last = next((each for each in newest_first(repository, name) if each.manifest.version < new.manifest.version), None)
    before = tested(last.manifest) if last else None
    if last is None or before is None or now is None or before[:2] != now[:2]:
        return ""
    many = "as many" if now.errors == before.errors else f"{now.errors:,}"
    errors = "1 error" if before.errors == 1 else f"{before.errors:,} errors"
    line = f"version {last.manifest.version} had {errors} in {now.images:,} test images, this one has {many}"
    if now.errors <= before.errors:
        return line
    command = ["mnist-export", "--rollback", "--repository", str(repository)]
    return f"{line}; take it back with {shlex.join(command if name == 'mnist' else [*command, '--name', name])}"

"""Copies of the packaged bundle to publish, change and damage."""

from __future__ import annotations

import json
import shutil

from serving.models import bundle
from serving.settings import RELEASE

PACKAGED = RELEASE / "mnist" / "1"


def change_manifest(folder, **members):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest | members))


def publish(models, version, name="mnist", **members):
    """Publish the packaged bundle as another version, by a rename as mnist-export does. Return its folder."""
    staging = shutil.copytree(PACKAGED, models / f".export-{version}")
    change_manifest(staging, name=name, version=version, **members)
    (models / name).mkdir(exist_ok=True)
    return staging.rename(models / name / str(version))

"""Load a model bundle whose manifest or whose golden digits may be anything."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import tempfile
import weakref
from pathlib import Path
from unittest import mock

from serving.errors import BundleError
from serving.models import bundle, model
from serving.models.classifier import Classifier
from serving.settings import RELEASE
from tests.fuzz.application import QUICK, within

PACKAGED = RELEASE / "mnist" / "1"


@functools.cache
def classifier() -> Classifier:
    """Return the session of the packaged model. To make one for each input would take most of the time."""
    return Classifier(PACKAGED / bundle.ONNX)


@functools.cache
def folder() -> Path:
    """Return a folder with the packaged bundle, without its largest file."""
    path = Path(tempfile.mkdtemp(prefix="mnist-fuzz-"))
    weakref.finalize(folder, shutil.rmtree, path, ignore_errors=True)
    shutil.copy(PACKAGED / bundle.ONNX, path)
    shutil.copy(PACKAGED / bundle.GOLDEN, path)
    return path


def manifest() -> dict:
    content = json.loads((PACKAGED / bundle.MANIFEST).read_text())
    content["files"] = {name: content["files"][name] for name in (bundle.ONNX, bundle.GOLDEN)}
    return content


def load(**files: bytes) -> None:
    """Write the files into the bundle and load it. It loads, or it is rejected with a BundleError."""
    for name, content in files.items():
        (folder() / name).write_bytes(content)
    session = mock.patch.object(model, "Classifier", return_value=classifier())
    with within(QUICK), session, contextlib.suppress(BundleError):
        model.load_folder(folder())


def load_manifest(content: bytes) -> None:
    load(**{bundle.MANIFEST: content, bundle.GOLDEN: (PACKAGED / bundle.GOLDEN).read_bytes()})


def load_golden(content: bytes) -> None:
    """Load a bundle whose manifest has the right digest of its golden digits."""
    changed = manifest()
    changed["files"][bundle.GOLDEN] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    load(**{bundle.MANIFEST: json.dumps(changed).encode(), bundle.GOLDEN: content})

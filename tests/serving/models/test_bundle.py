"""Bundles and repositories on disk, as serving reads them."""

from __future__ import annotations

import json
import shutil

import pytest

from serving.errors import BundleError
from serving.models import bundle, repository


@pytest.fixture
def models(tmp_path):
    """A copy of the packaged repository."""
    return shutil.copytree(bundle.RELEASE, tmp_path / "models")


@pytest.fixture
def folder(models):
    return models / "mnist" / "1"


def change(folder, **members):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest | members))


def test_whole_bundle_loads(models):
    model = repository.load(models, "mnist")
    assert (model.name, model.version) == ("mnist", "1")
    assert model.labels == tuple("0123456789")


@pytest.mark.parametrize("name", [bundle.MANIFEST, bundle.ONNX, bundle.GOLDEN, bundle.TORCHSCRIPT])
def test_missing_file_is_named(models, folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        repository.load(models, "mnist")


def test_truncated_file_is_named(models, folder):
    content = (folder / bundle.ONNX).read_bytes()
    (folder / bundle.ONNX).write_bytes(content[:-1])
    said = rf"model\.onnx has {len(content) - 1} bytes, its manifest says {len(content)}"
    with pytest.raises(BundleError, match=said):
        repository.load(models, "mnist")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"format": 99}, "format 99"),
        ({"files": {}}, "certifies no"),
        ({"files": {"../../x": {"sha256": "", "bytes": 0}, "model.onnx": {"sha256": "", "bytes": 0}}}, "certifies no"),
        ({"labels": 3}, "cannot be read"),
        ({"labels": ["a", "b"]}, "this service needs"),
        ({"name": "other"}, "was it renamed"),
        ({"version": 2}, "was it renamed"),
    ],
)
def test_wrong_manifest_is_refused(models, folder, members, reason):
    change(folder, **members)
    with pytest.raises(BundleError, match=reason):
        repository.load(models, "mnist")


def test_manifest_cannot_name_files_elsewhere(models, folder):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    change(folder, files=manifest["files"] | {"../1/model.onnx": manifest["files"]["model.onnx"]})
    with pytest.raises(BundleError, match="outside its folder"):
        repository.load(models, "mnist")


def test_versions_are_integers_in_order(models):
    for name in ("10", "9", "02", "x", ".export-1", "0"):
        (models / "mnist" / name).mkdir()
    assert repository.versions(models, "mnist") == [1, 9, 10]
    assert repository.versions(models, "letters") == []


def test_version_that_is_not_there_is_said(models):
    with pytest.raises(BundleError, match="has no version 7: choose from 1"):
        repository.load(models, "mnist", 7)


def test_rubbish_instead_of_onnx_is_refused(folder, models):
    (folder / bundle.ONNX).write_bytes(b"rubbish")
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    described = bundle.describe(folder / bundle.ONNX)
    file = {"sha256": described.sha256, "bytes": described.bytes}
    change(folder, files=manifest["files"] | {bundle.ONNX: file})
    with pytest.raises(BundleError, match="cannot be loaded"):
        repository.load(models, "mnist")

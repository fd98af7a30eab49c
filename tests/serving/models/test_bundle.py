"""A bundle loads only if its files match its manifest and it computes what the manifest certifies."""

from __future__ import annotations

import numpy as np
import pytest

from serving.errors import BundleError
from serving.models import bundle, repository
from serving.models.results import accuracy_text
from tests.serving.models.bundles import certify, change_manifest, manifest_files, reference


@pytest.fixture
def folder(models):
    return models / "mnist" / "1"


def test_intact_bundle_loads(models):
    model = repository.load(models, "mnist")
    assert (model.name, model.version) == ("mnist", "1")
    assert model.labels == tuple("0123456789")


@pytest.mark.parametrize("name", [bundle.MANIFEST, bundle.ONNX, bundle.GOLDEN, bundle.TORCHSCRIPT])
def test_error_names_a_missing_file(models, folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        repository.load(models, "mnist")


def test_error_names_a_truncated_file(models, folder):
    content = (folder / bundle.ONNX).read_bytes()
    (folder / bundle.ONNX).write_bytes(content[:-1])
    message = rf"model\.onnx has {len(content) - 1} bytes, but its manifest says {len(content)}"
    with pytest.raises(BundleError, match=message):
        repository.load(models, "mnist")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"format": 99}, "has format 99"),
        ({"files": {}}, "does not list model.onnx"),
        (
            {"files": {"../../x": {"sha256": "", "bytes": 0}, "model.onnx": {"sha256": "", "bytes": 0}}},
            "does not list model.onnx",
        ),
        ({"serve": bundle.INT8}, r"names model\.int8\.onnx as the file to serve"),
        ({"labels": 3}, "is not a valid manifest"),
        ({"novelty": None}, "is not a valid manifest"),
        ({"confidence": {"threshold": 1.5, "false_rejections": {}}}, "is not a valid manifest"),
        ({"reference": reference(labels=[2] * 9)}, "Expected 10 numbers, got 9"),
        ({"reference": reference(labels=[1] * 10)}, "Expected 10 images, got 20"),
        ({"reference": reference(labels=[-1] * 10)}, "is not a valid manifest"),
        ({"reference": reference(ink={"edges": [0.2, 0.1], "images": [20, 0, 0]})}, "ascending order"),
        ({"reference": reference(ink={"edges": [0.2], "images": [20]})}, "one bin more than edges"),
        ({"reference": reference(ink={"edges": [*range(101)], "images": [20, *[0] * 101]})}, "at most 100 edges"),
        ({"reference": reference(reasons={"accepted": 19, "ugly": 1})}, "got 'ugly'"),
        ({"reference": reference(reasons={"accepted": 19})}, "Expected 20 images, got 19"),
        ({"labels": ["a", "b"], "reference": None}, "this service needs"),
        ({"name": "other"}, "was it renamed"),
        ({"version": 2}, "was it renamed"),
    ],
)
def test_wrong_manifest_is_rejected(models, folder, members, message):
    change_manifest(folder, **members)
    with pytest.raises(BundleError, match=message):
        repository.load(models, "mnist")


def test_manifest_cannot_name_files_outside_its_folder(models, folder):
    files = manifest_files(folder)
    change_manifest(folder, files=files | {"../1/model.onnx": files["model.onnx"]})
    with pytest.raises(BundleError, match="outside its folder"):
        repository.load(models, "mnist")


def test_file_that_is_not_onnx_is_rejected(models, folder):
    (folder / bundle.ONNX).write_bytes(b"rubbish")
    certify(folder, bundle.ONNX)
    with pytest.raises(BundleError, match="cannot be loaded"):
        repository.load(models, "mnist")


@pytest.mark.parametrize("wrong", [0.1, np.nan])
def test_bundle_that_does_not_reproduce_its_golden_logits_is_rejected(models, folder, wrong):
    with np.load(folder / bundle.GOLDEN) as file:
        arrays = dict(file)
    arrays["logits"][0, 0] += wrong
    np.savez(folder / bundle.GOLDEN, **arrays)
    certify(folder, bundle.GOLDEN)
    with pytest.raises(BundleError, match="does not reproduce its golden logits on this CPU"):
        repository.load(models, "mnist")


def test_versions_are_positive_integers_in_ascending_order(models):
    for name in ("10", "9", "02", "x", ".export-1", "0"):
        (models / "mnist" / name).mkdir()
    assert repository.versions(models, "mnist") == [1, 9, 10]
    assert repository.versions(models, "letters") == []


def test_error_for_an_unknown_version_names_the_known_ones(models):
    with pytest.raises(BundleError, match="has no version 7; choose one of 1"):
        repository.load(models, "mnist", 7)


@pytest.mark.parametrize(
    ("test", "text"),
    [
        ({"images": 15, "correct": 15, "accuracy": 1.0}, "15 of 15"),
        ({"images": 1000, "correct": 990, "accuracy": 0.99}, "99.00%"),
        ({"accuracy": 0.99}, "99.00%"),
        ({"images": "15", "correct": 15, "accuracy": 1}, "100.00%"),
    ],
)
def test_accuracy_on_few_images_is_a_count(test, text):
    assert accuracy_text(test) == text

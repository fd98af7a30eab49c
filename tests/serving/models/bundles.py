"""Copies of the packaged bundle to publish, change and damage."""

from __future__ import annotations

import json
import shutil

import numpy as np

from serving.models import bundle
from serving.models.classifier import Classifier
from serving.models.repository import Repository
from serving.settings import RELEASE

PACKAGED = RELEASE / "mnist" / "1"


def change_manifest(folder, **members):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest | members))


def reference(**members):
    """Return a reference with 20 images for a model with ten classes."""
    histogram = {"edges": [0.1], "images": [5, 15]}
    histograms = dict.fromkeys(("confidence", "novelty", "ink"), histogram)
    return {"labels": [2] * 10, **histograms, "reasons": {"accepted": 20}, **members}


def manifest_files(folder):
    return json.loads((folder / bundle.MANIFEST).read_text())["files"]


def certify(folder, name):
    """Write the digest of a changed file into the manifest."""
    described = bundle.file_of(folder / name)
    file = {"sha256": described.sha256, "bytes": described.bytes}
    change_manifest(folder, files=manifest_files(folder) | {name: file})


def replace(folder, name, content):
    """Replace a file of a bundle, and certify the new content."""
    (folder / name).write_bytes(content)
    certify(folder, name)


def change_golden(folder, **arrays):
    """Replace arrays of the golden images, or take out those that are None, and certify the new file."""
    with np.load(folder / bundle.GOLDEN) as file:
        found = dict(file) | arrays
    np.savez(folder / bundle.GOLDEN, **{name: array for name, array in found.items() if array is not None})
    certify(folder, bundle.GOLDEN)


def favour(label, logit):
    """Return a function that changes a bundle so that it prefers one label. The new model is certified too."""

    def change(folder):
        import onnx
        from onnx import helper, numpy_helper

        model = onnx.load(folder / bundle.ONNX)
        names = {"logits": "before", "probabilities": "unused"}
        for node in model.graph.node:
            for part in node.input, node.output:
                part[:] = [names.get(name, name) for name in part]
        bias = np.zeros(10, np.float32)
        bias[label] = logit
        model.graph.initializer.append(numpy_helper.from_array(bias, "bias"))
        model.graph.node.append(helper.make_node("Add", ["before", "bias"], ["logits"]))
        model.graph.node.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        replace(folder, bundle.ONNX, model.SerializeToString())
        with np.load(folder / bundle.GOLDEN) as file:
            images = file["images"]
        change_golden(folder, logits=Classifier(folder / bundle.ONNX).classify(images).logits)
        change_manifest(folder, serve=bundle.ONNX)

    return change


def publish(models, version, name="mnist", damage=None, **members):
    """Publish the packaged bundle as another version, by a rename as mnist-export does. Return its folder.

    ``damage`` is a function that changes the folder before it is published.
    """
    staging = shutil.copytree(PACKAGED, models / f".export-{version}")
    change_manifest(staging, name=name, version=version, **members)
    if damage:
        damage(staging)
    (models / name).mkdir(exist_ok=True)
    return staging.rename(models / name / str(version))


def repository_of(models):
    """Return a repository that keeps two versions. A test scans it."""
    return Repository(models, 2)

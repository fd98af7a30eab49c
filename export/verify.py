"""Verify a published bundle again, with the test set."""

from __future__ import annotations

from pathlib import Path

from export.equivalence import Classify, count_correct, torch_classify
from export.torchscript import load_torchscript
from serving.errors import BundleError
from serving.models import bundle
from serving.models.bundle import Bundle
from serving.models.classifier import Classifier
from serving.models.model import load_folder
from training.data.digits import load


def verify_bundle(folder: Path, data: Path | None = None) -> Bundle:
    """Check a published bundle: digests, tensors, golden images and the certified test result. Return the bundle.

    Args:
        folder: the folder of one version.
        data: folder with the data set; see :func:`training.data.sources.fetch`.

    Raises:
        BundleError: a check failed.
        DataError: the test images could not be found.
    """
    model = load_folder(folder)
    manifest = model.bundle.manifest
    test = load(manifest.training["dataset"]["name"], folder=data).test
    formats: dict[str, Classify] = {"onnx": Classifier(folder / bundle.ONNX).classify}
    if bundle.INT8 in manifest.files:
        formats["int8"] = Classifier(folder / bundle.INT8).classify
    if bundle.TORCHSCRIPT in manifest.files:
        formats["torchscript"] = torch_classify(load_torchscript(folder / bundle.TORCHSCRIPT))
    for name, classify in formats.items():
        correct = count_correct(classify, test.images.numpy(), test.labels.numpy())
        certified = manifest.correct.get(bundle.INT8) if name == "int8" else manifest.result["test"]["correct"]
        if correct != certified:
            raise BundleError(
                f"{folder}: the {name} file classifies {correct} test images correctly, its manifest says {certified}"
            )
    return model.bundle

"""Convert a run to every format, and compare each file with the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

from export.cascade import Cascade
from export.equivalence import Reference, check_int8, check_onnx, check_torchscript, count_correct
from export.graph import ServingGraph
from export.measure import DrawnSet, draw_sets
from export.onnx_process import OnnxProcess
from export.timing import microseconds_per_image
from export.torchscript import export_torchscript
from serving.contract import ModelOutput, Preparation
from serving.models import bundle
from serving.models.bundle import Equivalence
from serving.models.classifier import Classifier
from training.data.digits import Splits
from training.loop.progress import Progress


class Formats(NamedTuple):
    """The files of a network. Each was found equivalent to it."""

    files: list[str]
    equivalence: dict[str, Equivalence]
    """By format, as in the manifest."""
    expected: ModelOutput
    """What the network gives for the test images."""
    of_onnx: ModelOutput
    """What the ONNX file gives for them."""
    drawn: list[DrawnSet]
    """Other sets of images, which were drawn while the other process wrote the ONNX file."""
    speed: dict[str, Any]
    """What the manifest holds of the faster one of two ONNX files; empty if there is one."""


def convert(
    folder: Path,
    graph: ServingGraph | Cascade,
    labels: tuple[str, ...],
    splits: Splits,
    *,
    int8: bool,
    opset: int,
    progress: Progress,
    beside: OnnxProcess | None,
) -> Formats:
    """Write ``graph`` into ``folder`` in every format, and compare each file with it on the whole test set.

    The other arguments are those of :func:`export.publishing.publish`.

    Raises:
        EquivalenceError: a file is not equivalent.
    """
    arguments = (graph, folder / bundle.ONNX, labels, opset)
    if beside:
        beside.begin(*arguments)
    with progress.waiting("writing TorchScript"):
        export_torchscript(graph, folder / bundle.TORCHSCRIPT)
    report = progress.stage("running the network on the test images")
    reference = Reference(graph, splits.test.images.numpy(), report)
    report = progress.stage("comparing the TorchScript file with the network")
    torchscript = check_torchscript(folder / bundle.TORCHSCRIPT, reference, labels, report)
    with progress.waiting("drawing test images in other ways"):
        drawn = draw_sets(splits, cast(Preparation, splits.prepare))
    with progress.waiting("writing ONNX"):
        if not (beside and beside.finish()):
            # The other process has imported this already, and the import takes a second.
            from export.onnx import export_onnx

            export_onnx(*arguments)
    report = progress.stage("comparing the ONNX file with the network")
    onnx = check_onnx(folder / bundle.ONNX, reference, labels, report)
    files = [bundle.ONNX, bundle.TORCHSCRIPT]
    speed: dict[str, Any] = {}
    equivalence = {"onnx": onnx.found, "torchscript": torchscript}
    if int8:
        files.insert(1, bundle.INT8)
        equivalence["int8"], speed = _quantized(folder, splits, reference, labels, progress)
    progress.clear()
    return Formats(files, equivalence, reference.of_images(reference.outputs), onnx.output, drawn, speed)


def _quantized(
    folder: Path, splits: Splits, reference: Reference, labels: tuple[str, ...], progress: Progress
) -> tuple[Equivalence, dict[str, Any]]:
    """Write the int8 file. Return how it compares with the network, and what the manifest holds of the faster file."""
    # The import takes half a second, which other exports need not wait for.
    from export.quantize import export_int8

    images, truth = splits.test.images.numpy(), splits.test.labels.numpy()
    with progress.waiting("quantizing to int8"):
        export_int8(folder / bundle.ONNX, folder / bundle.INT8, splits.train.images.numpy())
    report = progress.stage("comparing the int8 file with the network")
    equivalence = check_int8(folder / bundle.INT8, reference, truth, labels, report)
    with progress.waiting("measuring the speed of both ONNX files"):
        classifiers = {file: Classifier(folder / file) for file in (bundle.ONNX, bundle.INT8)}
        microseconds = {file: microseconds_per_image(each, images) for file, each in classifiers.items()}
        correct = {file: count_correct(each.classify(images), truth) for file, each in classifiers.items()}
    serve = min(microseconds, key=microseconds.__getitem__)
    return equivalence, {"microseconds": microseconds, "correct": correct, "serve": serve}

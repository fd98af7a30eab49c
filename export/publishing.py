"""Build a bundle from a finished run, verify it, and publish it as the next version."""

from __future__ import annotations

import errno
import importlib.metadata
import io
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import torch

from export import describe, metadata, triton
from export import opset as opsets
from export.cascade import Cascade
from export.equivalence import (
    Reference,
    check_errors,
    check_int8,
    check_onnx,
    check_torchscript,
    count_correct,
    torch_classify,
)
from export.fit_cascade import fit_cascade
from export.gate import Gate, check_classes, check_new
from export.history import next_version
from export.measure import draw_sets
from export.onnx_process import OnnxProcess
from export.provenance import provenance
from export.run import ExportError, Run
from export.staging import staging_folder
from export.timing import microseconds_per_image
from export.torchscript import export_torchscript
from serving.contract import ModelOutput, Preparation, Several
from serving.models import bundle, disk
from serving.models.bundle import Bundle, ConfidenceThreshold, Equivalence, FirstNetwork, Manifest, RejectionThreshold
from serving.models.classifier import INPUTS, Classifier, outputs
from serving.models.model import load_folder
from serving.settings import NAME_RULE
from training import checkpoint
from training.data.digits import Splits
from training.evaluate import Evaluation
from training.loop.progress import Progress
from training.networks import parameter_count
from training.trust.calibrate import Calibration

# Golden images of each class, and of all classes together. The service runs them whenever it loads the bundle.
GOLDEN_IMAGES_PER_CLASS, MOST_GOLDEN_IMAGES = 4, 400


def publish(
    run: Run,
    repository: Path,
    name: str | None = None,
    data: Path | None = None,
    *,
    int8: bool = False,
    opset: int = opsets.DEFAULT,
    gate: Gate = Gate(),  # noqa: B008 (it is immutable)
    sign: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
    beside: OnnxProcess | None = None,
) -> Bundle:
    """Export ``run``, verify every format on the whole test set, and publish the bundle as the next version.

    Args:
        run: a finished run, or one :meth:`export.run.Run.after` another.
        repository: the model repository; the folder is made if it is missing.
        name: name of the model; the default is the name of the data set.
        data: folder with the data set; see :func:`training.data.sources.fetch`.
        int8: also add a quantized ONNX file; the manifest then names the faster file as the one to serve.
        opset: the opset of the ONNX files; see :func:`export.onnx.export_onnx`.
        gate: the accuracy that the run must have.
        sign: signs a folder, such as an :class:`export.sign.Signer`.
        progress: shows each step that takes seconds.
        beside: the process that writes the ONNX file, if the caller has started one.

    Raises:
        GateError: the run is not accurate enough.
        AlreadyPublishedError: the newest version was made from the same run.
        ExportError: the name is not a valid model name, the newest version has classes that the run lacks, the opset is
            not a known one, a cascade should be quantized, there is no higher version number, or nothing can be signed.
        EquivalenceError: a format is not equivalent. No file and no new folder is left.
        BundleError: the service could not load the finished bundle.
        DataError: the test images could not be found.
        OSError: a file could not be written.
    """
    name = name or run.record["dataset"]["name"]
    if not disk.NAME.fullmatch(name):
        raise ExportError(f"{name!r} is not a valid model name: it {NAME_RULE}; choose one with --name")
    if type(opset) is not int or not opsets.LOWEST <= opset <= opsets.HIGHEST:
        raise ExportError(f"opset {opset!r}: must be a whole number from {opsets.LOWEST} to {opsets.HIGHEST}")
    if int8 and run.first:
        raise ExportError("--int8 cannot quantize a cascade of two networks; leave out --int8 or --first")
    check_classes(run, repository, name)
    progress = progress or Progress(None)
    splits = None
    if not run.first:
        gate.check(run, repository, name)
    else:
        with progress.waiting("fitting the cascade"):
            splits = run.splits(data)
            run = fit_cascade(run, splits)
    check_new(run, repository, name, int8=int8, versions=_versions(run, opset))
    splits = splits or run.splits(data)
    models = repository / name
    # The process ends before the folder is removed, so that it cannot write there any longer.
    with staging_folder(models) as staging, beside or nullcontext():
        manifest = _build(staging, run, splits, name, int8, progress, opset, beside)
        if run.first:
            # Only now is it known how accurate the two networks are together.
            gate.check_result(run.folder, manifest.result, manifest.training["dataset"], repository, name)
        while True:
            version = next_version(repository, name)
            if version > disk.MAX_VERSION:
                raise ExportError(f"{models} has version {version - 1}, the highest that is possible; remove it")
            # Another export of the same run may have been faster.
            check_new(run, repository, name, int8=int8, versions=manifest.versions)
            manifest = metadata.write(staging, msgspec.structs.replace(manifest, version=version))
            manifest = describe.write(staging, manifest)
            if sign:
                sign(staging)
            # Load and run the bundle as the service will, before anybody can see it.
            load_folder(staging)
            config, path = triton.configuration(name, manifest.inputs, manifest.outputs), models / triton.CONFIG
            # A user may have changed the file, for example the number of instances.
            if not path.exists() or triton.is_ours(path.read_text(errors="replace"), config):
                checkpoint.write_atomically(path, config.encode())
            try:
                # A rename never replaces a folder that has files in it. When two exports run at the same time,
                # the slower one fails here and tries the next number.
                staging.rename(models / str(version))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                continue
            return bundle.read(models / str(version))


def _build(
    folder: Path,
    run: Run,
    splits: Splits,
    name: str,
    int8: bool,
    progress: Progress,
    opset: int,
    beside: OnnxProcess | None,
) -> Manifest:
    """Convert and verify every format in ``folder``. Return the manifest; publish() sets its version."""
    images, truth = splits.test.images.numpy(), splits.test.labels.numpy()
    graph = run.graph()
    labels = tuple(run.record["dataset"]["labels"])
    arguments = (graph, folder / bundle.ONNX, labels, opset)
    if beside:
        beside.begin(*arguments)
    with progress.waiting("writing TorchScript"):
        export_torchscript(graph, folder / bundle.TORCHSCRIPT)
    reference = Reference(graph, images, progress.stage("running the network on the test images"))
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
    compared = check_onnx(folder / bundle.ONNX, reference, labels, report)
    equivalence = {"onnx": compared.found, "torchscript": torchscript}
    files = [bundle.ONNX, bundle.TORCHSCRIPT, bundle.GOLDEN]
    speed: dict[str, Any] = {}
    if int8:
        files.insert(1, bundle.INT8)
        equivalence["int8"], speed = _quantized(folder, splits, reference, labels, progress)
    progress.clear()
    expected = reference.of_images(reference.outputs)
    # The shares of rejected validation images come from the calibration of the run, with two exceptions. Of a cascade,
    # the run knows no results. And the user's own data may be few images: one on a threshold changes the share.
    of_validation = (
        torch_classify(graph)(splits.validation.images.numpy())
        if (splits.is_own or run.first) and len(splits.validation)
        else None
    )
    novelty, confidence = thresholds(run.calibration, expected, of_validation)
    # Losses and confidences with the calibration temperature applied, because the graph applies it too.
    result, first = run.record["calibration"]["result"], None
    if isinstance(graph, Cascade):
        alone = result["test"]["correct"]
        result = _results(splits, expected, of_validation)
        check_errors("the cascade", result["test"]["correct"], alone, len(splits.test))
        first = _first(run, graph, splits)
    _write_golden(folder / bundle.GOLDEN, images, truth, expected.logits)
    training = _training(run.record)
    if first and splits.replay:
        # The run counted the errors of its network alone.
        said, count = training["dataset"], splits.replay.test_images
        errors = int((expected.logits[:count].argmax(axis=1) != truth[:count]).sum())
        training["dataset"] = said | {"replay": said["replay"] | {"errors": errors}}
    manifest = Manifest(
        format=bundle.FORMAT,
        name=name,
        version=1,
        labels=labels,
        inputs=INPUTS,
        outputs=outputs(len(labels)),
        parameters=parameter_count(run.network) + (first.parameters if first else 0),
        training=training,
        result=result,
        equivalence=equivalence,
        files={file: bundle.file_of(folder / file) for file in files},
        versions=_versions(run, opset),
        novelty=novelty,
        confidence=confidence,
        temperature=run.calibration.temperature,
        prepare=cast(Preparation, splits.prepare),
        several=cast(Several, splits.several),
        first=first,
        provenance=provenance(run.record, run.first.record if run.first else None),
        **speed,
    )
    with progress.waiting("measuring the bundle"):
        # The file was compared on the test images already. It is what is served, unless it has an int8 version.
        output = compared.output if manifest.serve == bundle.ONNX else None
        return describe.describe(folder, manifest, splits, output, drawn)


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


def _write_golden(path: Path, images: Any, truth: Any, logits: Any) -> None:
    golden = golden_images(truth, logits.shape[1])
    buffer = io.BytesIO()
    np.savez(buffer, images=images[golden], logits=logits[golden], labels=truth[golden])
    checkpoint.write_atomically(path, buffer.getvalue())


def _results(splits: Splits, test: ModelOutput, validation: ModelOutput | None) -> dict[str, Any]:
    """Return the results of a cascade, as ``run.json`` has them of a network."""
    parts = {"test": (test, splits.test)} | ({"validation": (validation, splits.validation)} if validation else {})
    return {
        part: Evaluation(torch.from_numpy(output.logits), digits.labels).summary()
        for part, (output, digits) in parts.items()
    }


def _first(run: Run, cascade: Cascade, splits: Splits) -> FirstNetwork:
    """Return what the manifest holds of the first network."""
    assert run.first is not None  # noqa: S101 (run.graph() is a cascade)
    output = torch_classify(cascade.first)(splits.test.images.numpy())
    is_sure = cascade.is_sure(torch.from_numpy(output.probabilities), torch.from_numpy(output.novelty))
    return FirstNetwork(
        training=_training(run.first.record),
        parameters=parameter_count(run.first.network),
        sure=cascade.sure,
        familiar=cascade.familiar,
        share=cascade.share,
        decided=float(is_sure.float().mean()),
    )


def golden_images(truth: Any, classes: int) -> Any:
    """Return the indices of the golden images: the first few of each class, if there are not too many classes."""
    chosen = [np.flatnonzero(truth == label)[:GOLDEN_IMAGES_PER_CLASS] for label in range(classes)]
    # In turns, so that the limit leaves out further images of each class before it leaves out a class.
    in_turns = [each[i] for i in range(GOLDEN_IMAGES_PER_CLASS) for each in chosen if i < len(each)]
    return np.array(sorted(in_turns[:MOST_GOLDEN_IMAGES], key=lambda index: (truth[index], index)))


def _training(record: dict[str, Any]) -> dict[str, Any]:
    """Return what the manifest holds of the run. The service shows it, so it has no path of anybody's data."""
    found = {key: record[key] for key in ("config", "dataset", "seconds", "model_sha256")}
    said = record["dataset"]
    config = record["config"]
    names = {"dataset": said["name"], "replay": said["replay"]["name"] if said.get("replay") else ""}
    for name in ("teacher", "fonts", "start"):
        if name in config:
            names[name] = ",".join(Path(place).name for place in str(config[name]).split(","))
    return found | {"config": config | names}


def thresholds(
    calibration: Calibration, test: ModelOutput, validation: ModelOutput | None = None
) -> tuple[RejectionThreshold, ConfidenceThreshold | None]:
    """Return the thresholds of a manifest, with the shares of images that they reject.

    Args:
        test: the outputs for the test set.
        validation: those for the validation set. If it is None, the calibration knows its shares.
    """
    # Runs of version 0.1 have no confidence threshold, and their novelty threshold rejected 1 % by definition.
    of_validation = {"novelty": 0.01} | calibration.rejected
    if validation is not None:
        of_validation = _rejected(calibration, validation)
    shares = {"validation": of_validation, "test": _rejected(calibration, test)}
    highest = RejectionThreshold(calibration.threshold, {part: share["novelty"] for part, share in shares.items()})
    if calibration.confidence is None:
        return highest, None
    of_confidence = {part: share["confidence"] for part, share in shares.items()}
    return highest, ConfidenceThreshold(calibration.confidence, of_confidence)


def _rejected(calibration: Calibration, output: ModelOutput) -> dict[str, float]:
    """Return the share of images that each threshold rejects."""
    found = {"novelty": float((output.novelty > calibration.threshold).mean())}
    if calibration.confidence is not None:
        found["confidence"] = float((output.probabilities.max(axis=1) < calibration.confidence).mean())
    return found


def _versions(run: Run, opset: int) -> dict[str, str]:
    packages = ("torch", "onnx", "onnxruntime", "onnxscript")
    versions: dict[str, str] = run.record["versions"]
    return versions | {package: importlib.metadata.version(package) for package in packages} | {"opset": str(opset)}

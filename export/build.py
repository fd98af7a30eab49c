"""Build a bundle from a finished run: its files, and a manifest with what is certain about them."""

from __future__ import annotations

import importlib.metadata
import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from export.cascade import Cascade
from export.describe import describe
from export.equivalence import check_errors, count_correct, torch_classify
from export.formats import convert
from export.onnx_process import OnnxProcess
from export.provenance import provenance
from export.run import Run
from serving.contract import ModelOutput, Preparation, Several
from serving.models import bundle
from serving.models.bundle import ConfidenceThreshold, FirstNetwork, Manifest, RejectionThreshold
from serving.models.classifier import INPUTS, outputs
from training import checkpoint
from training.data.digits import Splits
from training.evaluate import Evaluation
from training.loop.progress import Progress
from training.networks import parameter_count
from training.trust.calibrate import Calibration

# Golden images of each class, and of all classes together. The service runs them whenever it loads the bundle.
GOLDEN_IMAGES_PER_CLASS, MOST_GOLDEN_IMAGES = 4, 400


def build(
    folder: Path,
    run: Run,
    splits: Splits,
    name: str,
    *,
    int8: bool,
    opset: int,
    progress: Progress,
    beside: OnnxProcess | None,
) -> Manifest:
    """Write the files of a bundle into ``folder``, and return its manifest. The publication sets the version.

    The arguments are those of :func:`export.publishing.publish`.

    Raises:
        EquivalenceError: a file is not equivalent to the network, or the cascade makes too many errors.
    """
    graph, labels = run.graph(), tuple(run.record["dataset"]["labels"])
    formats = convert(folder, graph, labels, splits, int8=int8, opset=opset, progress=progress, beside=beside)
    test = formats.expected
    _write_golden(folder / bundle.GOLDEN, splits.test.images.numpy(), splits.test.labels.numpy(), test.logits)
    # The shares of rejected validation images come from the calibration of the run, with two exceptions. Of a cascade,
    # the run knows no results. And the user's own data may be few images: one on a threshold changes the share.
    of_validation = (
        torch_classify(graph)(splits.validation.images.numpy())
        if (splits.is_own or run.first) and len(splits.validation)
        else None
    )
    novelty, confidence = thresholds(run.calibration, test, of_validation)
    # Losses and confidences with the calibration temperature applied, because the graph applies it too.
    result, training, first = run.record["calibration"]["result"], _training(run.record), None
    if isinstance(graph, Cascade):
        # The run has the results of its network alone.
        alone, result = result, _results(splits, test, of_validation)
        check_errors("the cascade", result["test"]["correct"], alone["test"]["correct"], len(splits.test))
        training, first = _with_replay_errors(training, splits, test), _first(run, graph, splits)
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
        equivalence=formats.equivalence,
        files={file: bundle.file_of(folder / file) for file in (*formats.files, bundle.GOLDEN)},
        versions=versions_of(run, opset),
        novelty=novelty,
        confidence=confidence,
        temperature=run.calibration.temperature,
        prepare=cast(Preparation, splits.prepare),
        several=cast(Several, splits.several),
        first=first,
        provenance=provenance(run.record, run.first.record if run.first else None),
        **formats.speed,
    )
    with progress.waiting("measuring the bundle"):
        # The ONNX file was run on the test images already. It is what is served, unless the int8 file is faster.
        output = formats.of_onnx if manifest.serve == bundle.ONNX else None
        return describe(folder, manifest, splits, output, formats.drawn)


def versions_of(run: Run, opset: int) -> dict[str, str]:
    """Return the versions of the packages that make a bundle of a run, and the opset of its ONNX files."""
    packages = ("torch", "onnx", "onnxruntime", "onnxscript")
    versions: dict[str, str] = run.record["versions"]
    return versions | {package: importlib.metadata.version(package) for package in packages} | {"opset": str(opset)}


def _write_golden(path: Path, images: Any, truth: Any, logits: Any) -> None:
    golden = golden_images(truth, logits.shape[1])
    buffer = io.BytesIO()
    np.savez(buffer, images=images[golden], logits=logits[golden], labels=truth[golden])
    checkpoint.write_atomically(path, buffer.getvalue())


def golden_images(truth: Any, classes: int) -> Any:
    """Return the indices of the golden images: the first few of each class, if there are not too many classes."""
    chosen = [np.flatnonzero(truth == label)[:GOLDEN_IMAGES_PER_CLASS] for label in range(classes)]
    # In turns, so that the limit leaves out further images of each class before it leaves out a class.
    in_turns = [each[i] for i in range(GOLDEN_IMAGES_PER_CLASS) for each in chosen if i < len(each)]
    return np.array(sorted(in_turns[:MOST_GOLDEN_IMAGES], key=lambda index: (truth[index], index)))


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


def _with_replay_errors(training: dict[str, Any], splits: Splits, test: ModelOutput) -> dict[str, Any]:
    """Return ``training`` with the errors of a cascade on the replay data set, if there is one."""
    if not splits.replay:
        return training
    said, count = training["dataset"], splits.replay.test_images
    errors = count - count_correct(test.slice(0, count), splits.test.labels[:count].numpy())
    return training | {"dataset": said | {"replay": said["replay"] | {"errors": errors}}}


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
    calibration: Calibration, test: ModelOutput, validation: ModelOutput | None
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

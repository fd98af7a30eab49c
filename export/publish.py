"""Run folder to published bundle: convert, verify, then rename into place."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from export.equivalence import Predictor, check_int8, check_onnx, check_torchscript, eager
from export.graph import ServingGraph
from export.onnx import OPSET, export_onnx
from export.quantize import export_int8, microseconds
from export.torchscript import export_torchscript, load_torchscript
from serving.errors import BundleError
from serving.models import bundle
from serving.models.bundle import Bundle, Manifest, RejectionThreshold
from serving.models.classifier import INPUTS, Classifier, outputs
from serving.models.repository import load_folder, versions
from training import checkpoint
from training.data.digits import Splits, load
from training.networks import Network, build, parameter_count
from training.trust.calibrate import Calibration
from training.trust.novelty import FALSE_REJECTIONS

GOLDEN_PER_CLASS = 4


class ExportError(Exception):
    """The run cannot be exported; the message says why and the way out."""


@dataclass(frozen=True)
class Run:
    """A finished run folder."""

    folder: Path
    record: dict[str, Any]
    """run.json."""
    network: Network
    calibration: Calibration

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read ``run.json`` and the weights it vouches for.

        Raises:
            ExportError: the run is not finished, or its weights are not those of its record.
        """
        try:
            record = json.loads((folder / "run.json").read_text())
            weights = (folder / "model.pt").read_bytes()
        except FileNotFoundError as error:
            raise ExportError(
                f"{folder} is no finished run: it has no {Path(str(error.filename)).name}. "
                f"Finish it with mnist-train --output {folder} --resume"
            ) from error
        except ValueError as error:
            raise ExportError(f"{folder / 'run.json'} cannot be read: {error}") from error
        if hashlib.sha256(weights).hexdigest() != record.get("model_sha256"):
            raise ExportError(f"{folder / 'model.pt'} was altered: its SHA-256 is not that of run.json")
        network = build(record["config"]["model"])
        network.load_state_dict(checkpoint.load(folder / "model.pt")["weights"])
        return cls(folder, record, network, _calibration(folder, record))


def _calibration(folder: Path, record: dict[str, Any]) -> Calibration:
    try:
        content = (folder / "calibration.pt").read_bytes()
    except FileNotFoundError as error:
        raise ExportError(f"{folder} has no calibration.pt, which its run.json names") from error
    if hashlib.sha256(content).hexdigest() != record["calibration"]["sha256"]:
        raise ExportError(f"{folder / 'calibration.pt'} was altered: its SHA-256 is not that of run.json")
    return Calibration.of(checkpoint.load(folder / "calibration.pt"))


def publish(
    run: Run, repository: Path, name: str | None = None, data: Path | None = None, *, int8: bool = False
) -> Bundle:
    """Export ``run``, verify every format on the whole test set, and publish the bundle as the next version.

    Args:
        name: of the model; that of the data set unless given.
        data: folder with the data set; see :func:`training.data.sources.fetch`.
        int8: add a quantized ONNX file too, and have the faster of the two served.

    Raises:
        EquivalenceError: a format is not equivalent. Nothing is left in the repository.
        BundleError: the finished bundle does not load as the service loads it.
        DataError: the test images could not be had.
        OSError: it could not be written.
    """
    name = name or run.record["dataset"]["name"]
    splits = load(run.record["dataset"]["name"], folder=data)
    models = repository / name
    models.mkdir(parents=True, exist_ok=True)
    # Beside its final place, so that the rename is one; no version number, so that nobody reads it.
    staging = Path(tempfile.mkdtemp(prefix=".export-", dir=models))
    try:
        manifest = _write(staging, run, splits, name, int8)
        while True:
            version = max(versions(repository, name), default=0) + 1
            manifest = msgspec.structs.replace(manifest, version=version)
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            checkpoint.write_atomically(staging / bundle.MANIFEST, text + b"\n")
            # What is published has been loaded and run as the service will.
            load_folder(staging)
            staging.chmod(0o755)
            try:
                # A folder is never renamed over one with files in it: of two exports at once each
                # gets a version of its own.
                staging.rename(models / str(version))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                continue
            return bundle.read(models / str(version))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def verify(folder: Path, data: Path | None = None) -> Bundle:
    """Check a published bundle again: digests, contract, golden set, and the certified test result.

    Raises:
        BundleError: something is not as certified.
        DataError: the test images could not be had.
    """
    model = load_folder(folder)
    manifest = model.bundle.manifest
    test = load(manifest.training["dataset"]["name"], folder=data).test
    images, truth = test.images.numpy(), test.labels.numpy()
    formats: dict[str, Predictor] = {"onnx": Classifier(folder / bundle.ONNX).classify}
    if bundle.INT8 in manifest.files:
        formats["int8"] = Classifier(folder / bundle.INT8).classify
    if bundle.TORCHSCRIPT in manifest.files:
        formats["torchscript"] = eager(load_torchscript(folder / bundle.TORCHSCRIPT))
    for name, classify in formats.items():
        correct = int((classify(images).logits.argmax(axis=1) == truth).sum())
        said = manifest.correct.get(bundle.INT8) if name == "int8" else manifest.result["test"]["correct"]
        if correct != said:
            raise BundleError(f"{folder}: its {name} file gets {correct} test images right, its manifest says {said}")
    return model.bundle


def _write(folder: Path, run: Run, splits: Splits, name: str, int8: bool) -> Manifest:
    """Convert and verify every format; the manifest lacks only its version."""
    images, truth = splits.test.images.numpy(), splits.test.labels.numpy()
    graph = ServingGraph(run.network, run.calibration)
    labels = tuple(run.record["dataset"]["labels"])
    export_torchscript(graph, folder / bundle.TORCHSCRIPT)
    export_onnx(graph, folder / bundle.ONNX, labels)
    equivalence = {
        "onnx": check_onnx(folder / bundle.ONNX, graph, images, labels),
        "torchscript": check_torchscript(folder / bundle.TORCHSCRIPT, graph, images, labels),
    }
    files = [bundle.ONNX, bundle.TORCHSCRIPT, bundle.GOLDEN]
    speed: dict[str, Any] = {}
    if int8:
        files.insert(1, bundle.INT8)
        export_int8(folder / bundle.ONNX, folder / bundle.INT8, splits.train.images.numpy())
        equivalence["int8"] = check_int8(folder / bundle.INT8, graph, images, truth, labels)
        speed["microseconds"] = {file: microseconds(folder / file, images) for file in (bundle.ONNX, bundle.INT8)}
        speed["correct"] = {
            file: int((Classifier(folder / file).classify(images).logits.argmax(axis=1) == truth).sum())
            for file in (bundle.ONNX, bundle.INT8)
        }
        speed["serve"] = min(speed["microseconds"], key=speed["microseconds"].__getitem__)
    answers = eager(graph)(images)
    assert answers.novelty is not None  # noqa: S101 (ServingGraph has the output)
    false = {"validation": FALSE_REJECTIONS, "test": float((answers.novelty > run.calibration.threshold).mean())}
    chosen = np.concatenate([np.flatnonzero(truth == label)[:GOLDEN_PER_CLASS] for label in range(len(labels))])
    np.savez(folder / bundle.GOLDEN, images=images[chosen], logits=answers.logits[chosen], labels=truth[chosen])
    return Manifest(
        format=bundle.FORMAT,
        name=name,
        version=1,
        labels=labels,
        inputs=INPUTS,
        outputs=outputs(len(labels), novelty=True),
        parameters=parameter_count(run.network),
        training={key: run.record[key] for key in ("config", "dataset", "seconds", "model_sha256")},
        # Losses and confidences after the temperature, as the graph gives them.
        result=run.record["calibration"]["result"],
        equivalence=equivalence,
        files={file: bundle.describe(folder / file) for file in files},
        versions=run.record["versions"]
        | {package: importlib.metadata.version(package) for package in ("torch", "onnx", "onnxruntime", "onnxscript")}
        | {"opset": str(OPSET)},
        novelty=RejectionThreshold(run.calibration.threshold, false),
        temperature=run.calibration.temperature,
        **speed,
    )

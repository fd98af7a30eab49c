"""Verify a published bundle again: everything in its manifest that can be computed from its files and the data set.

Times are not checked. The settings that only training uses, the versions, the digest of the weights of the run and the
share of images that the first network of a cascade decides cannot be computed either. All but this share are compared
with the statement of the provenance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import onnx
import torch

from export import metadata
from export.equivalence import TOLERANCE, Classify, hard_cases, torch_classify
from export.join import settings_of
from export.measure import measure
from export.provenance import statement
from export.records import Provenance, ReplayRecord, Results, Training
from export.reference import reference_of
from export.torchscript import load_torchscript
from serving.contract import ModelOutput
from serving.errors import BundleError
from serving.models import bundle
from serving.models.bundle import Bundle, Manifest
from serving.models.classifier import Classifier
from serving.models.model import load_folder
from serving.models.trust import Trust
from serving.telemetry.drift import psi
from training.config import KNOWN_DATASETS, ConfigError
from training.data.digits import Digits, Splits
from training.data.errors import DataError
from training.data.load import Selection, load_data, load_saved
from training.data.own.files import DATA_FILE
from training.evaluate import Evaluation
from training.networks import build, parameter_count
from training.origin import RECORD

# By how much a mean loss, a calibration error and a share of rejected images may differ from CPU to CPU.
LOSS, CALIBRATION_ERROR, SHARE = 2e-5, 5e-4, 1e-3

# The constants of a cascade are float32 in its file.
ROUNDING = 1e-6

# Sets of images that had another name in version 0.1.
RENAMED = {"other hands": "other styles"}


class Fact(NamedTuple):
    """Something that a manifest says, and what was found."""

    what: str
    certified: Any
    found: Any
    tolerance: float = 0.0

    @property
    def holds(self) -> bool:
        if not self.tolerance:
            return bool(self.certified == self.found)
        return bool(abs(self.certified - self.found) <= self.tolerance)


def verify_bundle(folder: Path, data: Path | None = None, trust: Trust | None = None) -> Bundle:
    """Check a published bundle: digests, tensors, golden images, and what its manifest says. Return the bundle.

    Args:
        folder: the folder of one version.
        data: folder with the data set; see :func:`training.data.sources.fetch`.
        trust: who must have signed it.

    Raises:
        BundleError: a check failed.
        DataError: the test images could not be found.
    """
    found = load_folder(folder, trust).bundle
    manifest = found.manifest
    try:
        training = msgspec.convert(manifest.training, Training)
        results = msgspec.convert(manifest.result, Results)
        msgspec.convert(manifest.provenance, Provenance)
        networks = [build(training.config.model, len(manifest.labels))]
        if manifest.first:
            first = msgspec.convert(manifest.first.training, Training)
            networks.append(build(first.config.model, len(manifest.labels)))
    except (msgspec.ValidationError, ConfigError) as error:
        raise BundleError(f"{folder / bundle.MANIFEST} is not a valid manifest: {error}") from error
    if not training.dataset.own and training.dataset.name not in KNOWN_DATASETS:
        raise BundleError(f"{folder / bundle.MANIFEST}: there is no data set {training.dataset.name!r}")
    splits = _splits(training, data)
    facts = [Fact("parameters", manifest.parameters, sum(map(parameter_count, networks)))]
    facts += [*_data_facts(manifest, training, splits), *_file_facts(folder, manifest), *_provenance_facts(found)]
    # The results are computed last, because that takes seconds. A wrong fact before them ends the check at once.
    measured = _measured_facts(folder, manifest, splits)
    computed = chain(_result_facts(folder, manifest, results, splits, training.dataset.replay), measured)
    for fact in chain(facts, computed):
        if not fact.holds:
            raise BundleError(f"{folder}: its manifest says {fact.what} {fact.certified!r}, but found {fact.found!r}")
    return found


def _splits(training: Training, data: Path | None) -> Splits:
    config, dataset = training.config, training.dataset
    limits = Selection(validation=config.validation, subset=config.subset)
    if not dataset.own:
        return load_data(dataset.name, replace(limits, prepare=config.prepare, folder=data))
    if data is None:
        raise DataError(f"{dataset.name}: is somebody's own data set; name its folder, or that of the run, with --data")
    replay = dataset.replay.name if dataset.replay else ""
    # A data set of one's own may have a file of this name too.
    if (data / DATA_FILE).is_file() and (data / RECORD).is_file():
        return load_saved(data, limits, replay)
    if dataset.replay and dataset.replay.own:
        raise DataError(f"{replay}: is somebody's own data set too; name the folder of the run with --data")
    return load_data(str(data.absolute()), replace(limits, prepare=dataset.prepare), replay)


def _data_facts(manifest: Manifest, training: Training, splits: Splits) -> Iterator[Fact]:
    dataset = training.dataset
    yield Fact("training.config.dataset", training.config.dataset, dataset.name)
    yield Fact("labels", manifest.labels, splits.labels)
    yield Fact("training.dataset.labels", dataset.labels, splits.labels)
    yield Fact("training.dataset.digests", dataset.digests, splits.digests)
    # The manifest of an older version does not say how pictures are prepared: as symbols.
    if dataset.own or splits.prepare != manifest.prepare:
        yield Fact("prepare", manifest.prepare, splits.prepare)
        yield Fact("several", manifest.several, splits.several)
    yield Fact("training.dataset.train_images", dataset.train_images, splits.train_images)
    yield Fact("training.dataset.validation_images", dataset.validation_images, len(splits.validation))


def _replay_facts(replay: ReplayRecord | None, splits: Splits, output: ModelOutput) -> Iterator[Fact]:
    if replay and splits.replay:
        count = splits.replay.test_images
        wrong = output.logits[:count].argmax(axis=1) != splits.test.labels[:count].numpy()
        yield Fact("training.dataset.replay.images", replay.images, count)
        yield Fact("training.dataset.replay.errors", replay.errors, int(wrong.sum()))


def _file_facts(folder: Path, manifest: Manifest) -> Iterator[Fact]:
    """Yield what the ONNX files say about themselves. Files of version 0.1 have their labels only."""
    for name in metadata.onnx_files(manifest):
        model = onnx.load(folder / name)
        said = {entry.key: entry.value for entry in model.metadata_props}
        expected = metadata.metadata(manifest)
        for key in expected if "threshold" in said else ["labels"]:
            yield Fact(f"{key}, for the metadata of {name},", expected[key], said.get(key))
        if manifest.first:
            for what, value in settings_of(model).items():
                yield Fact(f"first.{what}", getattr(manifest.first, what), value, ROUNDING)
        opsets = {entry.domain: str(entry.version) for entry in model.opset_import}
        yield Fact("versions.opset", manifest.versions.get("opset"), opsets.get(""))


def _provenance_facts(found: Bundle) -> Iterator[Fact]:
    """Yield what the statement of the provenance says: settings, versions, digests. Older bundles have none."""
    manifest = found.manifest
    if bundle.PROVENANCE in manifest.files:
        # The statement leaves out itself and the card, which is written after it.
        made = {name: file for name, file in manifest.files.items() if name not in (bundle.PROVENANCE, bundle.CARD)}
        expected = statement(msgspec.structs.replace(manifest, files=made))
        try:
            said = json.loads(found.content(bundle.PROVENANCE))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{found.folder / bundle.PROVENANCE} is not JSON: {error}") from error
        yield from _same(f"{bundle.PROVENANCE}:", json.loads(expected), said)
        yield Fact("provenance.seed", manifest.provenance.get("seed"), manifest.training["config"].get("seed"))


def _same(what: str, expected: Any, said: Any) -> Iterator[Fact]:
    """Yield each value of a JSON document and the one that stands in its place in another."""
    if isinstance(expected, dict) and isinstance(said, dict) and expected.keys() == said.keys():
        for key, value in expected.items():
            yield from _same(f"{what}{key}.", value, said[key])
    elif isinstance(expected, list) and isinstance(said, list) and len(expected) == len(said):
        for number, pair in enumerate(zip(expected, said, strict=True)):
            yield from _same(f"{what}{number}.", *pair)
    else:
        yield Fact(what.rstrip(".:"), expected, said)


def _result_facts(
    folder: Path, manifest: Manifest, results: Results, splits: Splits, said: ReplayRecord | None
) -> Iterator[Fact]:
    """Yield the figures on the test set and the validation set, computed by each file."""
    formats: dict[str, tuple[str, Classify]] = {"onnx": (bundle.ONNX, Classifier(folder / bundle.ONNX).classify)}
    if bundle.TORCHSCRIPT in manifest.files:
        loaded = load_torchscript(folder / bundle.TORCHSCRIPT)
        formats["torchscript"] = (bundle.TORCHSCRIPT, torch_classify(loaded))
    if bundle.INT8 in manifest.files:
        formats["int8"] = (bundle.INT8, Classifier(folder / bundle.INT8).classify)
    yield Fact("formats", set(manifest.equivalence), set(formats))
    for name, (file, classify) in formats.items():
        output = classify(splits.test.images.numpy())
        correct = _evaluation(output, splits.test).correct
        if name == "int8" or file in manifest.correct:
            yield Fact(f"correct for {file}", manifest.correct.get(file), correct)
        yield from _equivalence_facts(name, manifest, splits.test)
        if name == "int8":
            continue
        yield from _summary_facts(f"result.test, for {file},", results.test, _evaluation(output, splits.test))
        yield from _rejection_facts("test", manifest, output)
        yield from _replay_facts(said, splits, output)
    if len(splits.validation):
        output = formats["onnx"][1](splits.validation.images.numpy())
        if results.validation is None:
            yield Fact("result.validation", None, "a validation set")
            return
        yield from _summary_facts("result.validation", results.validation, _evaluation(output, splits.validation))
        yield from _rejection_facts("validation", manifest, output)
        yield from _reference_facts(folder, manifest, splits.validation)


def _reference_facts(folder: Path, manifest: Manifest, validation: Digits) -> Iterator[Fact]:
    """Yield how far the reference histograms are from those that the served file gives here. Older bundles have none.

    The measure is the one that the service takes for drift, because a few images may be in another bin on another CPU.
    """
    if not manifest.reference:
        return
    images = validation.images.numpy()
    found = reference_of(manifest, Classifier(folder / manifest.serve), images, manifest.reference.edges())
    assert found is not None  # noqa: S101 (there are images)
    yield Fact("reference.labels of", sum(manifest.reference.labels), len(images))
    for name, counts in found.images().items():
        yield Fact(f"reference.{name}", 0.0, psi(manifest.reference.images()[name], counts), SHARE)


def _measured_facts(folder: Path, manifest: Manifest, splits: Splits) -> Iterator[Fact]:
    """Yield the results by set and by class. Bundles of version 0.1 have none."""
    if not manifest.sets:
        return
    found = measure(load_folder(folder), splits, with_latency=False)
    sets = {RENAMED.get(name, name): said for name, said in manifest.sets.items()}
    yield Fact("sets", set(sets), set(found.sets))
    for name, said in sets.items():
        there = found.sets[name]
        yield Fact(f"sets.{name}.images", said.images, there.images)
        tolerance = max(1.5, SHARE * said.images)
        for count in ("correct", "accepted", "accepted_correct"):
            yield Fact(f"sets.{name}.{count}", getattr(said, count), getattr(there, count), tolerance)
        for reason in said.reasons | there.reasons:
            one, other = (result.reasons.get(reason, 0) for result in (said, there))
            yield Fact(f"sets.{name}.reasons.{reason}", one, other, tolerance)
        tolerance = max(CALIBRATION_ERROR, 3 / max(1, said.images))
        yield Fact(f"sets.{name}.calibration_error", said.calibration_error, there.calibration_error, tolerance)
        yield Fact(f"sets.{name}.what", said.what, there.what)
    yield Fact("classes", manifest.classes, found.classes)
    yield Fact("mistakes", manifest.mistakes, found.mistakes)


def _equivalence_facts(name: str, manifest: Manifest, test: Digits) -> Iterator[Fact]:
    said = manifest.equivalence[name]
    compared = len(test) + sum(map(len, hard_cases(test.images.numpy())))
    yield Fact(f"equivalence.{name}.images", said.images, compared)
    if name == "int8":
        yield Fact("equivalence.int8.tolerance", said.tolerance, 2 * said.logits_difference, 1e-9)
        return
    yield Fact(f"equivalence.{name}.labels_differing", said.labels_differing, 0)
    yield Fact(f"equivalence.{name}.tolerance", said.tolerance, TOLERANCE)
    for what in ("logits_difference", "probabilities_difference", "novelty_difference"):
        yield Fact(f"equivalence.{name}.{what}", getattr(said, what), 0.0, TOLERANCE)


def _summary_facts(what: str, said: Any, evaluation: Evaluation) -> Iterator[Fact]:
    tolerances = {"loss": LOSS, "accuracy": 1e-9, "calibration_error": CALIBRATION_ERROR}
    for name, value in evaluation.summary().items():
        yield Fact(f"{what} {name}", getattr(said, name), value, tolerances.get(name, 0.0))


def _rejection_facts(part: str, manifest: Manifest, output: ModelOutput) -> Iterator[Fact]:
    above = float((output.novelty > manifest.novelty.threshold).mean())
    said = manifest.novelty.false_rejections.get(part, -1.0)
    # One image may lie on the threshold, and be rejected on one CPU only. In a small set, it is a larger share.
    tolerance = max(SHARE, 1.5 / len(output.novelty))
    yield Fact(f"novelty.false_rejections.{part}", said, above, tolerance)
    if manifest.confidence:
        below = float((output.probabilities.max(axis=1) < manifest.confidence.threshold).mean())
        said = manifest.confidence.false_rejections.get(part, -1.0)
        yield Fact(f"confidence.false_rejections.{part}", said, below, tolerance)


def _evaluation(output: ModelOutput, digits: Digits) -> Evaluation:
    return Evaluation(torch.from_numpy(output.logits), digits.labels)

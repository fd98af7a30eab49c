"""Compare an exported file with the network it was made from. A file that is not equivalent is not published.

EquivalenceError
├── ContractError   the tensors have other names, types or shapes than they should, or the classes other names
├── LabelsError     an image gets another label; for int8, too many images get a wrong label
└── NumbersError    the numbers differ by more than the tolerance

The checks run in this order: names and shapes, labels, numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch import nn

from export.torchscript import load_torchscript
from serving.contract import Images, ModelOutput
from serving.errors import first_line, last_line
from serving.models.bundle import Equivalence
from serving.models.classifier import INPUTS, Classifier, outputs
from training.evaluate import BATCH
from training.memory import is_memory_error
from training.reports import Report, no_report

# Ten times the largest difference between formats that was measured on the networks of this project.
TOLERANCE = 2e-4
# Quantization, or a network in front of another one, may make this many more errors in 10,000 images.
MORE_ERRORS_PER_10_000 = 5
HARD_CASE_BATCH_SIZES = (1, 2, 7, 64)

Classify = Callable[[Images], ModelOutput]


class EquivalenceError(Exception):
    """An exported file is not equivalent to the network it was made from."""


class ContractError(EquivalenceError):
    """The tensors have other names, types or shapes than they should, or the classes have other names."""


class LabelsError(EquivalenceError):
    """The file gives an image another label than the network does."""


class NumbersError(EquivalenceError):
    """The numbers of the file differ from those of the network by more than the tolerance."""


class Compared(NamedTuple):
    """A file that was found equivalent, and what it gives for the images of the reference."""

    found: Equivalence
    output: ModelOutput


class Reference:
    """The trained network's outputs for all images of a comparison. They are computed once, for every format.

    The images are hard cases, in batches of several sizes, and real images.

    Args:
        network: the graph that is exported, a ServingGraph or a Cascade.
        images: real images, uint8 ``[N, 28, 28]``.
        report: called now and then with the share that is computed, 0..1.
    """

    def __init__(self, network: nn.Module, images: Images, report: Report = no_report) -> None:
        hard = hard_cases(images)
        self.images = images
        self.batches = [*hard, *np.array_split(images, max(1, len(images) // BATCH))]
        self.outputs = _run("the network", torch_classify(network), self.batches, report)
        self._hard = len(hard)

    def of_images(self, outputs: Sequence[ModelOutput]) -> ModelOutput:
        """Return the outputs for ``images`` from those for all batches."""
        return ModelOutput.joined(outputs[self._hard :])


def check_onnx(path: Path, reference: Reference, labels: Sequence[str], report: Report = no_report) -> Compared:
    """Compare the ONNX file at ``path``, loaded as the service loads it, with the trained network.

    Args:
        path: the exported file.
        reference: the outputs of the network.
        labels: the names of the classes, which the file must hold too.
        report: called now and then with the share of the images that the file has classified, 0..1.

    Raises:
        EquivalenceError: the file is not equivalent; the class of the error tells in which way.
        BundleError: the file cannot be loaded.
    """
    outputs = _run_onnx(path, reference, labels, report)
    return Compared(compare(path.name, outputs, reference), reference.of_images(outputs))


def check_int8(
    path: Path, reference: Reference, truth: Any, labels: Sequence[str], report: Report = no_report
) -> Equivalence:
    """Compare the quantized file at ``path`` with the trained network by the number of correct labels.

    The file may make :data:`MORE_ERRORS_PER_10_000` more errors than the network. The certified tolerance is twice the
    largest difference of logits found here, because other CPUs round differently.

    Raises:
        EquivalenceError: the file makes more errors than allowed, or its tensors are not as they should be.
        BundleError: the file cannot be loaded.
    """
    outputs, images = _run_onnx(path, reference, labels, report), len(reference.images)
    found = compare(path.name, outputs, reference, tolerance=np.inf, allowed=images)
    correct, expected = (count_correct(reference.of_images(each), truth) for each in (outputs, reference.outputs))
    check_errors(path.name, correct, expected, images)
    return msgspec.structs.replace(found, tolerance=2 * found.logits_difference)


def check_errors(name: str, correct: int, expected: int, images: int) -> None:
    """Check that not many more of the ``images`` get a wrong label than from the network itself.

    Args:
        name: what gives ``correct`` labels, for the message.
        expected: how many are correct from the network.

    Raises:
        LabelsError: more than :data:`MORE_ERRORS_PER_10_000` in 10,000 images. A small set is allowed one error.
    """
    if correct < expected - math.ceil(MORE_ERRORS_PER_10_000 * images / 10_000):
        raise LabelsError(
            f"{name}: {correct} of {images} images get the correct label, {expected} with the network; "
            f"{MORE_ERRORS_PER_10_000} fewer in 10,000 are allowed"
        )


def check_torchscript(
    path: Path, reference: Reference, labels: Sequence[str], report: Report = no_report
) -> Equivalence:
    """Load the TorchScript file at ``path`` and compare it with the trained network.

    Raises:
        EquivalenceError: the file is not equivalent; the class of the error tells in which way.
    """
    module = load_torchscript(path)
    try:
        # Three is a batch size that the file was not traced with.
        actual = module(torch.zeros(3, *reference.images.shape[1:], dtype=torch.uint8))
    except RuntimeError as error:
        raise ContractError(f"{path.name}: fails on three images: {last_line(error)}") from error
    tensors = [(str(tensor.dtype).removeprefix("torch."), (-1, *tensor.shape[1:]), len(tensor)) for tensor in actual]
    expected = [(tensor.dtype, tensor.shape, 3) for tensor in outputs(len(labels))]
    if tensors != expected:
        raise ContractError(f"{path.name}: three images give {tensors}, but should give {expected}")
    return compare(path.name, _run(path.name, torch_classify(module), reference.batches, report), reference)


def _run_onnx(path: Path, reference: Reference, labels: Sequence[str], report: Report) -> list[ModelOutput]:
    # The service gives each session one thread, so several batches run side by side.
    classify = _load_onnx(path, labels).classify
    return _run(path.name, classify, reference.batches, report, threads=torch.get_num_threads())


def _run(
    name: str, classify: Classify, batches: Sequence[Images], report: Report, threads: int = 1
) -> list[ModelOutput]:
    """Return the outputs of each batch.

    Raises:
        ContractError: a batch fails.
        MemoryError: there is not enough memory for it.
    """

    def run(batch: Images) -> ModelOutput:
        try:
            return classify(batch)
        except Exception as error:
            if is_memory_error(error):
                raise MemoryError(first_line(error)) from error
            raise ContractError(f"{name}: fails on a batch of {len(batch)}: {first_line(error)}") from error

    found: list[ModelOutput] = []
    with ThreadPoolExecutor(threads) as pool:
        # torch divides each batch among threads of its own.
        for output in pool.map(run, batches) if threads > 1 else map(run, batches):
            found.append(output)
            report(len(found) / len(batches))
    return found


def _load_onnx(path: Path, labels: Sequence[str]) -> Classifier:
    """Load the ONNX file at ``path`` as the service does, and check its tensors and class names."""
    classifier = Classifier(path)
    for what, actual, expected in (
        ("inputs", classifier.inputs, INPUTS),
        ("outputs", classifier.outputs, outputs(len(labels))),
        ("labels", tuple(classifier.metadata.get("labels", "").split("\n")), tuple(labels)),
    ):
        if actual != expected:
            raise ContractError(f"{path.name}: its {what} are {actual}, but should be {expected}")
    return classifier


def torch_classify(module: nn.Module) -> Classify:
    """Return a function that runs a torch module on numpy arrays."""

    @torch.inference_mode()
    def classify(images: Images) -> ModelOutput:
        # torch needs writable memory, but an array over the bytes of a file is read-only. So the images are copied.
        # The feature maps of thousands of images would take gigabytes, so they come in parts.
        parts = (module(part) for part in torch.from_numpy(np.array(images)).split(BATCH))
        return ModelOutput(*(torch.cat(outputs).numpy() for outputs in zip(*parts, strict=True)))

    return classify


def count_correct(output: ModelOutput, truth: Any) -> int:
    """Return how many images get their true label."""
    return int((output.logits.argmax(axis=1) == truth).sum())


def compare(
    name: str, outputs: Sequence[ModelOutput], reference: Reference, *, tolerance: float = TOLERANCE, allowed: int = 0
) -> Equivalence:
    """Compare the outputs of an exported file with those of the network.

    Args:
        name: the name of the exported file, for messages.
        outputs: what the file gives for each batch of the reference.
        reference: the outputs of the network.
        tolerance: the largest difference that any number may have.
        allowed: how many images may get another label.

    Raises:
        LabelsError: too many labels differ.
        NumbersError: a number differs by more than the tolerance.
        ContractError: an output has another type or shape.
    """
    labels_differing, compared = 0, 0
    largest = np.zeros(len(ModelOutput._fields))
    for batch, actual, expected in zip(reference.batches, outputs, reference.outputs, strict=True):
        if any(a.shape != e.shape or a.dtype != e.dtype for a, e in zip(actual, expected, strict=True)):
            raise ContractError(f"{name}: a batch of {len(batch)} gives shapes {[a.shape for a in actual]}")
        differing = (actual[0].argmax(1) != expected[0].argmax(1)) | (actual[1].argmax(1) != expected[1].argmax(1))
        labels_differing += int(differing.sum())
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            # Python's max() would skip NaN, numpy's maximum() keeps it.
            largest[i] = np.maximum(largest[i], np.abs(a - e).max())
        compared += len(batch)
    logits, probabilities, novelty = map(float, largest)
    if labels_differing > allowed:
        raise LabelsError(f"{name}: {labels_differing} of {compared} images get another label than from the network")
    # Written as "not <=" so that NaN fails too.
    if not largest.max() <= tolerance:
        raise NumbersError(
            f"{name}: logits differ by up to {logits:.3g}, probabilities by up to {probabilities:.3g}, "
            f"novelty scores by up to {novelty:.3g}; the tolerance is {tolerance:g}"
        )
    return Equivalence(compared, labels_differing, logits, probabilities, tolerance, novelty)


def hard_cases(images: Images) -> list[Images]:
    """Return black, white, noise and real images, each in batches of 1, 2, 7 and 64."""
    noise = np.random.default_rng(0).integers(0, 256, (64, *images.shape[1:]), dtype=np.uint8)
    cases = []
    for size in HARD_CASE_BATCH_SIZES:
        shape = (size, *images.shape[1:])
        cases += [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise[:size], images[:size]]
    return cases

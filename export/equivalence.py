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
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from export.graph import ServingGraph
from export.torchscript import load_torchscript
from serving.contract import Images, ModelOutput
from serving.models.bundle import Equivalence
from serving.models.classifier import INPUTS, Classifier, outputs

# Ten times the largest difference between formats that was measured on the networks of this project.
TOLERANCE = 2e-4
# Quantization may change this many correct labels of 10,000 to wrong ones.
INT8_ERRORS_PER_10_000 = 5
HARD_CASE_BATCH_SIZES = (1, 2, 7, 64)
COMPARISON_BATCH_SIZE = 1000

Classify = Callable[[Images], ModelOutput]


class EquivalenceError(Exception):
    """An exported file is not equivalent to the network it was made from."""


class ContractError(EquivalenceError):
    """The tensors have other names, types or shapes than they should, or the classes have other names."""


class LabelsError(EquivalenceError):
    """The file gives an image another label than the network does."""


class NumbersError(EquivalenceError):
    """The numbers of the file differ from those of the network by more than the tolerance."""


def check_onnx(path: Path, network: ServingGraph, images: Images, labels: Sequence[str]) -> Equivalence:
    """Compare the ONNX file at ``path``, loaded as the service loads it, with the eager ``network``.

    Args:
        path: the exported file.
        network: the graph that was exported.
        images: real images, uint8 ``[N, 28, 28]``.
        labels: the names of the classes, which the file must hold too.

    Raises:
        EquivalenceError: the file is not equivalent; the class of the error tells in which way.
        BundleError: the file cannot be loaded.
    """
    return compare(path.name, _load_onnx(path, network, labels).classify, torch_classify(network), images)


def check_int8(path: Path, network: ServingGraph, images: Images, truth: Any, labels: Sequence[str]) -> Equivalence:
    """Compare the quantized file at ``path`` with the eager ``network`` by the number of correct labels.

    The file may make :data:`INT8_ERRORS_PER_10_000` more errors than the network. The certified tolerance is twice the
    largest difference of logits found here, because other CPUs round differently.

    Raises:
        EquivalenceError: the file makes more errors than allowed, or its tensors are not as they should be.
        BundleError: the file cannot be loaded.
    """
    classify, reference = _load_onnx(path, network, labels).classify, torch_classify(network)
    found = compare(path.name, classify, reference, images, tolerance=np.inf, allowed=len(images))
    correct, expected = count_correct(classify, images, truth), count_correct(reference, images, truth)
    # A small test set is allowed one error.
    if correct < expected - math.ceil(INT8_ERRORS_PER_10_000 * len(images) / 10_000):
        raise LabelsError(
            f"{path.name}: {correct} of {len(images)} images get the correct label, {expected} with the network; "
            f"{INT8_ERRORS_PER_10_000} fewer in 10,000 are allowed"
        )
    return msgspec.structs.replace(found, tolerance=2 * found.logits_difference)


def check_torchscript(path: Path, network: ServingGraph, images: Images, labels: Sequence[str]) -> Equivalence:
    """Load the TorchScript file at ``path`` and compare it with the eager ``network``.

    Raises:
        EquivalenceError: the file is not equivalent; the class of the error tells in which way.
    """
    module = load_torchscript(path)
    try:
        # Three is a batch size that the file was not traced with.
        actual = module(torch.zeros(3, *images.shape[1:], dtype=torch.uint8))
    except RuntimeError as error:
        raise ContractError(f"{path.name}: fails on three images: {str(error).splitlines()[-1]}") from error
    tensors = [(str(tensor.dtype).removeprefix("torch."), (-1, *tensor.shape[1:]), len(tensor)) for tensor in actual]
    expected = [(tensor.dtype, tensor.shape, 3) for tensor in outputs(len(labels))]
    if tensors != expected:
        raise ContractError(f"{path.name}: three images give {tensors}, but should give {expected}")
    return compare(path.name, torch_classify(module), torch_classify(network), images)


def _load_onnx(path: Path, network: ServingGraph, labels: Sequence[str]) -> Classifier:
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
        return ModelOutput(*(output.numpy() for output in module(torch.from_numpy(np.array(images)))))

    return classify


def count_correct(classify: Classify, images: Images, truth: Any) -> int:
    """Return how many of ``images`` get their true label."""
    return int((classify(images).logits.argmax(axis=1) == truth).sum())


def compare(
    name: str,
    exported: Classify,
    reference: Classify,
    images: Images,
    *,
    tolerance: float = TOLERANCE,
    allowed: int = 0,
) -> Equivalence:
    """Compare two classifiers on hard cases, in batches of several sizes, and on all of ``images``.

    Args:
        name: the name of the exported file, for messages.
        exported: runs the exported file.
        reference: runs the network.
        images: real images, uint8 ``[N, 28, 28]``.
        tolerance: the largest difference that any number may have.
        allowed: how many images may get another label.

    Raises:
        LabelsError: too many labels differ.
        NumbersError: a number differs by more than the tolerance.
        ContractError: a batch fails, or its output has another type or shape.
    """
    labels_differing, compared = 0, 0
    largest = np.zeros(len(ModelOutput._fields))
    for batch in [*hard_cases(images), *np.array_split(images, max(1, len(images) // COMPARISON_BATCH_SIZE))]:
        try:
            output = exported(batch)
        except Exception as error:
            raise ContractError(f"{name}: fails on a batch of {len(batch)}: {str(error).splitlines()[0]}") from error
        actual, expected = output, reference(batch)
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

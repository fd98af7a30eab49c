"""The gate: an exported file must answer as the network it was made from, or it is not published.

    EquivalenceError
    ├── ContractError   tensors have other names, types or axes, or classes other names
    ├── LabelsError     an image is given another label, or of int8 too many are given a wrong one
    └── NumbersError    logits differ by more than the tolerance

Asked in the order a person would: is it the right kind of thing, does it say the same, are the
numbers the same.
"""

from __future__ import annotations

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

# Ten times the largest difference seen between formats on the networks here (README, Limits).
TOLERANCE = 2e-4
# In 10,000, that quantization may cost.
MORE_ERRORS = 5
BATCHES = (1, 2, 7, 64)
EVALUATION_BATCH = 1000

Predictor = Callable[[Images], ModelOutput]


class EquivalenceError(Exception):
    """An exported file is not equivalent to the network it was made from."""


class ContractError(EquivalenceError):
    """The file's tensors have other names, types or axes than they should, or its classes other names."""


class LabelsError(EquivalenceError):
    """The file gives an image another label than the network does."""


class NumbersError(EquivalenceError):
    """The file's numbers differ from the network's by more than the tolerance."""


def check_onnx(path: Path, network: ServingGraph, images: Images, labels: Sequence[str]) -> Equivalence:
    """Compare the ONNX file at ``path``, loaded as the service loads it, with the eager ``network``.

    Args:
        network: a ServingGraph.
        images: real ones, uint8 ``[N, 28, 28]``.
        labels: names of the classes, which the file must carry too.

    Raises:
        EquivalenceError: it is not equivalent; the class says in what.
        BundleError: the file cannot be loaded.
    """
    return compare(path.name, _loaded(path, network, labels).classify, eager(network), images)


def check_int8(path: Path, network: ServingGraph, images: Images, truth: Any, labels: Sequence[str]) -> Equivalence:
    """Compare the quantized file at ``path`` with the eager ``network``: it may make :data:`MORE_ERRORS`, no more.

    Its tolerance is twice the largest difference of logits found, for other CPUs round otherwise.

    Raises:
        EquivalenceError: it is not as good, or of another form.
        BundleError: the file cannot be loaded.
    """
    classifier = _loaded(path, network, labels)
    found = compare(path.name, classifier.classify, eager(network), images, tolerance=np.inf, allowed=len(images))
    right, reference = (
        int((answer(images).logits.argmax(axis=1) == truth).sum()) for answer in (classifier.classify, eager(network))
    )
    if right < reference - MORE_ERRORS * len(images) / 10_000:
        raise LabelsError(
            f"{path.name}: {right} of {len(images)} images are given the right label, {reference} by the network; "
            f"{MORE_ERRORS} fewer in 10,000 are allowed"
        )
    return msgspec.structs.replace(found, tolerance=2 * found.logits_difference)


def check_torchscript(path: Path, network: ServingGraph, images: Images, labels: Sequence[str]) -> Equivalence:
    """Compare the TorchScript file at ``path``, loaded afresh, with the eager ``network``.

    Raises:
        EquivalenceError: it is not equivalent; the class says in what.
    """
    module = load_torchscript(path)
    try:
        given = module(torch.zeros(3, *images.shape[1:], dtype=torch.uint8))
    except RuntimeError as error:
        raise ContractError(f"{path.name}: fails on three images: {str(error).splitlines()[-1]}") from error
    kinds = [(str(value.dtype).removeprefix("torch."), (-1, *value.shape[1:]), len(value)) for value in given]
    expected = [(tensor.dtype, tensor.shape, 3) for tensor in outputs(len(labels))]
    if kinds != expected:
        raise ContractError(f"{path.name}: three images give {kinds}, should be {expected}")
    return compare(path.name, eager(module), eager(network), images)


def _loaded(path: Path, network: ServingGraph, labels: Sequence[str]) -> Classifier:
    """The ONNX file at ``path`` as the service loads it, its contract checked."""
    classifier = Classifier(path)
    for what, actual, expected in (
        ("inputs", classifier.inputs, INPUTS),
        ("outputs", classifier.outputs, outputs(len(labels))),
        ("labels", tuple(classifier.metadata.get("labels", "").split("\n")), tuple(labels)),
    ):
        if actual != expected:
            raise ContractError(f"{path.name}: its {what} are {actual}, should be {expected}")
    return classifier


def eager(module: nn.Module) -> Predictor:
    """A torch module as a function of numpy arrays."""

    @torch.inference_mode()
    def answer(images: Images) -> ModelOutput:
        # torch wants writable memory, which a view of a file's bytes is not.
        return ModelOutput(*(output.numpy() for output in module(torch.from_numpy(np.array(images)))))

    return answer


def compare(
    name: str,
    exported: Predictor,
    reference: Predictor,
    images: Images,
    *,
    tolerance: float = TOLERANCE,
    allowed: int = 0,
) -> Equivalence:
    """Compare two ways to answer, on hard cases in batches of several sizes and on all of ``images``.

    Args:
        tolerance: what any number may differ by.
        allowed: images that may be given another label.

    Raises:
        LabelsError, NumbersError: they answer differently.
        ContractError: a batch size fails altogether.
    """
    labels_differing, compared = 0, 0
    largest = np.zeros(len(ModelOutput._fields))
    for batch in [*hard_cases(images), *np.array_split(images, max(1, len(images) // EVALUATION_BATCH))]:
        try:
            answers = exported(batch)
        except Exception as error:
            raise ContractError(f"{name}: fails on a batch of {len(batch)}: {str(error).splitlines()[0]}") from error
        actual, expected = answers, reference(batch)
        if any(a.shape != e.shape or a.dtype != e.dtype for a, e in zip(actual, expected, strict=True)):
            raise ContractError(f"{name}: a batch of {len(batch)} gives shapes {[a.shape for a in actual]}")
        differing = (actual[0].argmax(1) != expected[0].argmax(1)) | (actual[1].argmax(1) != expected[1].argmax(1))
        labels_differing += int(differing.sum())
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            # max() of Python passes over NaN, numpy's does not.
            largest[i] = np.maximum(largest[i], np.abs(a - e).max())
        compared += len(batch)
    logits, probabilities, novelty = map(float, largest)
    if labels_differing > allowed:
        raise LabelsError(f"{name}: {labels_differing} of {compared} images are given another label")
    if not largest.max() <= tolerance:
        raise NumbersError(
            f"{name}: logits differ by up to {logits:.3g}, probabilities by up to {probabilities:.3g}, "
            f"novelty by up to {novelty:.3g}; tolerance {tolerance:g}"
        )
    return Equivalence(compared, labels_differing, logits, probabilities, tolerance, novelty)


def hard_cases(images: Images) -> list[Images]:
    """Batches of 1, 2, 7 and 64: black, white, noise, and real images."""
    noise = np.random.default_rng(0).integers(0, 256, (64, *images.shape[1:]), dtype=np.uint8)
    cases = []
    for size in BATCHES:
        shape = (size, *images.shape[1:])
        cases += [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise[:size], images[:size]]
    return cases

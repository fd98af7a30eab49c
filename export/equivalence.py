"""The gate: an exported file must answer as the network it was made from, or it is not published.

    EquivalenceError
    ├── ContractError   tensors have other names, types or axes, or classes other names
    ├── LabelsError     an image is given another label
    └── NumbersError    logits differ by more than the tolerance

Asked in the order a person would: is it the right kind of thing, does it say the same, are the
numbers the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from export.torchscript import load_torchscript
from serving.bundle import Equivalence
from serving.classifier import INPUTS, Answers, Classifier, Images, outputs

# Ten times the largest difference seen between formats on the networks here (README, Limits).
TOLERANCE = 2e-4
BATCHES = (1, 2, 7, 64)
EVALUATION_BATCH = 1000

Answer = Callable[[Images], Answers]


class EquivalenceError(Exception):
    """An exported file is not equivalent to the network it was made from."""


class ContractError(EquivalenceError):
    """The file's tensors have other names, types or axes than they should, or its classes other names."""


class LabelsError(EquivalenceError):
    """The file gives an image another label than the network does."""


class NumbersError(EquivalenceError):
    """The file's numbers differ from the network's by more than the tolerance."""


def check_onnx(path: Path, network: nn.Module, images: Images, labels: Sequence[str]) -> Equivalence:
    """Compare the ONNX file at ``path``, loaded as the service loads it, with the eager ``network``.

    Args:
        network: a ServingGraph.
        images: real ones, uint8 ``[N, 28, 28]``.
        labels: names of the classes, which the file must carry too.

    Raises:
        EquivalenceError: it is not equivalent; the class says in what.
        BundleError: the file cannot be loaded.
    """
    classifier = Classifier(path)
    for what, actual, expected in (
        ("inputs", classifier.inputs, INPUTS),
        ("outputs", classifier.outputs, outputs(len(labels), novelty=False)),
        ("labels", tuple(classifier.metadata.get("labels", "").split("\n")), tuple(labels)),
    ):
        if actual != expected:
            raise ContractError(f"{path.name}: its {what} are {actual}, should be {expected}")
    return compare(path.name, classifier.classify, eager(network), images)


def check_torchscript(path: Path, network: nn.Module, images: Images, labels: Sequence[str]) -> Equivalence:
    """Compare the TorchScript file at ``path``, loaded afresh, with the eager ``network``.

    Raises:
        EquivalenceError: it is not equivalent; the class says in what.
    """
    module = load_torchscript(path)
    try:
        given = module(torch.zeros(3, *images.shape[1:], dtype=torch.uint8))
    except RuntimeError as error:
        raise ContractError(f"{path.name}: fails on three images: {str(error).splitlines()[-1]}") from error
    kinds = [(value.dtype, tuple(value.shape)) for value in given]
    if kinds != [(torch.float32, (3, len(labels)))] * 2:
        raise ContractError(f"{path.name}: three images give {kinds}, should be two of float32 (3, {len(labels)})")
    return compare(path.name, eager(module), eager(network), images)


def eager(module: nn.Module) -> Answer:
    """A torch module as a function of numpy arrays."""

    @torch.inference_mode()
    def answer(images: Images) -> Answers:
        # torch wants writable memory, which a view of a file's bytes is not.
        return Answers(*(output.numpy() for output in module(torch.from_numpy(np.array(images)))))

    return answer


def compare(name: str, exported: Answer, reference: Answer, images: Images) -> Equivalence:
    """Compare two ways to answer, on hard cases in batches of several sizes and on all of ``images``.

    Raises:
        LabelsError, NumbersError: they answer differently.
        ContractError: a batch size fails altogether.
    """
    labels_differing, logits_difference, probabilities_difference = 0, 0.0, 0.0
    compared = 0
    for batch in [*hard_cases(images), *np.array_split(images, max(1, len(images) // EVALUATION_BATCH))]:
        try:
            actual = exported(batch)
        except Exception as error:
            raise ContractError(f"{name}: fails on a batch of {len(batch)}: {str(error).splitlines()[0]}") from error
        expected = reference(batch)
        actual_tensors = [tensor for tensor in actual if tensor is not None]
        if any(a.shape != e.shape or a.dtype != e.dtype for a, e in zip(actual, expected, strict=True)):
            raise ContractError(f"{name}: a batch of {len(batch)} gives shapes {[a.shape for a in actual]}")
        differing = (actual[0].argmax(1) != expected[0].argmax(1)) | (actual[1].argmax(1) != expected[1].argmax(1))
        labels_differing += int(differing.sum())
        # max() of Python passes over NaN, numpy's does not.
        logits_difference = float(np.maximum(logits_difference, np.abs(actual[0] - expected[0]).max()))
        probabilities_difference = float(np.maximum(probabilities_difference, np.abs(actual[1] - expected[1]).max()))
        compared += len(batch)
    if labels_differing:
        raise LabelsError(f"{name}: {labels_differing} of {compared} images are given another label")
    if not max(logits_difference, probabilities_difference) <= TOLERANCE or np.isnan(probabilities_difference):
        raise NumbersError(
            f"{name}: logits differ by up to {logits_difference:.3g}, probabilities by up to "
            f"{probabilities_difference:.3g}; tolerance {TOLERANCE:g}"
        )
    return Equivalence(compared, labels_differing, logits_difference, probabilities_difference, TOLERANCE)


def hard_cases(images: Images) -> list[Images]:
    """Batches of 1, 2, 7 and 64: black, white, noise, and real images."""
    noise = np.random.default_rng(0).integers(0, 256, (64, *images.shape[1:]), dtype=np.uint8)
    cases = []
    for size in BATCHES:
        shape = (size, *images.shape[1:])
        cases += [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise[:size], images[:size]]
    return cases

"""Read the network of a finished run or of a published version.

A published version holds no checkpoint, only files for inference. Its TorchScript file has all weights, but the export
has folded each BatchNorm that follows a convolution into it. :func:`_load_unfolded` undoes that.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from training import checkpoint
from training.networks import Network, build, classes_of, normalize
from training.origin import MANIFEST, RECORD, is_published, origin

TORCHSCRIPT, GOLDEN = "model.torchscript.pt", "golden.npz"


class Trained(NamedTuple):
    """A trained network, and what its classes are."""

    network: Network
    model: str
    labels: tuple[str, ...]
    digest: str
    """SHA-256 of the file of its weights."""


def read(place: str) -> Trained:
    """Return the network at ``place``.

    Raises:
        OSError, ValueError, KeyError, TypeError, RuntimeError, CheckpointError: it is not one, or it is damaged.
    """
    folder = origin(place)
    return _published(folder) if is_published(place) else _finished(folder)


def _finished(folder: Path) -> Trained:
    record, path = json.loads((folder / RECORD).read_bytes()), folder / "model.pt"
    content = path.read_bytes()
    saved, digest = checkpoint.from_bytes(content, path), hashlib.sha256(content).hexdigest()
    if digest != record["model_sha256"]:
        raise ValueError(f"{path} was changed after the training")
    network = build(saved["model"], classes_of(saved["weights"]))
    network.load_state_dict(saved["weights"])
    return Trained(network, saved["model"], tuple(record["dataset"]["labels"]), digest)


def _published(folder: Path) -> Trained:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    files = {name: (folder / name).read_bytes() for name in (TORCHSCRIPT, GOLDEN)}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != manifest["files"][name]["sha256"]:
            raise ValueError(f"{folder / name} does not match its manifest")
    model, labels = manifest["training"]["config"]["model"], tuple(manifest["labels"])
    network = build(model, len(labels))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        # Not by its path, because torch takes no path that is not UTF-8.
        graph = torch.jit.load(io.BytesIO(files[TORCHSCRIPT])).graph
    with np.load(io.BytesIO(files[GOLDEN]), allow_pickle=False) as archive:
        images = torch.from_numpy(archive["images"])
    _load_unfolded(network, _layers(graph), images)
    with torch.no_grad():
        # The export has divided the logits by the calibration temperature.
        network.head.weight.mul_(manifest["temperature"])
        network.head.bias.mul_(manifest["temperature"])
    return Trained(network, model, labels, manifest["files"][TORCHSCRIPT]["sha256"])


def _layers(graph: Any) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the kind and the constant tensors of each layer of a frozen graph, in its order.

    Of a cascade, these are the layers of the second network. It is in the branch of the images that are left.
    """
    kinds = {"aten::_convolution": "convolution", "aten::batch_norm": "norm", "aten::linear": "linear"}
    branches = (next(node.blocks()) for node in graph.nodes() if node.kind() == "prim::If")
    for node in next(branches, graph).nodes():
        if node.kind() in kinds:
            constants = [each.node() for each in node.inputs() if each.node().kind() == "prim::Constant"]
            tensors = [each.t("value") for each in constants if each.output().type().kind() == "TensorType"]
            yield kinds[node.kind()], tensors


def _load_unfolded(network: Network, layers: Iterator[tuple[str, list[Tensor]]], images: Tensor) -> None:
    """Copy the weights of ``layers`` into ``network``. A BatchNorm that was folded gets the statistics of ``images``.

    The convolution before it computes already what both computed before, so the BatchNorm must change nothing. In
    training it subtracts the mean of the batch and divides by its deviation. So its scale is the deviation and its
    shift the mean, as on ``images``.
    """
    found = next(layers)
    folded: dict[nn.BatchNorm2d, Tensor | None] = {}
    bias: Tensor | None = None
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and found[0] != "norm":
                folded[module] = bias
            elif isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                tensors = found[1]
                if isinstance(module, nn.Conv2d):
                    bias = tensors[1] if len(tensors) > 1 else None
                    tensors = tensors[:1]
                for name, tensor in zip(("weight", "bias", "running_mean", "running_var"), tensors, strict=False):
                    getattr(module, name).copy_(tensor)
                found = next(layers, ("end", []))
    network.eval()
    for norm, shift in folded.items():
        _set_statistics(network, norm, shift, images)
    network.train()


def _set_statistics(network: Network, norm: nn.BatchNorm2d, bias: Tensor | None, images: Tensor) -> None:
    """Make the BatchNorm add ``bias``, and give it the mean and the deviation of its input on ``images``."""
    seen: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(normalize(images))
        handle.remove()
        mean, variance = seen[0].mean(dim=(0, 2, 3)), seen[0].var(dim=(0, 2, 3))
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean if bias is None else mean + bias)

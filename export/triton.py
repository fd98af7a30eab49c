"""The configuration with which Triton and KServe serve the model repository as mnist-serve does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from serving.models.bundle import ONNX, Manifest, Tensor
from serving.open_inference.messages import DATATYPES
from serving.settings import Settings
from training.checkpoint import write_atomically

CONFIG = "config.pbtxt"
CLASSES = re.compile(r"(?<=dims: \[-1, )\d+(?=\])")


def configuration(name: str, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> str:
    """Return the content of ``config.pbtxt`` for a model.

    The batch axis is part of every shape, and ``max_batch_size`` is 0. Otherwise Triton would give the novelty scores
    of N images the shape [N, 1], because it allows no output without another axis. Triton loads as many versions as
    mnist-serve does by default: if the newest cannot be loaded, the one before is served.
    """
    return "\n".join(
        [
            "# Written by mnist-export, for Triton and KServe.",
            f'name: "{name}"',
            'backend: "onnxruntime"',
            "max_batch_size: 0",
            f'default_model_filename: "{ONNX}"',
            f"version_policy {{ latest {{ num_versions: {Settings.versions} }} }}",
            f"input [{_tensors(inputs)}\n]",
            f"output [{_tensors(outputs)}\n]",
            "",
        ]
    )


def write(models: Path, manifest: Manifest) -> None:
    """Write the configuration of a model into its folder. One that a user has changed stays as it is.

    A user may have changed, for example, the number of instances.
    """
    config, path = configuration(manifest.name, manifest.inputs, manifest.outputs), models / CONFIG
    if not path.exists() or is_ours(path.read_text(errors="replace"), config):
        write_atomically(path, config.encode())


def is_ours(text: str, config: str) -> bool:
    """Return whether ``text`` is what the export wrote for the model, maybe for another number of classes."""
    return CLASSES.sub("", text) == CLASSES.sub("", config)


def _tensors(tensors: Iterable[Tensor]) -> str:
    return ",".join(
        f'\n  {{ name: "{tensor.name}" data_type: TYPE_{DATATYPES[tensor.dtype]} dims: {list(tensor.shape)} }}'
        for tensor in tensors
    )

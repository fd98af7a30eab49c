"""Export a ServingGraph, or a Cascade of two, to a TorchScript file, and load one."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from export.cascade import Cascade
from training.checkpoint import write_atomically
from training.networks import IMAGE_SIZE


def export_torchscript(graph: nn.Module, path: Path) -> None:
    """Trace ``graph``, a ServingGraph or a Cascade of two, freeze its weights into it, and write it to ``path``."""
    buffer = io.BytesIO()
    with _deprecation_ignored():
        torch.jit.save(torch.jit.freeze(_converted(graph)), buffer)
    # torch aborts the process when it cannot write a file, for example because the disk is full.
    write_atomically(path, buffer.getvalue())


def _converted(graph: nn.Module) -> torch.jit.ScriptModule:
    converted: torch.jit.ScriptModule
    if isinstance(graph, Cascade):
        # A trace would take the same way through the cascade for all images, so only its parts are traced.
        parts = (_converted(graph.first), _converted(graph.second))
        converted = torch.jit.script(Cascade(*parts, graph.share, graph.sure, graph.familiar))
    else:
        # With a batch of one, tracing could take the batch size for a constant.
        example = torch.zeros(2, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
        converted = torch.jit.trace(graph, (example,))
    return converted


def load_torchscript(path: Path) -> nn.Module:
    """Load a file that :func:`export_torchscript` wrote."""
    with _deprecation_ignored():
        # From memory, because torch takes no path that is not UTF-8.
        module: nn.Module = torch.jit.load(io.BytesIO(path.read_bytes()))
    return module


@contextmanager
def _deprecation_ignored() -> Iterator[None]:
    """Hide torch's warning that TorchScript is deprecated, because this project still delivers TorchScript files."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        yield

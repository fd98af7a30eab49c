"""ServingGraph to a TorchScript file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from training.networks import IMAGE_SIZE


def export_torchscript(graph: nn.Module, path: Path) -> None:
    """Trace ``graph``, freeze its weights into it, and write it to ``path``."""
    # A batch of 2: with one image a size that should be open could pass for a constant.
    example = torch.zeros(2, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    with torchscript_allowed():
        torch.jit.save(torch.jit.freeze(torch.jit.trace(graph, (example,))), path)


def load_torchscript(path: Path) -> nn.Module:
    """Load what :func:`export_torchscript` wrote."""
    with torchscript_allowed():
        module: nn.Module = torch.jit.load(path)
    return module


@contextmanager
def torchscript_allowed() -> Iterator[None]:
    """Within it, torch's warning that TorchScript is deprecated is not shown: we deliver it all the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        yield

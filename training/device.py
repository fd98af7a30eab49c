"""The device that networks are trained on: check it, and make its results repeatable."""

from __future__ import annotations

import os

import torch

from training.config import ConfigError
from training.reasons import first_line

CHOICES = "choose cpu, cuda, cuda:1 or mps"
# For a device that torch knows, but not on this machine or not in this build of torch.
ON_CPU = "leave --device out to train on the CPU, or install a build of torch for this device"


def check_device(name: str) -> None:
    """Compute something on the device ``name`` and read the result.

    Raises:
        ConfigError: that is not possible, for whatever reason.
    """
    try:
        torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: no device has this name; {CHOICES}") from error
    try:
        # torch knows devices that take a tensor, but give no number back.
        torch.ones(1, device=name).sum().item()
    except Exception as error:
        way_out = ON_CPU if name.startswith(("cuda", "mps")) else CHOICES
        raise ConfigError(f"--device {name}: {first_line(error)}; {way_out}") from error


def use_deterministic_operations() -> None:
    """Let every operation give equal results in every run. Call this before anything is computed on a GPU.

    An operation of torch that has no such form raises a RuntimeError that names it.
    """
    # cuBLAS reads this when it starts: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def is_deterministic(device: torch.device) -> bool:
    """Return whether equal settings give equal weights on ``device``."""
    return device.type == "cpu" or torch.are_deterministic_algorithms_enabled()

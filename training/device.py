"""Check that networks can be trained on a device."""

from __future__ import annotations

import torch

from training.config import ConfigError


def check_device(name: str) -> None:
    """Compute something on the device ``name`` and read the result.

    Raises:
        ConfigError: that is not possible, for whatever reason.
    """
    try:
        # torch knows devices that take a tensor, but give no number back.
        torch.ones(1, device=name).sum().item()
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ConfigError(f"--device {name}: {reason:.200}; choose cpu, cuda, cuda:1 or mps") from error

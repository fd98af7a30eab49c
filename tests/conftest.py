"""Fixtures that several subjects share: the real MNIST, and a way to run the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Tests run side by side on few cores; more threads each only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

BIN = Path(sys.executable).parent

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run one of the project's commands as a user would."""

    def run(command: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        line = [str(BIN / command), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, **options)

    return run


@pytest.fixture(scope="session")
def mnist():
    """Real MNIST with 5,000 images set aside for validation."""
    from training import data

    return data.load("mnist", validation=5000)

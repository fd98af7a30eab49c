"""Run a module of this program in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# The folder of the packages, which a notebook finds only because it is the current folder.
ROOT = Path(__file__).parents[1]


def start_module(name: str, **pipes: Any) -> subprocess.Popen[bytes]:
    """Start a module in a process that finds the same modules as this one. ``pipes`` are arguments of Popen.

    ``python -m`` alone would look into the current folder first, and take a file of the user, for example
    ``random.py``, for the module of that name.
    """
    places = [*filter(None, sys.path), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return subprocess.Popen([sys.executable, "-P", "-m", name], env=environment, **pipes)  # noqa: S603

"""Helpers for the tests of the files in deploy/: the folder, and other programs."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from tests.support import ROOT, missing

DEPLOY = ROOT / "deploy"


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)


def tool(name: str, package: str) -> str:
    """Return the path of a program, or skip the test."""
    return shutil.which(name) or missing(f"{name} ({package})")

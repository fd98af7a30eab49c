"""Which source and which machine made something: the git revision of this project, and the host."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
DISTRIBUTION = "mnist-service"


def revision() -> str:
    """Return the git revision of this source, with ``-dirty`` if tracked files have changed; empty if it is unknown.

    A package that pip installed from a git repository knows its revision. Otherwise git is asked, but only where the
    source itself is a checkout: an environment may lie in the repository of another project.
    """
    try:
        installed = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        commit = json.loads(installed or "{}").get("vcs_info", {}).get("commit_id")
    except importlib.metadata.PackageNotFoundError:
        commit = None
    if commit:
        return str(commit)
    if not (ROOT / ".git").exists():
        return ""
    found, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return f"{found}-dirty" if found and changes else found


def host() -> dict[str, str | int]:
    """Return the kind of machine, without its name."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": cpu(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
    }


def cpu() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10)  # noqa: S603, S607
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

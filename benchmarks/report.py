"""What every table of figures says of itself, and where it goes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import click


def conditions(*packages: str, also: str = "") -> str:
    """The machine, the versions, what else matters, and the command."""
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {versions}"
    return f"{machine}{also and f'; {also}'}\n`python {shlex.join(sys.orig_argv[1:])}`"


def tell(lines: Iterable[str], save: Path | None) -> None:
    """Print, and write to ``save`` too where there is one."""
    text = "\n".join(lines)
    click.echo(text)
    if save:
        save.write_text(text + "\n")

"""The Python environment of each peer, made from its requirements below build/peers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click

from benchmarks.harness import ROOT

ENVIRONMENTS = ROOT / "build" / "peers"


def make(name: str, requirements: Path, python: str = "") -> Path:
    """Return the folder of the programs of the environment ``name``, and make the environment if needed.

    It is made anew when the requirements have changed.

    Raises:
        click.ClickException: there is no such Python, or pip cannot install the requirements.
    """
    folder = ENVIRONMENTS / name
    installed = folder / "requirements.txt"
    if not installed.exists() or installed.read_text() != requirements.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        click.echo(f"installing {requirements.relative_to(ROOT)} into {folder.relative_to(ROOT)}", err=True)
        run([python or sys.executable, "-m", "venv", folder])
        pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        run([*pip, "--requirement", requirements])
        shutil.copy(requirements, installed)
    return folder / "bin"


def run(command: list[object]) -> None:
    """Run a command, and raise an exception with the last line of its output if it fails."""
    line = [str(word) for word in command]
    try:
        result = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise click.ClickException(f"{line[0]}: {error.strerror}") from error
    if result.returncode:
        last = (result.stdout.strip().splitlines() or ["no output"])[-1]
        raise click.ClickException(f"{' '.join(line[:3])}: {last}")

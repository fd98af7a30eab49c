"""The files of a run folder, and what to say if there is no finished run. This module loads no torch."""

from __future__ import annotations

import shlex
from pathlib import Path

from serving.models import bundle
from training.loop.lock import holder
from training.origin import RECORD

# How many other runs an error names.
SHOWN = 5


class ExportError(Exception):
    """The run cannot be exported. The message gives the reason and the way out."""


def read_file(folder: Path, name: str) -> bytes:
    """Return the content of a file of a finished run.

    Raises:
        ExportError: it is missing.
        OSError: it cannot be read.
    """
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not folder.is_dir():
            raise ExportError(
                f"{folder}: there is no such folder; name the run folder that mnist-train wrote"
            ) from error
        if (folder / bundle.MANIFEST).exists():
            verify = shlex.join(["mnist-export", "--verify", str(folder)])
            raise ExportError(f"{folder}: is a published version; name a run folder, or use {verify}") from error
        if training := holder(folder):
            raise ExportError(f"{folder}: {training} is still training in this folder; wait until it ends") from error
        if (folder / "last.pt").exists() or (folder / RECORD).exists():
            raise ExportError(f"{folder}: not a finished run, {name} is missing; {way_out(folder)}") from error
        runs = [str(path.parent) for path in sorted(folder.glob(f"*/{RECORD}"))[:SHOWN]]
        hint = f"name one of {', '.join(runs)}" if runs else "name the run folder that mnist-train wrote"
        raise ExportError(f"{folder}: holds no run; {hint}") from error


def way_out(folder: Path) -> str:
    """Return what to do about a run folder that lacks a file, or has another one."""
    if not (folder / "last.pt").exists():
        return "train it again, or name another folder"
    return f"finish it with {shlex.join(['mnist-train', '--output', str(folder), '--resume'])}, or name another folder"

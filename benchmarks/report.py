"""The conditions that stand above each table of results, and the output of the table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import click

PACKAGES = ("training", "export", "serving")


class SaveFile(click.Path):
    """A file for results. Its folder is checked before the measurements, which take minutes or hours."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = cast(Path, super().convert(value, param, ctx))
        if not os.access(path.parent, os.W_OK | os.X_OK):
            self.fail(f"{str(path)!r}: {path.parent} must be a folder that can be written", param, ctx)
        return path


save_option = click.option("--save", type=SaveFile(), help="Write the results to this file too.")


class Checkout(click.Path):
    """The folder of another checkout. In any other folder, Python would find this one, and compare it with itself."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, exists=True, file_okay=False, resolve_path=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = cast(Path, super().convert(value, param, ctx))
        if missing := next((name for name in PACKAGES if not (path / name / "__init__.py").is_file()), None):
            self.fail(f"{str(path)!r}: must be a checkout of this project, but has no {missing}/", param, ctx)
        return path


def conditions(*packages: str, also: str = "") -> str:
    """Return the machine, the versions of the packages, the text ``also``, and on a second line the command."""
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {versions}"
    spec = sys.modules["__main__"].__spec__
    assert spec, "a benchmark runs as python -m benchmarks.NAME"
    benchmark = spec.name.removesuffix(".__main__")
    return f"{machine}{also and f'; {also}'}\n`{shlex.join(['python', '-m', benchmark, *sys.argv[1:]])}`"


def tell(lines: Iterable[str], save: Path | None) -> None:
    """Print the lines, and write them to the file ``save`` if it is given."""
    text = "\n".join(lines)
    click.echo(text)
    if save:
        save.write_text(text + "\n")

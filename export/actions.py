"""What the command mnist-export does with a run or a bundle, and prints about it. Importing this file loads torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from export.earlier import compared
from export.equivalence import EquivalenceError
from export.folder import ExportError
from export.gate import AlreadyPublishedError, Gate, GateError
from export.onnx_process import OnnxProcess
from export.publishing import publish
from export.run import Run
from export.sign import Signer
from export.table import table
from export.verify import verify_bundle
from serving.errors import BundleError, SettingsError, first_line
from serving.models.bundle import ONNX, Bundle
from serving.models.trust import Trust
from training.checkpoint import CheckpointError
from training.command import print_output
from training.data.errors import DataError
from training.loop.progress import Progress
from training.memory import is_memory_error, no_garbage_collection
from training.track import mlflow
from training.track.shown import TrackingError


@contextmanager
def explained(repository: Path, failed: str) -> Iterator[None]:
    """Turn the errors of the block into one line, which begins with ``failed``, such as "not published"."""
    try:
        yield
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except GateError as error:
        raise click.ClickException(f"{failed}: {error}") from error
    except EquivalenceError as error:
        raise click.ClickException(f"{failed}: {type(error).__name__}: {error}") from error
    except (BundleError, CheckpointError, DataError, ExportError, TrackingError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        where = error.filename or repository
        raise click.ClickException(f"{failed}: {where}: {error.strerror or error}") from error
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        raise click.ClickException(f"{failed}: not enough memory: {first_line(error)}") from error


def verify(folder: Path, data: Path | None, trust: str, progress: Progress) -> None:
    """Verify a published bundle again, and print its manifest."""
    with progress.waiting(f"verifying {folder}", late=True):
        bundle = verify_bundle(folder, data, Trust.of(trust))
    signed = f" It is what {trust} signed." if trust else ""
    print_output(f"{table(bundle)}\n\n{folder} matches its manifest and gives the certified results here too.{signed}")


def publish_run(
    run: Path,
    first: Path | None,
    repository: Path,
    name: str | None,
    data: Path | None,
    *,
    int8: bool,
    opset: int,
    gate: Gate,
    signer: Signer | None,
    progress: Progress,
    beside: OnnxProcess | None,
) -> Bundle | None:
    """Publish a run, and return the new bundle. If the newest version was made from it, say so and return None."""
    try:
        with no_garbage_collection():
            return publish(
                Run.read(run).after(Run.read(first)) if first else Run.read(run),
                repository,
                name,
                data,
                int8=int8,
                opset=opset,
                gate=gate,
                sign=signer,
                progress=progress,
                beside=beside,
            )
    except AlreadyPublishedError as error:
        if signer:
            signer(error.bundle.folder)
        done = f"It is signed with {signer.key} now." if signer else "Nothing was changed."
        print_output(f"{table(error.bundle)}\n\nAlready published   {error}. {done}")
        return None


def register(run: Path, bundle: Bundle) -> str:
    """Register a published bundle in MLflow. Return the line to print about it, or print a warning if that failed."""
    tags = {"version": str(bundle.manifest.version), "sha256": bundle.manifest.files[ONNX].sha256}
    try:
        number = mlflow.register(run, bundle.folder, bundle.manifest.name, tags)
    except TrackingError as error:
        click.echo(f"WARNING: {error}: the version is published, but not registered", err=True)
        return ""
    return f"Registered  {bundle.manifest.name} version {number} in MLflow\n"


def print_published(bundle: Bundle, repository: Path, registered: str) -> None:
    """Print the manifest of a new bundle, where it is, and the next command."""
    before = f"Compared    {line}\n" if (line := compared(bundle, repository)) else ""
    model = [] if bundle.manifest.name == "mnist" else ["--model", bundle.manifest.name]
    print_output(
        f"{table(bundle)}\n\n"
        f"Published   {bundle.folder}\n"
        f"{before}"
        f"{registered}"
        f"Next        {shlex.join(['mnist-serve', '--repository', str(repository), *model])}"
    )

"""The command mnist-export: publish a finished run as a verified bundle, or verify a published bundle again."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from serving.models.bundle import Bundle
from serving.settings import NAME_PATTERN, NAME_RULE
from training.command import Command, Folder, ending_at_once, naming_what_is_missing, print_output
from training.memory import is_memory_error

EXAMPLES = """
\b
Examples:
  mnist-export runs/cnn --repository models
  mnist-export runs/cnn --repository models --int8
  mnist-export --verify models/mnist/1
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("run", required=False, type=Folder())
@click.option(
    "--repository",
    type=Folder(),
    default=Path("models"),
    show_default=True,
    help="Model repository to publish into. The bundle becomes the next version.",
)
@click.option("--name", help="Name of the model.  [default: the name of the data set]")
@click.option(
    "--data",
    type=Folder(),
    envvar="MNIST_DATA",
    show_envvar=True,
    help="Folder with the data set, as for mnist-train.",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Also add a quantized ONNX file. The service then uses the faster of the two ONNX files.",
)
@click.option(
    "--verify",
    type=Folder(),
    metavar="BUNDLE",
    help="Export nothing. Verify the published BUNDLE again: digests, tensors, golden images, and every figure of the "
    "manifest that can be computed.",
)
@click.version_option(package_name="mnist-service")
def main(
    run: Path | None, repository: Path, name: str | None, data: Path | None, int8: bool, verify: Path | None
) -> None:
    """Export a finished run to ONNX and TorchScript, verify both files, and publish them.

    RUN is the run folder that mnist-train wrote. Each file is loaded again and compared with the network on the whole
    test set. If a file is not equivalent to the network, nothing is published.
    """
    if (run is None) == (verify is None):
        raise click.UsageError("give either the run folder to export, or --verify with a published bundle")
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        raise click.UsageError(f"--name {name}: {NAME_RULE}")
    with ending_at_once(), naming_what_is_missing("mnist-export"):
        from export.equivalence import EquivalenceError
        from export.publish import publish
        from export.run import ExportError, Run
        from export.verify import verify_bundle
        from serving.errors import BundleError
        from training.checkpoint import CheckpointError
        from training.data.sources import DataError
    try:
        if verify is not None:
            bundle = verify_bundle(verify, data)
            print_output(
                f"{certificate(bundle)}\n\n{verify} matches its manifest and gives the certified results here too."
            )
            return
        assert run is not None  # noqa: S101 (checked above)
        bundle = publish(Run.read(run), repository, name, data, int8=int8, tell=lambda text: click.echo(text, err=True))
    except EquivalenceError as error:
        raise click.ClickException(f"not published: {type(error).__name__}: {error}") from error
    except (BundleError, CheckpointError, DataError, ExportError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        where = error.filename or repository
        raise click.ClickException(f"not published: {where}: {error.strerror or error}") from error
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        raise click.ClickException(f"not published: not enough memory: {str(error).splitlines()[0]:.200}") from error
    model = [] if bundle.manifest.name == "mnist" else ["--model", bundle.manifest.name]
    print_output(
        f"{certificate(bundle)}\n\n"
        f"Published   {bundle.folder}\n"
        f"Next        {shlex.join(['mnist-serve', '--repository', str(repository), *model])}"
    )


def certificate(bundle: Bundle) -> str:
    """Return the manifest as text with tables."""
    manifest = bundle.manifest
    config, test = manifest.training["config"], manifest.result["test"]
    lines = [
        f"{manifest.name} version {manifest.version}: {config['model']}, {manifest.parameters:,} parameters, "
        f"trained on {config['dataset']}, epochs: {config['epochs']}",
        f"test set: {test['correct']} of {test['images']} correct ({test['accuracy']:.2%}), "
        f"loss {test['loss']:.4f} after calibration",
        "",
        f"{'format':12} {'images':>7} {'labels differ':>14} {'logits differ':>14} {'tolerance':>10}",
    ]
    lines += [
        f"{name:12} {found.images:7} {found.labels_differing:14} "
        f"{found.logits_difference:14.2g} {found.tolerance:10.0e}"
        for name, found in manifest.equivalence.items()
    ]
    if manifest.novelty:
        lines += [
            "",
            f"calibration temperature {manifest.temperature:.3f}, "
            f"rejection threshold {manifest.novelty.threshold:.3f}: "
            f"{manifest.novelty.false_rejections['test']:.2%} of the test digits are rejected",
        ]
    if manifest.microseconds:
        lines += ["", f"{'file':22} {'correct':>8} {'us per image':>12}"]
        lines += [
            f"{name:22} {manifest.correct[name]:8} {spent:12.1f}{'  served' if name == manifest.serve else ''}"
            for name, spent in manifest.microseconds.items()
        ]
    lines += ["", f"{'file':22} {'bytes':>8}  SHA-256"]
    lines += [f"{name:22} {file.bytes:8}  {file.sha256}" for name, file in manifest.files.items()]
    return "\n".join(lines)

"""mnist-export: load, convert, verify, publish, print the certificate."""

from __future__ import annotations

from pathlib import Path

import click

from serving.models.bundle import Bundle

EXAMPLES = """
\b
Examples:
  mnist-export runs/cnn --repository models
  mnist-export runs/cnn --repository models --int8
  mnist-export --verify models/mnist/1
"""


@click.command(epilog=EXAMPLES)
@click.argument("run", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("models"),
    show_default=True,
    help="Model repository to publish into, as the next version.",
)
@click.option("--name", help="Name of the model.  [default: that of the data set]")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MNIST_DATA",
    show_envvar=True,
    help="Folder with the data set, as for mnist-train.",
)
@click.option("--int8", is_flag=True, help="Add a quantized ONNX file; the faster of the two will be served.")
@click.option(
    "--verify",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="BUNDLE",
    help="Export nothing; check the published BUNDLE again: digests, contract, golden set, test images.",
)
@click.version_option(package_name="mnist-service")
def main(
    run: Path | None, repository: Path, name: str | None, data: Path | None, int8: bool, verify: Path | None
) -> None:
    """Export the finished run RUN to ONNX and TorchScript, prove both equal to it, and publish them."""
    if (run is None) == (verify is None):
        raise click.UsageError("name the run folder to export, or --verify a published bundle")
    try:
        from export import publish as publishing
        from export.equivalence import EquivalenceError
        from serving.errors import BundleError
        from training.checkpoint import CheckpointError
        from training.data.sources import DataError
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"mnist-export needs {error.name}, which is not installed: pip install 'mnist-service[export]'"
        ) from error
    try:
        if verify is not None:
            bundle = publishing.verify(verify, data)
            click.echo(f"{certificate(bundle)}\n\n{verify} is what its manifest says, and computes it here.")
            return
        assert run is not None  # noqa: S101 (checked above)
        bundle = publishing.publish(publishing.Run.read(run), repository, name, data, int8=int8)
    except (EquivalenceError, BundleError, CheckpointError, DataError, publishing.ExportError, OSError) as error:
        reason = (
            f"not published: {type(error).__name__}: {error}" if isinstance(error, EquivalenceError) else str(error)
        )
        raise click.ClickException(reason) from error
    click.echo(
        f"{certificate(bundle)}\n\n"
        f"Published   {bundle.folder}\n"
        f"Next        mnist-serve --repository {repository}"
        + ("" if bundle.manifest.name == "mnist" else f" --model {bundle.manifest.name}")
    )


def certificate(bundle: Bundle) -> str:
    """The manifest as a table."""
    manifest = bundle.manifest
    config, test = manifest.training["config"], manifest.result["test"]
    lines = [
        f"{manifest.name} version {manifest.version}: {config['model']}, {manifest.parameters:,} parameters, "
        f"{config['epochs']} epochs of {config['dataset']}",
        f"test set: {test['correct']} of {test['images']} right ({test['accuracy']:.2%}), loss {test['loss']:.4f}",
        "",
        f"{'format':12} {'images':>7} {'labels differ':>14} {'logits differ':>14} {'tolerance':>10}",
    ]
    lines += [
        f"{name:12} {same.images:7} {same.labels_differing:14} {same.logits_difference:14.2g} {same.tolerance:10.0e}"
        for name, same in manifest.equivalence.items()
    ]
    if manifest.novelty:
        lines += [
            "",
            f"temperature {manifest.temperature:.3f}; not accepted above novelty {manifest.novelty.threshold:.3f}: "
            f"{manifest.novelty.false_rejections['test']:.2%} of the test digits",
        ]
    if manifest.microseconds:
        lines += ["", f"{'file':22} {'right':>8} {'us an image':>12}"]
        lines += [
            f"{name:22} {manifest.correct[name]:8} {spent:12.1f}{'  served' if name == manifest.serve else ''}"
            for name, spent in manifest.microseconds.items()
        ]
    lines += ["", f"{'file':22} {'bytes':>8}  SHA-256"]
    lines += [f"{name:22} {file.bytes:8}  {file.sha256}" for name, file in manifest.files.items()]
    return "\n".join(lines)

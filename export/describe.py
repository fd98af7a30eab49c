"""Describe a bundle: measure it, and write its provenance, its model card and its manifest.

    python -m export.describe BUNDLE [--data FOLDER]

This command describes a published bundle of an older version. Its other files stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from export.measure import DrawnSet, measure
from export.provenance import statement
from export.reference import reference_of
from serving.contract import ModelOutput
from serving.errors import BundleError
from serving.models import bundle, card
from serving.models.bundle import Manifest
from serving.models.classifier import Classifier
from serving.models.model import load_folder
from training import checkpoint
from training.data.digits import Splits
from training.data.errors import DataError
from training.data.load import Selection, load_data


def describe(
    folder: Path,
    manifest: Manifest,
    splits: Splits,
    output: ModelOutput | None = None,
    drawn: Sequence[DrawnSet] | None = None,
) -> Manifest:
    """Measure the bundle in ``folder``, write its other files, and return its manifest. ``write`` makes it final.

    Args:
        manifest: lists the model files and the golden images only.
        output: what the served file gives for the test images, if it was computed before.
        drawn: the other sets of images, if they were drawn before.
    """
    write(folder, manifest)
    results = measure(load_folder(folder), splits, output, drawn)
    reference = reference_of(manifest, Classifier(folder / manifest.serve), splits.validation.images.numpy())
    return msgspec.structs.replace(manifest, **results._asdict(), reference=reference)


def write(folder: Path, manifest: Manifest) -> Manifest:
    """Write the provenance, the card and the manifest, in this order: each certifies those before it."""
    made = {name: file for name, file in manifest.files.items() if name not in (bundle.PROVENANCE, bundle.CARD)}
    manifest = msgspec.structs.replace(manifest, files=made)
    checkpoint.write_atomically(folder / bundle.PROVENANCE, statement(manifest))
    manifest = _with(manifest, folder, bundle.PROVENANCE)
    checkpoint.write_atomically(folder / bundle.CARD, card.to_readme(manifest).encode())
    manifest = _with(manifest, folder, bundle.CARD)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    checkpoint.write_atomically(folder / bundle.MANIFEST, text + b"\n")
    return manifest


def _with(manifest: Manifest, folder: Path, name: str) -> Manifest:
    return msgspec.structs.replace(manifest, files=manifest.files | {name: bundle.file_of(folder / name)})


@click.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data", type=click.Path(path_type=Path), help="Folder with the data set, as for mnist-train.")
def main(folder: Path, data: Path | None) -> None:
    """Measure the published BUNDLE and write its model card. Its model files stay as they are."""
    if (folder / bundle.SIGNATURE).exists():
        raise click.ClickException(f"{folder} is signed: describe an unsigned copy of it, and sign that")
    try:
        _describe_again(folder, data)
    except (BundleError, DataError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder}: {error.strerror or error}") from error
    click.echo(f"{folder / bundle.CARD}")


def _describe_again(folder: Path, data: Path | None) -> None:
    manifest = load_folder(folder).bundle.manifest
    config, said = manifest.training["config"], manifest.training["dataset"]
    if said.get("own"):
        raise click.ClickException(f"{folder} was trained on somebody's own data: export its run again instead")
    selection = Selection(manifest.prepare, data, validation=config["validation"], subset=config["subset"])
    splits = load_data(said["name"], selection)
    write(folder, describe(folder, manifest, splits))
    load_folder(folder)


if __name__ == "__main__":
    main()

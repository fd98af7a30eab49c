"""Which runtimes read an exported file, and how far their results are from those of the service.

    python -m benchmarks.runtimes [BUNDLE...] [--save FILE]

Each runtime is installed into an environment of its own, and runs the same test images with a small program. A column
of the table is an ONNX file of a bundle; torch reads the TorchScript file of the bundle. All are compared with what
this project's onnxruntime computes from the bundle's float32 file.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np

from benchmarks import report
from benchmarks.runtimes.runtimes import RUNTIMES, Runtime, RuntimeFailedError, run
from serving.contract import Images, ModelOutput
from serving.models import bundle
from serving.models.bundle import Bundle
from serving.models.classifier import Classifier
from serving.settings import RELEASE
from training.data.digits import load

FOLDER = Path(__file__).parents[2] / "build" / "runtimes"


@click.command()
@click.argument("bundles", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--images",
    default=500,
    show_default=True,
    type=click.IntRange(min=1),
    help="Test images of MNIST that each runtime classifies.",
)
@click.option("--only", default="", help="Leave out runtimes whose name does not contain this.")
@click.option(
    "--environments",
    type=click.Path(path_type=Path),
    default=FOLDER,
    help="Folder of the environments. They are kept: 7 GB, of which torch has 5.  [default: build/runtimes]",
)
@report.save_option
def main(bundles: tuple[Path, ...], images: int, only: str, environments: Path, save: Path | None) -> None:
    """Run the files of the published BUNDLES, by default the packaged one, in many runtimes."""
    chosen = [runtime for runtime in RUNTIMES if only in runtime.name]
    if not chosen:
        names = ", ".join(dict.fromkeys(runtime.name for runtime in RUNTIMES))
        raise click.UsageError(f"--only {only}: is in no name of a runtime; the names are {names}")
    digits = load("mnist").test.images.numpy()[:images]
    files = [
        (found, name)
        for found in map(bundle.read, bundles or (RELEASE / "mnist" / "1",))
        for name in (bundle.ONNX, bundle.INT8)
        if name in found.manifest.files
    ]
    expected = {found.folder: Classifier(found.folder / bundle.ONNX).classify(digits) for found, _ in files}
    head = ["runtime", "version", *(title(found, name) for found, name in files), "note"]
    lines = [
        f"{len(digits)} test images of MNIST. A cell has the labels that differ, and the largest difference of a",
        "probability, from what onnxruntime gives here for the float32 file.",
        "",
        report.conditions("onnxruntime", "onnx"),
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    failures = []
    for runtime in chosen:
        click.echo(f"{runtime.name} {' '.join(runtime.requirements[:1])}", err=True)
        cells, version = [], asked(runtime)
        for found, name in files:
            try:
                cell, told = compared(runtime, environments, found, name, digits, expected[found.folder])
                version = told or version
            except RuntimeFailedError as error:
                cell = "does not run"
                failures.append(f"- {runtime.name} {version}, {title(found, name)}: {str(error)[:600]}")
            cells.append(cell)
        lines.append(f"| {' | '.join([runtime.name, version, *cells, runtime.note])} |")
    report.tell([*lines, "", *failures], save)


def title(found: Bundle, name: str) -> str:
    packaged = "packaged, " if found.folder.resolve().is_relative_to(RELEASE.resolve()) else ""
    return f"{packaged}opset {found.manifest.versions['opset']}{', int8' if name == bundle.INT8 else ''}"


def asked(runtime: Runtime) -> str:
    """Return the version that is installed for a runtime, as far as its requirements tell it."""
    return re.split("==|@", runtime.requirements[0])[1].partition(";")[0] if runtime.requirements else ""


def compared(
    runtime: Runtime, environments: Path, found: Bundle, name: str, digits: Images, expected: ModelOutput
) -> tuple[str, str]:
    """Return the cell of the table for a file, and the version of the runtime. Both are empty if it reads other files.

    Raises:
        RuntimeFailedError: it does not run the file.
    """
    file = runtime.file(name)
    if file is None:
        return "", ""
    version, outputs = run(runtime, environments, found.folder / file, digits, len(found.manifest.labels))
    differing = int((outputs[0].argmax(axis=1) != expected.logits.argmax(axis=1)).sum())
    return f"{differing}; {np.abs(outputs[1] - expected.probabilities).max():.1g}", version


if __name__ == "__main__":
    main()

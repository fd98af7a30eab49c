"""The Python interface of the export: publish a run, as ``mnist-export`` does, and look at its manifest."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.python.needs import needing_torch

if TYPE_CHECKING:
    from serving.models.bundle import Manifest


@dataclass(frozen=True, repr=False)
class PublishedModel(os.PathLike[str]):
    """A published version. It can stand wherever a path can, for example in ``serving.load(model)``."""

    folder: Path
    manifest: Manifest
    """The manifest: classes, results, and how far each file differs from the network."""
    is_new: bool = True
    """False if the newest version was already made from the same run, so that nothing was published."""
    compared: str = ""
    """Its errors on the test set, and those of the version before. Empty if the two cannot be compared."""

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __repr__(self) -> str:
        from export.table import table
        from serving.models.bundle import Bundle

        return table(Bundle(self.folder, self.manifest))

    def _repr_html_(self) -> str:
        from training.python.results import as_table

        manifest = self.manifest
        test: Mapping[str, Any] = manifest.result["test"]
        facts = {
            "model": f"{manifest.name}, version {manifest.version}",
            "folder": str(self.folder),
            "classes": str(len(manifest.labels)),
            "test accuracy": f"{test['accuracy']:.2%} ({test['correct']:,} of {test['images']:,})",
        }
        formats = [
            (name, found.images, found.labels_differing, f"{found.logits_difference:.2g}", f"{found.tolerance:.0e}")
            for name, found in manifest.equivalence.items()
        ]
        head = ("format", "images compared", "labels differ", "logits differ", "tolerance")
        files = [(name, f"{file.bytes:,}", file.sha256) for name, file in manifest.files.items()]
        title = html.escape(f"Manifest of {manifest.name}")
        tables = [as_table(facts.items()), as_table(formats, head), as_table(files, ("file", "bytes", "SHA-256"))]
        return f"<b>{title}</b>{''.join(tables)}"


def publish(
    run: str | os.PathLike[str],
    repository: str | os.PathLike[str] = "models",
    *,
    name: str | None = None,
    first: str | os.PathLike[str] | None = None,
    int8: bool = False,
    opset: int | None = None,
    min_accuracy: float = 0.0,
    not_worse_than: int | str | None = None,
    margin: float | None = None,
    sign: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> PublishedModel:
    """Export a finished run to ONNX and TorchScript, verify both, and publish them as the next version of the model.

    If the newest version was already made from the same run, nothing is published, and that version is returned.

    Args:
        run: the run folder, or what :func:`training.train` returned.
        repository: the model repository; the folder is made if it is missing.
        name: name of the model; the default is the name of the data set.
        first: the run folder of a smaller network on the same data. It decides the images that it is sure about, and
            both networks decide the rest, so most images take less time.
        int8: also add a quantized ONNX file.
        opset: the opset of the ONNX files, from 18 to 23; by default 18. Older runtimes read a lower one.
        min_accuracy: publish only a run with at least this accuracy on the test set, from 0 to 1.
        not_worse_than: publish only a run that is not worse than this version; ``"served"`` is the newest one.
        margin: how much of its accuracy on a replay data set a run may have lost, from 0 to 1; by default 0.0005.
        sign: sign the version with this private key, a file in PEM. Needs the extra ``sign``.
        source: folder with the files of a known data set; the default is the variable ``MNIST_DATA``.
        progress: print a line for each step that takes seconds, and how the errors compare with the version before.

    Raises:
        ExportError: the run is not finished, or it cannot be published under this name or with this opset.
        GateError: the run is not accurate enough.
        EquivalenceError: an exported file does not give the results of the network. Nothing is published.
        BundleError: the service could not load the finished bundle.
        DataError: the test images could not be found.
        OSError: a file could not be written.
    """
    with needing_torch("export.publish"):
        from export import opset as opsets
        from export.earlier import compared
        from export.gate import AlreadyPublishedError, Gate
        from export.publishing import publish as publish_run
        from export.run import Run
        from export.sign import Signer
        from training.loop.progress import Progress

    models = Path(repository).expanduser()
    place = source or os.environ.get("MNIST_DATA")
    shown = Progress(sys.stdout if progress else None)
    served = None if not_worse_than is None else str(not_worse_than)
    gate = Gate(min_accuracy, served) if margin is None else Gate(min_accuracy, served, margin)
    signer = None if sign is None else Signer(os.fspath(sign))
    try:
        exported = Run.read(Path(run).expanduser())
        bundle = publish_run(
            exported if first is None else exported.after(Run.read(Path(first).expanduser())),
            models,
            name,
            Path(place).expanduser() if place else None,
            int8=int8,
            opset=opsets.DEFAULT if opset is None else opset,
            gate=gate,
            sign=signer,
            progress=shown,
        )
    except AlreadyPublishedError as error:
        if signer:
            signer(error.bundle.folder)
        return PublishedModel(error.bundle.folder, error.bundle.manifest, is_new=False)
    finally:
        shown.clear()
    if line := compared(bundle, models):
        shown.line(line)
    return PublishedModel(bundle.folder, bundle.manifest, compared=line)

"""Publish a finished run as the next version of a model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import msgspec

from export import describe, metadata, triton
from export import opset as opsets
from export.build import build, versions_of
from export.fit_cascade import fit_cascade
from export.folder import ExportError
from export.gate import Gate, check_classes, check_new
from export.history import next_version
from export.onnx_process import OnnxProcess
from export.run import Run
from export.staging import moved, staging_folder
from serving.models import bundle, disk
from serving.models.bundle import Bundle
from serving.models.model import load_folder
from serving.settings import NAME_RULE
from training.loop.progress import Progress


def publish(
    run: Run,
    repository: Path,
    name: str | None = None,
    data: Path | None = None,
    *,
    int8: bool = False,
    opset: int = opsets.DEFAULT,
    gate: Gate = Gate(),  # noqa: B008 (it is immutable)
    sign: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
    beside: OnnxProcess | None = None,
) -> Bundle:
    """Export ``run``, verify every format on the whole test set, and publish the bundle as the next version.

    Args:
        run: a finished run, or one :meth:`export.run.Run.after` another.
        repository: the model repository; the folder is made if it is missing.
        name: name of the model; the default is the name of the data set.
        data: folder with the data set; see :func:`training.data.sources.fetch`.
        int8: also add a quantized ONNX file; the manifest then names the faster file as the one to serve.
        opset: the opset of the ONNX files; see :func:`export.onnx.export_onnx`.
        gate: the accuracy that the run must have.
        sign: signs a folder, such as an :class:`export.sign.Signer`.
        progress: shows each step that takes seconds.
        beside: the process that writes the ONNX file, if the caller has started one.

    Raises:
        GateError: the run is not accurate enough.
        AlreadyPublishedError: the newest version was made from the same run.
        ExportError: the name is not a valid model name, the newest version has classes that the run lacks, the opset is
            not a known one, a cascade should be quantized, there is no higher version number, or nothing can be signed.
        EquivalenceError: a format is not equivalent. No file and no new folder is left.
        BundleError: the service could not load the finished bundle.
        DataError: the test images could not be found.
        OSError: a file could not be written.
    """
    name = name or run.record["dataset"]["name"]
    if not disk.NAME.fullmatch(name):
        raise ExportError(f"{name!r} is not a valid model name: it {NAME_RULE}; choose one with --name")
    if type(opset) is not int or not opsets.LOWEST <= opset <= opsets.HIGHEST:
        raise ExportError(f"opset {opset!r}: must be a whole number from {opsets.LOWEST} to {opsets.HIGHEST}")
    if int8 and run.first:
        raise ExportError("--int8 cannot quantize a cascade of two networks; leave out --int8 or --first")
    check_classes(run, repository, name)
    progress = progress or Progress(None)
    splits = None
    if not run.first:
        gate.check(run, repository, name)
    else:
        with progress.waiting("fitting the cascade"):
            splits = run.splits(data)
            run = fit_cascade(run, splits)
    check_new(run, repository, name, int8=int8, versions=versions_of(run, opset))
    splits = splits or run.splits(data)
    models = repository / name
    # The process ends before the folder is removed, so that it cannot write there any longer.
    with staging_folder(models) as staging, beside or nullcontext():
        manifest = build(staging, run, splits, name, int8=int8, opset=opset, progress=progress, beside=beside)
        if run.first:
            # Only now is it known how accurate the two networks are together.
            gate.check_result(run.folder, manifest.result, manifest.training["dataset"], repository, name)
        while True:
            version = next_version(repository, name)
            if version > disk.MAX_VERSION:
                raise ExportError(f"{models} has version {version - 1}, the highest that is possible; remove it")
            # Another export of the same run may have been faster.
            check_new(run, repository, name, int8=int8, versions=manifest.versions)
            manifest = metadata.write(staging, msgspec.structs.replace(manifest, version=version))
            manifest = describe.write(staging, manifest)
            if sign:
                sign(staging)
            # Load and run the bundle as the service will, before anybody can see it.
            load_folder(staging)
            triton.write(models, manifest)
            # When two exports run at the same time, the slower one tries the next number.
            if moved(staging, models / str(version)):
                return bundle.read(models / str(version))

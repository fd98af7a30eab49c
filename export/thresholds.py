"""Fit the thresholds of acceptance for a published bundle again, through its ONNX file. The run folder is not needed.

    python -m export.thresholds BUNDLE [--data FOLDER]

Only the two thresholds in the manifest change, their shares of rejected digits, and the reference histograms. The
bundle keeps its version, its model files and their digests. The results of the old thresholds are removed; ``python -m
export.describe`` measures them again. A bundle whose ONNX file holds its thresholds is left alone: calibrate its run
again with ``mnist-train --output RUN --resume``, and export it.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import numpy as np
import onnx
import torch

from export import describe
from export.reference import reference_of
from serving.contract import ModelOutput
from serving.models import bundle
from serving.models.bundle import ConfidenceThreshold, Manifest, RejectionThreshold
from serving.models.classifier import Classifier
from serving.models.model import load_folder
from training.data.digits import Digits, load
from training.trust.acceptance import Scores, fit_thresholds
from training.trust.examples import styled

SEED = 0


def refitted(manifest: Manifest, classifier: Classifier, data: Path | None = None) -> Manifest:
    """Return the manifest with thresholds that are fitted to the validation digits of its run.

    Raises:
        DataError: the images could not be found.
    """
    config = manifest.training["config"]
    splits = load(config["dataset"], folder=data, validation=config["validation"], subset=config["subset"])
    validation = splits.validation
    in_styles = styled(validation, torch.Generator().manual_seed(SEED), manifest.labels)
    clean, test = (_scores(classifier.classify(each.images.numpy()), each) for each in (validation, splits.test))
    fitted = fit_thresholds(clean, _scores(classifier.classify(in_styles.numpy()), validation))
    shares = {"validation": fitted.false_rejections(clean), "test": fitted.false_rejections(test)}
    novelty, confidence = ({part: share[name] for part, share in shares.items()} for name in ("novelty", "confidence"))
    changed = msgspec.structs.replace(
        manifest,
        novelty=RejectionThreshold(fitted.novelty, novelty),
        confidence=ConfidenceThreshold(fitted.confidence, confidence),
    )
    return msgspec.structs.replace(changed, reference=reference_of(changed, classifier, validation.images.numpy()))


def _scores(output: ModelOutput, digits: Digits) -> Scores:
    return Scores.of(output.probabilities, output.novelty, np.asarray(digits.labels))


@click.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data", type=click.Path(path_type=Path), help="Folder with the data set, as for mnist-train.")
def main(folder: Path, data: Path | None) -> None:
    """Fit the thresholds of acceptance of BUNDLE again, and write them into its manifest."""
    if (folder / bundle.SIGNATURE).exists():
        raise click.ClickException(f"{folder} is signed: fit an unsigned copy of it, and sign that")
    found = load_folder(folder).bundle
    model = onnx.load(folder / bundle.ONNX)
    if any(entry.key == "threshold" for entry in model.metadata_props):
        raise click.ClickException(
            f"{folder / bundle.ONNX} holds its thresholds; calibrate its run again with --resume, and export it"
        )
    if not found.manifest.training["config"]["validation"]:
        raise click.ClickException(f"{folder} was trained without a validation set, on which thresholds are fitted")
    manifest = refitted(found.manifest, Classifier(folder / found.manifest.serve), data)
    describe.write(folder, msgspec.structs.replace(manifest, sets={}))
    load_folder(folder)
    assert manifest.confidence is not None  # noqa: S101 (it was fitted)
    click.echo(
        f"{folder}: highest novelty {manifest.novelty.threshold:.4f}, "
        f"lowest confidence {manifest.confidence.threshold:.4f}"
    )


if __name__ == "__main__":
    main()

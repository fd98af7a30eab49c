"""Time of ONNX models for one image, alone and in a batch, on one thread of this process.

``python -m benchmarks.inference OLD.onnx NEW.onnx`` runs the models in turn, so that all of them meet the same moments
of a busy machine. The first model is the one that the others are compared with.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.harness import PACKAGED_MODEL, golden_digits
from benchmarks.report import conditions
from serving.models.classifier import Classifier

ROUNDS = 200
# One call takes about 0.1 ms with one image, and a few ms with a batch. Both are repeated for about as long.
BATCHES = {1: 40, 64: 1}


@click.command()
@click.argument("models", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--save", type=click.Path(path_type=Path), help="Write the table to this file too.")
def main(models: tuple[Path, ...], save: Path | None) -> None:
    """Print the microseconds for an image of each of the MODELS. Without MODELS, measure the packaged one."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    paths = models or (PACKAGED_MODEL / "model.onnx",)
    classifiers = [Classifier(path) for path in paths]
    digits = golden_digits()[0]
    seconds = np.empty((ROUNDS, len(classifiers), len(BATCHES)))
    for measured in seconds:
        for i, classifier in enumerate(classifiers):
            for j, (batch, times) in enumerate(BATCHES.items()):
                images = np.resize(digits, (batch, 28, 28))
                started = time.perf_counter()
                for _ in range(times):
                    classifier.classify(images)
                measured[i, j] = (time.perf_counter() - started) / times / batch
    best, ratios = seconds.min(axis=0), np.median(seconds / seconds[:, :1], axis=0)
    lines = [
        conditions("onnxruntime", "numpy", also=f"one thread on one core, {ROUNDS} rounds, the models in turn"),
        "",
        "| model | us an image, alone | ratio | us an image, in batches of 64 | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    for path, (alone, many), (ratio_alone, ratio_many) in zip(paths, best * 1e6, ratios, strict=True):
        lines.append(f"| {path} | {alone:.1f} | {ratio_alone:.2f} | {many:.1f} | {ratio_many:.2f} |")
    lines += ["", "The times are the least of all rounds, and the ratios are medians of the ratios of each round."]
    click.echo("\n".join(lines))
    if save:
        save.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

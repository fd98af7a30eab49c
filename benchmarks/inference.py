"""Time of ONNX models for one image, alone and in a batch, on one thread of this process.

``python -m benchmarks.inference OLD.onnx NEW.onnx`` runs the models in turn, so that all of them meet the same moments
of a busy machine. The first model is the one that the others are compared with. A cascade takes longer for some digits
than for others, so the calls go through digits of the whole test set.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.digits import load_digits, spread
from benchmarks.harness import PACKAGED_MODEL
from benchmarks.report import conditions, save_option, tell
from serving.models.classifier import Classifier

ROUNDS = 20
# Images in a call, and calls in a round. A call takes about 0.1 ms with one image, and a few ms with a batch.
CALLS = {1: 1000, 64: 40}


@click.command()
@click.argument("models", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@save_option
def main(models: tuple[Path, ...], save: Path | None) -> None:
    """Print the microseconds for an image of each of the MODELS. Without MODELS, measure the packaged one."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    paths = models or (PACKAGED_MODEL / "model.onnx",)
    classifiers = [Classifier(path) for path in paths]
    digits = load_digits("test")[0]
    bodies = {batch: np.split(spread(digits, batch * calls), calls) for batch, calls in CALLS.items()}
    times: dict[int, list[float]] = {batch: [] for batch in CALLS}
    for batch, images in bodies.items():
        seconds = np.empty((ROUNDS, len(classifiers), len(images)))
        for measured in seconds:
            for row, classifier in zip(measured, classifiers, strict=True):
                for call, body in enumerate(images):
                    started = time.perf_counter()
                    classifier.classify(body)
                    row[call] = time.perf_counter() - started
        # The fastest of all rounds for each call: other programs slow down some of them.
        times[batch] = list(seconds.min(axis=0).mean(axis=1) / batch * 1e6)
    lines = [
        conditions("onnxruntime", "numpy", also=f"one thread on one core, {ROUNDS} rounds, the models in turn"),
        "",
        "| model | us an image, alone | ratio | us an image, in batches of 64 | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    for path, alone, many in zip(paths, times[1], times[64], strict=True):
        ratios = alone / times[1][0], many / times[64][0]
        lines.append(f"| {path} | {alone:.1f} | {ratios[0]:.2f} | {many:.1f} | {ratios[1]:.2f} |")
    lines += ["", "Means over MNIST's test digits. Of each call, the fastest round counts."]
    tell(lines, save)


if __name__ == "__main__":
    main()

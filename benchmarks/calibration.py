"""Compare the calibration of this checkout with that of another one, on the same trained networks.

    git worktree add /tmp/before COMMIT
    python -m benchmarks.calibration --against /tmp/before [--fashion FOLDER] [--seeds 5] [--model cnn] [--save FILE]

Each seed trains a network for one epoch on 10,000 images. Then each checkout calibrates it, in a process of its own.
The table has the figures of both on MNIST's test set. Images that are not digits are drawn with another seed than those
that the score is fitted on.

--fashion: see benchmarks/robustness.py. Without it, its rows are left out.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.footprint import seconds_of_ended_commands
from benchmarks.harness import ROOT
from benchmarks.report import Checkout, conditions, save_option, tell
from benchmarks.robustness import fashion_images
from training.augment.outliers import outliers
from training.config import TrainConfig
from training.data.digits import Digits, Splits, load
from training.evaluate import BATCH, Evaluation
from training.loop.batches import batches
from training.loop.inputs import inputs_of_steps
from training.loop.optimizers import rate_at
from training.loop.state import State
from training.loop.step import set_rate_and_decay, take_step
from training.networks import Network, normalize
from training.trust.calibrate import Calibration

VALIDATION, TRAINED_IMAGES = 5000, 10_000
OUTLIERS, OUTLIER_SEED = 5000, 12_345

# What a checkout runs: file with the weights, name of the network, seed, number of validation images, file to write.
CALIBRATE = """
import sys, torch
from training.data.digits import load
from training.networks import build
from training.trust.calibrate import calibrate
weights, model, seed, validation, output = sys.argv[1:]
network = build(model)
network.load_state_dict(torch.load(weights))
torch.save(calibrate(network, load("mnist", validation=int(validation)), int(seed)).state(), output)
"""


class Figures(NamedTuple):
    """What is measured of a calibration. The names stand in the table."""

    temperature: float
    calibration_error: float
    digits_rejected: float
    auroc_outliers: float
    outliers_rejected: float
    auroc_fashion: float = float("nan")
    fashion_rejected: float = float("nan")
    seconds: float = 0.0


TITLES = {
    "temperature": "calibration temperature",
    "calibration_error": "calibration error, %",
    "digits_rejected": "test digits rejected, %",
    "auroc_outliers": "novelty AUROC, test digits against drawn images that are not digits, %",
    "outliers_rejected": "drawn images rejected, %",
    "auroc_fashion": "novelty AUROC, test digits against Fashion-MNIST, %",
    "fashion_rejected": "Fashion-MNIST rejected, %",
    "seconds": "seconds of processor time of the process that calibrates",
}


def trained(model: str, seed: int, splits: Splits) -> Network:
    """Return a network after one epoch on :data:`TRAINED_IMAGES` images."""
    config = TrainConfig.of(model=model, epochs=1, ema=0.0, augment=0.0, seed=seed)
    train = Digits(splits.train.images[:TRAINED_IMAGES], splits.train.labels[:TRAINED_IMAGES])
    state = State.new(config, torch.device("cpu"))
    steps = -(-len(train) // config.batch_size)
    state.network.train()
    for size, parts in inputs_of_steps(state, batches(config, train, config.batch_size, 0, 0)):
        set_rate_and_decay(state, rate_at(config, state.step / steps))
        take_step(state, parts, size)
        state.step += 1
    return state.result.eval()


def calibrated(checkout: Path, weights: Path, model: str, seed: int) -> tuple[Calibration, float]:
    """Return the calibration of a checkout, and the processor time of its process in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "calibration.pt"
        command = [sys.executable, "-c", CALIBRATE, *map(str, (weights, model, seed, VALIDATION, output))]
        before = seconds_of_ended_commands()
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_WAIT_POLICY": "passive"}
        subprocess.run(command, check=True, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
        return Calibration.of(torch.load(output)), seconds_of_ended_commands() - before


def figures(
    network: Network, calibration: Calibration, digits: Digits, others: Tensor, fashion: Tensor | None, seconds: float
) -> Figures:
    logits, scores = outputs(network, calibration, digits.images)
    found = Figures(
        calibration.temperature,
        Evaluation(logits, digits.labels).calibration_error() * 100,
        (scores > calibration.threshold).float().mean().item() * 100,
        *against(scores, outputs(network, calibration, others)[1], calibration.threshold),
        seconds=seconds,
    )
    if fashion is None:
        return found
    auroc, share = against(scores, outputs(network, calibration, fashion)[1], calibration.threshold)
    return found._replace(auroc_fashion=auroc, fashion_rejected=share)


@torch.inference_mode()
def outputs(network: Network, calibration: Calibration, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits after division by the temperature, and the novelty scores."""
    logits, scores = [], []
    for batch in images.split(BATCH):
        features = network.features(normalize(batch))
        logits.append(network.head(features.vector) / calibration.temperature)
        scores.append(calibration.novelty(features, logits[-1]))
    return torch.cat(logits), torch.cat(scores)


def against(digits: Tensor, others: Tensor, threshold: float) -> tuple[float, float]:
    """Return the AUROC of the scores, and the share of the others that is rejected, in per cent."""
    truth = torch.cat([torch.zeros(len(digits)), torch.ones(len(others))])
    auroc = roc_auc_score(truth.numpy(), torch.cat([digits, others]).numpy())
    return float(auroc) * 100, (others > threshold).float().mean().item() * 100


def table(before: list[Figures], after: list[Figures]) -> list[str]:
    """Return the means and standard deviations over the seeds, and the difference with its standard error."""
    lines = ["| figure | other checkout | this checkout | difference |", "|---|---:|---:|---:|"]
    for name, title in TITLES.items():
        old, new = ([getattr(each, name) for each in column] for column in (before, after))
        if math.isnan(new[0]):  # Without --fashion, its rows are left out.
            continue
        changes = [b - a for a, b in zip(old, new, strict=True)]
        error = statistics.stdev(changes) / len(changes) ** 0.5
        cells = [f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" for values in (old, new)]
        lines.append(f"| {title} | {' | '.join(cells)} | {statistics.mean(changes):+.3f} ± {error:.3f} |")
    return lines


@click.command()
@click.option("--against", "other", required=True, type=Checkout(), help="Folder of the other checkout.")
@click.option("--fashion", type=click.Path(path_type=Path), help="Folder with Fashion-MNIST's test images.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(min=2), help="Networks to calibrate.")
@click.option("--model", default="cnn", show_default=True, help="Network to train.")
@save_option
def main(other: Path, fashion: Path | None, seeds: int, model: str, save: Path | None) -> None:
    """Compare two calibrations and print a table."""
    splits = load("mnist", validation=VALIDATION)
    drawn = outliers(splits.train.images, OUTLIERS, OUTLIER_SEED)
    clothes = torch.tensor(fashion_images(fashion)) if fashion else None
    columns: dict[Path, list[Figures]] = {other.absolute(): [], ROOT: []}
    for seed in range(seeds):
        network = trained(model, seed, splits)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.pt"
            torch.save(network.state_dict(), weights)
            for checkout, column in columns.items():
                started = time.monotonic()
                calibration, seconds = calibrated(checkout, weights, model, seed)
                column.append(figures(network, calibration, splits.test, drawn, clothes, seconds))
                click.echo(f"seed {seed}, {checkout}: {time.monotonic() - started:.0f} s, {column[-1]}", err=True)
    notes = ["Mean and standard deviation over the seeds; the difference with its standard error."]
    tell([conditions("torch", "numpy"), "", *table(*columns.values()), "", *notes], save)


if __name__ == "__main__":
    main()

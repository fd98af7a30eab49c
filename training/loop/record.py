"""The files that a finished run writes: weights, calibration, plots and run.json."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F

from training import checkpoint
from training.data.digits import Splits
from training.device import is_deterministic
from training.evaluate import Evaluation, evaluate
from training.loop import distributed
from training.loop.errors import DivergedError
from training.loop.progress import Progress
from training.loop.replay import replay_lines, replay_record
from training.loop.state import State
from training.networks import Network, parameter_count
from training.origin import RECORD
from training.plot_process import PlotProcess
from training.source import host, revision
from training.track.tracking import Tracking
from training.trust.calibrate import Calibration, calibrate

# How many of the worst mistakes are drawn.
MISTAKES = 32


def finish(
    state: State,
    splits: Splits,
    output: Path,
    device: torch.device,
    plots: PlotProcess | None,
    progress: Progress,
    tracking: Tracking | None = None,
) -> Evaluation:
    """Evaluate on the test set, write the files of the finished run, and return the evaluation.

    ``run.json`` is written last, so that a folder with it is complete, except that a plot may be missing. With several
    processes only the first one writes.

    Raises:
        DivergedError: the loss on the test set is not finite. Without a validation set,
            divergence in the last step is found only here.
    """
    network = state.result
    with progress.waiting("testing"):
        test = evaluate(network, splits.test.to(device))
    if not math.isfinite(test.loss):
        raise DivergedError(state.config, state.step)
    if not distributed.is_first():
        return test
    assert plots is not None  # noqa: S101 (only the other processes have none)
    evaluations = {"test": test}
    if len(splits.validation):
        evaluations["validation"] = evaluate(network, splits.validation.to(device))
    with progress.waiting("testing on the replay data set") if splits.replay else nullcontext():
        replay = replay_record(state.config, splits, network, evaluations.get("validation"), test)
    for line in replay_lines(replay, state.config.epochs) if replay else ():
        progress.line(line)
    draw_results(plots, output, state.history, test, splits)
    calibration = calibrate(network, splits, state.config.seed_for("calibration"), list(state.fonts), progress.stage)
    calibrated = calibration.applied(test)
    probabilities, truth = calibrated.logits.softmax(dim=1).numpy(), calibrated.labels.numpy()
    temperature, error = calibration.temperature, calibrated.calibration_error()
    plots.draw("plot_reliability", output / "reliability.png", probabilities, truth, temperature, error)
    digests = {
        "calibration": _write(output / "calibration.pt", calibration.state()),
        "model": _write(output / "model.pt", {"model": state.config.model, "weights": _weights(network)}),
    }
    write_metrics(output, state.history)
    _finish_plots(plots, progress)
    record = _record(state, splits, evaluations, calibration, digests, device, replay)
    checkpoint.write_atomically(output / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    if tracking:
        tracking.finish(record, output)
    return test


def draw_results(
    plots: PlotProcess, output: Path, history: list[dict[str, Any]], test: Evaluation, splits: Splits
) -> None:
    """Begin to draw the plots that need no calibration."""
    plots.draw("plot_curves", output / "curves.png", history)
    plots.draw("plot_confusion", output / "confusion.png", test.confusion.numpy(), splits.labels)
    losses = F.cross_entropy(test.logits, test.labels, reduction="none")
    wrong = test.predictions != test.labels
    total = int(wrong.sum())
    worst = (losses * wrong).argsort(descending=True)[: min(MISTAKES, total)]
    images, truth = splits.test.images[worst].cpu().numpy(), test.labels[worst].numpy()
    probabilities = test.logits[worst].softmax(dim=1).numpy()
    plots.draw("plot_mistakes", output / "mistakes.png", images, probabilities, truth, splits.labels, total)


def _finish_plots(plots: PlotProcess, progress: Progress) -> None:
    """Wait for the plots. If they cannot be drawn, print a warning: the run is finished without them."""
    try:
        with progress.waiting("drawing the plots"):
            plots.finish()
    except OSError as error:
        click.echo(f"WARNING: {error}; the run is complete without them, and --resume draws them again", err=True)


def write_metrics(output: Path, history: list[dict[str, Any]]) -> None:
    """Write ``metrics.jsonl``, one line per finished epoch."""
    if distributed.is_first():
        lines = "".join(json.dumps(row) + "\n" for row in history)
        checkpoint.write_atomically(output / "metrics.jsonl", lines.encode())


def _write(path: Path, state: dict[str, Any]) -> str:
    """Write a checkpoint and return its SHA-256."""
    content = checkpoint.to_bytes(state)
    checkpoint.write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def _weights(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def _record(
    state: State,
    splits: Splits,
    evaluations: dict[str, Evaluation],
    calibration: Calibration,
    digests: dict[str, str],
    device: torch.device,
    replay: dict[str, object] | None,
) -> dict[str, Any]:
    """Return the content of ``run.json``."""
    return {
        "config": state.config.asdict(),
        "extended": state.extended,
        "dataset": {
            "name": splits.name,
            "labels": splits.labels,
            "digests": splits.digests,
            "train_images": splits.train_images,
            "validation_images": len(splits.validation),
            "own": splits.is_own,
            "prepare": splits.prepare,
            "several": splits.several,
            "replay": replay,
        },
        "parameters": parameter_count(state.network),
        "model_sha256": digests["model"],
        "teachers": state.teacher.digests if state.teacher else {},
        "fonts": by_name(state.fonts),
        "start": state.start,
        "result": {name: evaluation.summary() for name, evaluation in evaluations.items()},
        "calibration": {
            "temperature": calibration.temperature,
            "threshold": calibration.threshold,
            "confidence": calibration.confidence,
            "sha256": digests["calibration"],
            "result": {name: calibration.applied(evaluation).summary() for name, evaluation in evaluations.items()},
        },
        "seconds": round(sum(row["seconds"] for row in state.history), 1),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in ("torch", "torchvision", "numpy")},
        "threads": state.threads,
        "device": device.type,
        "precision_reason": state.precision_reason or "it was set",
        "deterministic": is_deterministic(device),
        "processes": distributed.count(),
        "revision": revision(),
        "host": host(),
    }


def by_name(fonts: Mapping[Path, str]) -> dict[str, str]:
    """Return the digest of each font by its file name. Further fonts of the same name get a number."""
    found: dict[str, str] = {}
    count: Counter[str] = Counter()
    for font, digest in fonts.items():
        count[font.name] += 1
        found[font.name if count[font.name] == 1 else f"{font.name} ({count[font.name]})"] = digest
    return found

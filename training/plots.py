"""Plots of a run: learning curves, confusion matrix, reliability diagram, worst mistakes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from training.checkpoint import write_atomically
from training.data.digits import Digits
from training.evaluate import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISTAKES_PER_ROW = 8
DOTS_PER_INCH = 110


def plot_curves(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Draw the losses and the validation error of each epoch.

    Args:
        history: the rows of ``metrics.jsonl``.
    """
    figure = _figure(10, 4)
    losses, errors = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    losses.plot(epochs, [row["train_loss"] for row in history], "o-", label="training set")
    losses.set(xlabel="epoch", ylabel="mean loss per image", title="Loss of each epoch")
    if "validation_loss" in history[0]:
        losses.plot(epochs, [row["validation_loss"] for row in history], "o-", label="validation set")
        percent = [100 * (1 - row["validation_accuracy"]) for row in history]
        errors.plot(epochs, percent, "o-", color="tab:orange")
        errors.set(
            xlabel="epoch",
            ylabel="wrong predictions (%)",
            title=f"Validation error: {percent[-1]:.2f}% after the last epoch",
        )
        # The axis is logarithmic so that the small improvements of the last epochs can be seen.
        if min(percent) > 0:
            errors.set_yscale("log")
            errors.yaxis.set_major_formatter("{x:g}")
            errors.yaxis.set_minor_formatter("{x:g}")
    else:
        errors.set_axis_off()
        errors.text(0.5, 0.5, "There is no validation set (--validation 0).", ha="center")
    losses.legend()
    for axes in (losses, errors):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, path)


def plot_confusion(path: Path, evaluation: Evaluation, labels: Sequence[str]) -> None:
    """Draw the confusion matrix. Only wrong predictions are coloured, so that they stand out."""
    confusion = evaluation.confusion
    mistakes = confusion.clone().fill_diagonal_(0)
    figure = _figure(7, 6.5)
    axes = figure.subplots()
    most = max(1, int(mistakes.max()))
    axes.imshow(mistakes.numpy(), cmap="Oranges", vmin=0, vmax=most)
    for row, counts in enumerate(confusion.tolist()):
        for column, count in enumerate(counts):
            if count:
                color = "white" if mistakes[row, column] > 0.6 * most else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=9, color=color)
    positions = range(len(labels))
    axes.set_xticks(positions, labels, rotation=45 if max(map(len, labels)) > 2 else 0)
    axes.set_yticks(positions, labels)
    axes.set(
        xlabel="predicted label",
        ylabel="true label",
        title=f"Confusion matrix of the test set: {evaluation.correct:,} of {len(evaluation.labels):,} correct",
    )
    _save(figure, path)


def plot_reliability(path: Path, evaluation: Evaluation, temperature: float, bins: int = 15) -> None:
    """Draw the accuracy and the number of the predictions in each bin of confidence.

    Args:
        evaluation: logits after division by ``temperature``.
        temperature: the calibration temperature.
        bins: number of bins of confidence, all of the same width.
    """
    confidence, predictions = evaluation.logits.softmax(dim=1).max(dim=1)
    correct = (predictions == evaluation.labels).float()
    index = (confidence * bins).long().clamp_(max=bins - 1)
    counts = index.bincount(minlength=bins)
    confidence_sums, hits = (index.bincount(values, minlength=bins) for values in (confidence, correct))
    filled = counts > 0
    mean_confidence, accuracy = ((sums / counts)[filled].tolist() for sums in (confidence_sums, hits))
    figure = _figure(5, 6)
    above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    above.plot([0, 1], [0, 1], ":", color="gray", label="perfect calibration")
    above.plot(mean_confidence, accuracy, "o-", label="test set")
    above.set(
        ylabel="share of correct predictions",
        title=f"Test set: expected calibration error {evaluation.calibration_error(bins):.2%}\n"
        f"at calibration temperature {temperature:.2f}",
    )
    above.legend()
    below.bar([(i + 0.5) / bins for i in range(bins)], counts.tolist(), width=0.9 / bins)
    below.set(xlabel="confidence of the prediction", ylabel="images", yscale="log")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    _save(figure, path)


def plot_mistakes(path: Path, evaluation: Evaluation, digits: Digits, labels: Sequence[str], count: int = 32) -> None:
    """Draw the ``count`` worst mistakes: those that give the true label the lowest probability, in that order."""
    losses = F.cross_entropy(evaluation.logits, evaluation.labels, reduction="none")
    wrong = evaluation.predictions != evaluation.labels
    mistakes = int(wrong.sum())
    worst = (losses * wrong).argsort(descending=True)[: min(count, mistakes)]
    confidence = evaluation.logits.softmax(dim=1).amax(dim=1)
    rows = max(1, -(-len(worst) // MISTAKES_PER_ROW))
    figure = _figure(MISTAKES_PER_ROW * 1.3, rows * 1.7 + 0.5)
    figure.suptitle(
        f"Mistakes on the test set: the worst {len(worst)} of {mistakes}" if mistakes else "No mistakes on the test set"
    )
    for axes in figure.subplots(rows, MISTAKES_PER_ROW, squeeze=False).flat:
        axes.set_axis_off()
    for axes, index in zip(figure.axes, worst.tolist(), strict=False):
        axes.imshow(digits.images[index].cpu().numpy(), cmap="gray_r", vmin=0, vmax=255)
        true, predicted = (labels[int(values[index])] for values in (evaluation.labels, evaluation.predictions))
        axes.set_title(f"true: {true}\npredicted: {predicted}\nconfidence: {confidence[index]:.0%}", fontsize=8)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    # pyplot is avoided, because it may need a window system and keeps every figure in a global list.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    write_atomically(path, buffer.getvalue())

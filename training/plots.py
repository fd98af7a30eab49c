"""Pictures of a run: learning curves, confusion matrix, worst mistakes."""

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


def plot_curves(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Loss and error of each epoch; the error on a logarithmic axis, where its last steps can be seen."""
    figure = _figure(10, 4)
    losses, errors = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    losses.plot(epochs, [row["train_loss"] for row in history], "o-", label="training")
    losses.set(xlabel="epoch", ylabel="loss", title="Loss")
    if "validation_loss" in history[0]:
        losses.plot(epochs, [row["validation_loss"] for row in history], "o-", label="validation")
        percent = [100 * (1 - row["validation_accuracy"]) for row in history]
        errors.plot(epochs, percent, "o-", color="tab:orange")
        errors.set(xlabel="epoch", ylabel="error (%)", title=f"Validation error, at last {percent[-1]:.2f} %")
        if min(percent) > 0:
            errors.set_yscale("log")
            errors.yaxis.set_major_formatter("{x:g}")
            errors.yaxis.set_minor_formatter("{x:g}")
    else:
        errors.set_axis_off()
        errors.text(0.5, 0.5, "no validation images (--validation 0)", ha="center")
    losses.legend()
    for axes in (losses, errors):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, path)


def plot_confusion(path: Path, evaluation: Evaluation, labels: Sequence[str]) -> None:
    """Which class is taken for which. The diagonal is left pale, so that the mistakes stand out."""
    confusion = evaluation.confusion
    mistakes = confusion.clone().fill_diagonal_(0)
    figure = _figure(7, 6.5)
    axes = figure.subplots()
    axes.imshow(mistakes.numpy(), cmap="Oranges", vmin=0, vmax=max(1, int(mistakes.max())))
    for row, counts in enumerate(confusion.tolist()):
        for column, count in enumerate(counts):
            if count:
                axes.text(column, row, str(count), ha="center", va="center", fontsize=9)
    positions = range(len(labels))
    axes.set_xticks(positions, labels, rotation=45 if max(map(len, labels)) > 2 else 0)
    axes.set_yticks(positions, labels)
    axes.set(
        xlabel="predicted",
        ylabel="true",
        title=f"Test set: {evaluation.correct} of {len(evaluation.labels)} right",
    )
    _save(figure, path)


def plot_reliability(path: Path, evaluation: Evaluation, temperature: float, bins: int = 15) -> None:
    """How often an answer of each confidence is right, and how many answers have it."""
    confidence, predictions = evaluation.logits.softmax(dim=1).max(dim=1)
    right = (predictions == evaluation.labels).float()
    index = (confidence * bins).long().clamp_(max=bins - 1)
    counts = index.bincount(minlength=bins)
    sums, hits = (index.bincount(values, minlength=bins) for values in (confidence, right))
    some = counts > 0
    figure = _figure(5, 6)
    above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    above.plot([0, 1], [0, 1], ":", color="gray", label="as it should be")
    above.plot((sums / counts)[some].tolist(), (hits / counts)[some].tolist(), "o-", label="test set")
    above.set(
        ylabel="share of right answers",
        title=f"Calibration error {evaluation.calibration_error(bins):.2%} at temperature {temperature:.2f}",
    )
    above.legend()
    below.bar([(i + 0.5) / bins for i in range(bins)], counts.tolist(), width=0.9 / bins)
    below.set(xlabel="confidence", ylabel="answers", yscale="log")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    _save(figure, path)


def plot_mistakes(path: Path, evaluation: Evaluation, digits: Digits, labels: Sequence[str], count: int = 32) -> None:
    """The mistakes the network was surest of, the worst first."""
    losses = F.cross_entropy(evaluation.logits, evaluation.labels, reduction="none")
    wrong = evaluation.predictions != evaluation.labels
    worst = (losses * wrong).argsort(descending=True)[: min(count, int(wrong.sum()))]
    confidence = evaluation.logits.softmax(dim=1).amax(dim=1)
    columns = 8
    rows = max(1, -(-len(worst) // columns))
    figure = _figure(columns * 1.2, rows * 1.5 + 0.5)
    figure.suptitle(f"{int(wrong.sum())} mistakes, the surest first" if len(worst) else "No mistakes")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, index in zip(figure.axes, worst.tolist(), strict=False):
        axes.imshow(digits.images[index].cpu().numpy(), cmap="gray_r", vmin=0, vmax=255)
        true, said = labels[int(evaluation.labels[index])], labels[int(evaluation.predictions[index])]
        axes.set_title(f"{true}, not {said}\n{confidence[index]:.0%} sure", fontsize=8)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    # A Figure of its own, not pyplot's: no window system is asked for and nothing global is left behind.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())

"""Plots of a run: learning curves, confusion matrix, reliability diagram, worst mistakes.

A process of its own draws them (see :mod:`training.plot_process`), so this module works without torch.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from training.checkpoint import write_atomically
from training.glyphs import in_glyphs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

MISTAKES_PER_ROW = 8
# Distance between two images of mistakes, in pixels of the images: from left to right, and from top to bottom. The text
# above each image needs the latter.
GAP, TEXT_GAP = 16, 28
DOTS_PER_INCH = 110
# Compression level of the PNG files, from 1 to 9. The usual level 6 gives files that are a tenth smaller, and takes a
# fifth of the time of a plot.
COMPRESSION = 1
# Bins of confidence of the reliability diagram, as many as the calibration error has.
BINS = 15
# Classes that a confusion matrix shows, and characters that it shows of a name. There is less space above a mistake.
MOST_CLASSES, NAME_LENGTH, SHORT_NAME_LENGTH = 30, 16, 10


def plot_curves(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Draw the losses and the validation error of each epoch.

    Args:
        history: the rows of ``metrics.jsonl``.
    """
    figure = _figure(10, 4, left=0.07, right=0.98, bottom=0.13, top=0.91, wspace=0.25)
    losses, errors = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    # The training loss is often the higher one: it also counts the first steps of an epoch, on augmented images.
    losses.plot(epochs, [row["train_loss"] for row in history], "o-", label="training set, mean over the epoch")
    losses.set(xlabel="epoch", ylabel="mean loss per image", title="Loss of each epoch")
    if "validation_loss" in history[0]:
        label = "validation set, after the epoch"
        losses.plot(epochs, [row["validation_loss"] for row in history], "o-", label=label)
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


def plot_comparison(path: Path, runs: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Draw the training loss and the validation error of each epoch of several runs.

    Args:
        runs: the rows of ``metrics.jsonl`` by the name of the run.
    """
    figure = _figure(11, 4.5, layout="tight")
    losses, errors = figure.subplots(1, 2)
    for rows in runs.values():
        losses.plot([row["epoch"] for row in rows], [row["train_loss"] for row in rows], "o-")
        known = [row for row in rows if "validation_accuracy" in row]
        percent = [100 * (1 - row["validation_accuracy"]) for row in known]
        errors.plot([row["epoch"] for row in known], percent, "o-")
    losses.set(xlabel="epoch", ylabel="mean loss per image", title="Training loss")
    errors.set(xlabel="epoch", ylabel="wrong predictions (%)", title="Validation error")
    for axes in (losses, errors):
        axes.set_yscale("symlog" if axes is errors else "log")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    # A label of a line would be left out if it begins with "_".
    for text in losses.legend(losses.lines, list(runs), fontsize=8).get_texts():
        text.set_parse_math(False)
    _save(figure, path)


def plot_confusion(path: Path, confusion: Integers, labels: Sequence[str]) -> None:
    """Draw the confusion matrix. Only wrong predictions are coloured, so that they stand out.

    Of many classes it shows those with the most wrong predictions.

    Args:
        confusion: ``[C, C]``, a row for each true class, a column for each predicted class.
    """
    title = f"Confusion matrix of the test set: {int(np.trace(confusion)):,} of {int(confusion.sum()):,} correct"
    mistakes = confusion - np.diag(np.diag(confusion))
    if len(labels) > MOST_CLASSES:
        title += f"\nThe {MOST_CLASSES} of {len(labels):,} classes with the most mistakes"
        worst = np.sort((-mistakes.sum(axis=0) - mistakes.sum(axis=1)).argsort(kind="stable")[:MOST_CLASSES])
        confusion, mistakes = (counts[np.ix_(worst, worst)] for counts in (confusion, mistakes))
        labels = [labels[index] for index in worst]
    # The space that the names of the classes take is found by drawing the figure twice.
    figure = _figure(7, 6.5, layout="tight")
    axes = figure.subplots()
    most = max(1, int(mistakes.max()))
    axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=most)
    for row, counts in enumerate(confusion.tolist()):
        for column, count in enumerate(counts):
            if count:
                color = "white" if mistakes[row, column] > 0.6 * most else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=9, color=color)
    names = [_short(label, NAME_LENGTH) for label in labels]
    turned: dict[str, Any] = (
        {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 2 else {}
    )
    axes.set_xticks(range(len(names)), names, parse_math=False, **turned)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set(xlabel="predicted label", ylabel="true label", title=title)
    _save(figure, path)


def plot_reliability(path: Path, probabilities: Floats, truth: Integers, temperature: float, error: float) -> None:
    """Draw the accuracy and the number of the predictions in each bin of confidence.

    Args:
        probabilities: ``[N, C]``, from the logits after division by ``temperature``.
        truth: the right class of each image, ``[N]``.
        temperature: the calibration temperature.
        error: the expected calibration error.
    """
    confidence, predictions = probabilities.max(axis=1), probabilities.argmax(axis=1)
    index = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(index, minlength=BINS)
    confidence_sums, hits = (np.bincount(index, values, BINS) for values in (confidence, predictions == truth))
    filled = counts > 0
    mean_confidence, accuracy = (sums[filled] / counts[filled] for sums in (confidence_sums, hits))
    figure = _figure(5, 6, left=0.16, right=0.96, bottom=0.09, top=0.9, hspace=0.08)
    above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    above.plot([0, 1], [0, 1], ":", color="gray", label="perfect calibration")
    above.plot(mean_confidence, accuracy, "o-", label="test set")
    above.set(
        ylabel="share of correct predictions",
        title=f"Test set: expected calibration error {error:.2%}\nat calibration temperature {temperature:.2f}",
    )
    above.legend()
    below.bar([(i + 0.5) / BINS for i in range(BINS)], counts.tolist(), width=0.9 / BINS)
    below.set(xlabel="confidence of the prediction", ylabel="images", yscale="log")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    _save(figure, path)


def plot_mistakes(
    path: Path, images: npt.NDArray[np.uint8], probabilities: Floats, truth: Integers, labels: Sequence[str], total: int
) -> None:
    """Draw the worst mistakes, those with the largest loss first.

    Args:
        images: uint8 ``[N, H, W]``.
        probabilities: the predictions for these images, ``[N, C]``.
        truth: their right classes, ``[N]``.
        total: number of all mistakes.
    """
    rows = max(1, -(-len(images) // MISTAKES_PER_ROW))
    inches = rows * 1.7 + 0.7
    figure = _figure(MISTAKES_PER_ROW * 1.3, inches, left=0.01, right=0.99, bottom=0.02, top=1 - 0.6 / inches)
    figure.suptitle(
        f"Mistakes on the test set: {len(images)} of {total}, sorted by loss, the largest first\n"
        "The loss is large if the network gave the true label a low probability."
        if total
        else "No mistakes on the test set",
        fontsize=11,
    )
    # One picture of all images: to draw them one by one takes as long as all the rest.
    axes = figure.subplots()
    axes.set_axis_off()
    height, width = images.shape[1] + TEXT_GAP, images.shape[2] + GAP
    sheet = np.zeros((rows * height, MISTAKES_PER_ROW * width - GAP), np.uint8)
    losses = -np.log(np.maximum(np.take_along_axis(probabilities, truth[:, None], axis=1), np.finfo(np.float32).tiny))
    for number, (image, row, label) in enumerate(zip(images, probabilities, truth, strict=True)):
        top, left = number // MISTAKES_PER_ROW * height + TEXT_GAP, number % MISTAKES_PER_ROW * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
        names = [_short(labels[index], SHORT_NAME_LENGTH) for index in (label, row.argmax())]
        text = (
            f"true: {names[0]}\npredicted: {names[1]}\nconfidence: {_percent(row.max())}\nloss: {losses[number, 0]:.2f}"
        )
        axes.text(left + image.shape[1] / 2, top - 2, text, fontsize=8, ha="center", va="bottom", parse_math=False)
    # The corner of the sheet is at 0, 0, and the text of the first and the last column needs space beside it.
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=255, extent=(0, sheet.shape[1], sheet.shape[0], 0))
    axes.set(xlim=(-GAP / 2, MISTAKES_PER_ROW * width - GAP / 2))
    _save(figure, path)


def _short(label: str, length: int) -> str:
    label = in_glyphs(label)
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _percent(confidence: float) -> str:
    """Return a confidence without decimals. No network is sure, so 100 % is never shown."""
    return ">99%" if confidence > 0.99 else f"{confidence:.0%}"


def _figure(width: float, height: float, *, layout: Literal["tight"] | None = None, **margins: float) -> Figure:
    """Return a figure of this size in inches.

    Args:
        layout: ``tight`` finds the margins, for as much time as the drawing takes.
        margins: as shares of the figure, if the layout does not find them.
    """
    # pyplot is avoided, because it may need a window system and keeps every figure in a global list.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    if margins:
        figure.subplots_adjust(**margins)
    return figure


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, pil_kwargs={"compress_level": COMPRESSION})
    write_atomically(path, buffer.getvalue())

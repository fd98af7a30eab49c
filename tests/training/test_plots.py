"""Plots of models with any classes: many of them, long names, and names that matplotlib would take for formulas."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training import plots

ODD_NAMES = [r"$\frac{a$", "$x$", "a very long name of a class", "7", "_", "%", "^{", "{}", "#", "&", "\\", "~"]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    drawn = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: (save(figure, path), drawn.append(figure)))
    return drawn


def axes_of(figure: Figure) -> Axes:
    [axes] = figure.axes
    return axes


def test_confusion_matrix_of_many_classes_shows_those_with_the_most_mistakes(tmp_path, figures):
    names = [f"class {number}" for number in range(1000)]
    confusion = np.diag(np.full(1000, 5))
    for number in range(14):
        confusion[999 - 7 * number, 999 - 7 * number - 1] += 2
    confusion[3, 3] -= 1
    confusion[3, 4] += 1
    plots.plot_confusion(tmp_path / "confusion.png", confusion, names)
    [figure] = figures
    shown = [text.get_text() for text in axes_of(figure).get_yticklabels()]
    assert len(shown) == plots.MOST_CLASSES
    assert {"class 999", "class 998", "class 3", "class 4"} <= set(shown)
    assert shown == sorted(shown, key=lambda name: int(name.split()[1]))
    assert "30 of 1,000 classes with the most mistakes" in axes_of(figure).get_title()
    assert "4,999 of 5,028 correct" in axes_of(figure).get_title()


def test_names_of_classes_are_shown_as_they_are(tmp_path, figures):
    confusion = np.diag(np.full(12, 5)) + 1
    plots.plot_confusion(tmp_path / "confusion.png", confusion, ODD_NAMES)
    images, probabilities = np.zeros((12, 28, 28), np.uint8), np.eye(12, dtype=np.float32)
    plots.plot_mistakes(tmp_path / "mistakes.png", images, probabilities, np.arange(12), ODD_NAMES, 12)
    confusion_matrix, mistakes = map(axes_of, figures)
    shown = [text.get_text() for text in confusion_matrix.get_xticklabels()]
    assert shown == ["a very long nam…" if len(name) > 16 else name for name in ODD_NAMES]
    assert mistakes.texts[0].get_text().startswith("true: $\\frac{a$\n")
    assert (tmp_path / "mistakes.png").stat().st_size > 1000


def test_names_of_compared_runs_are_shown_as_they_are(tmp_path, figures):
    rows = [{"epoch": 1, "train_loss": 0.5}]
    plots.plot_comparison(tmp_path / "compare.png", dict.fromkeys(ODD_NAMES, rows))
    [figure] = figures
    legend = figure.axes[0].get_legend()
    assert legend
    assert [text.get_text() for text in legend.get_texts()] == ODD_NAMES


def test_mistakes_say_their_order_and_each_has_its_numbers(tmp_path, figures):
    """Not the confidence decides, but the probability of the true label."""
    probabilities = np.array([[0.001, 0.549, 0.45], [0.01, 0.99, 0.0], [0.0, 0.999, 0.001]], np.float32)
    truth = np.array([0, 0, 2])
    plots.plot_mistakes(tmp_path / "mistakes.png", np.zeros((3, 28, 28), np.uint8), probabilities, truth, "abc", 40)
    [figure] = figures
    assert "3 of 40, sorted by loss, the largest first\n" in figure.get_suptitle()
    assert [text.get_text().splitlines() for text in axes_of(figure).texts] == [
        ["true: a", "predicted: b", "confidence: 55%", "loss: 6.91"],
        ["true: a", "predicted: b", "confidence: 99%", "loss: 4.61"],
        ["true: c", "predicted: b", "confidence: >99%", "loss: 6.91"],
    ]


def test_curves_say_when_each_loss_is_measured(tmp_path, figures):
    rows = [{"epoch": 1, "train_loss": 0.5, "validation_loss": 0.2, "validation_accuracy": 0.9}]
    plots.plot_curves(tmp_path / "curves.png", rows)
    legend = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert legend == ["training set, mean over the epoch", "validation set, after the epoch"]

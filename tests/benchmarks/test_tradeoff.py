"""The picture of accuracy against seconds has the points of all saved results."""

from __future__ import annotations

from benchmarks.tradeoff import RESULTS, commands, speed, trainings


def test_saved_results_give_their_points():
    networks = {point.name for point in trainings((RESULTS / "accuracy.md").read_text())}
    assert {"mlp", "cnn", "cnn-large student"} <= networks
    (recipe,) = speed((RESULTS / "speed.md").read_text())
    assert 0 < recipe.errors < 1
    whole = {point.name: point for point in commands((RESULTS / "training.md").read_text())}
    assert {"the tutorial's program", "mnist-train", "mnist-train --recipe speed"} <= {*whole}

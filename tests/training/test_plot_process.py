"""Plots are drawn by a process of their own."""

from __future__ import annotations

import pytest

from training.plot_process import PlotProcess

HISTORY = [{"epoch": 1, "train_loss": 0.5}]


def test_plot_is_drawn(tmp_path):
    with PlotProcess() as plots:
        plots.draw("plot_curves", tmp_path / "curves.png", HISTORY)
        plots.finish()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_plot_that_cannot_be_written_is_an_error(tmp_path):
    with PlotProcess() as plots:
        plots.draw("plot_curves", tmp_path / "missing" / "curves.png", HISTORY)
        with pytest.raises(OSError, match=r"plots could not be drawn: .*missing"):
            plots.finish()


def test_process_ends_with_the_block():
    with pytest.raises(ValueError, match="the run failed"), PlotProcess() as plots:
        raise ValueError("the run failed")
    assert plots._process.returncode is not None

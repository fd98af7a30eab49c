"""Plots are drawn by a process of their own."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from training.plot_process import PlotProcess

HISTORY = [{"epoch": 1, "train_loss": 0.5}]
# Of 16 letters each, all of them different and missing in the font of the plots.
NAMES = ["".join(chr(0x4E00 + 16 * name + letter) for letter in range(16)) for name in range(30)]


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


def test_files_of_the_user_do_not_stand_in_for_modules(in_the_way, tmp_path):
    with PlotProcess() as plots:
        plots.draw("plot_curves", tmp_path / "curves.png", HISTORY)
        plots.finish()
    assert (tmp_path / "curves.png").exists()


def test_many_warnings_do_not_stop_the_process(tmp_path):
    """matplotlib warns of each letter that is missing: here with more bytes than a pipe holds."""
    probabilities, truth = np.full((100_000, 10), 0.1, np.float32), np.zeros(100_000, np.int64)
    with PlotProcess() as plots:
        plots.draw("plot_confusion", tmp_path / "confusion.png", np.eye(30, dtype=np.int64), NAMES)
        more = "plot_reliability", tmp_path / "reliability.png", probabilities, truth, 1.0, 0.0
        drawing = threading.Thread(target=plots.draw, args=more, daemon=True)
        drawing.start()
        drawing.join(60)
        assert not drawing.is_alive()
        plots.finish()
    assert (tmp_path / "reliability.png").exists()

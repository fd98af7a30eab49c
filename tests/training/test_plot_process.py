"""Plots are drawn by a process of their own."""

from __future__ import annotations

import os
import tempfile
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


def test_plot_that_cannot_be_written_leaves_the_others(tmp_path):
    with PlotProcess() as plots:
        plots.draw("plot_curves", tmp_path / "first" / "curves.png", HISTORY)
        plots.draw("plot_curves", tmp_path / "second" / "curves.png", HISTORY)
        plots.draw("plot_curves", tmp_path / "curves.png", HISTORY)
        with pytest.raises(OSError, match=r"some plots could not be drawn: FileNotFoundError: .*first"):
            plots.finish()
    assert (tmp_path / "curves.png").exists()


def test_process_that_is_killed_after_a_warning_is_called_killed():
    with PlotProcess() as plots:
        os.write(plots._errors.fileno(), b"UserWarning: Glyph 19968 missing from font\n")
        plots._process.kill()
        with pytest.raises(OSError, match=r"their process was killed by SIGKILL$"):
            plots.finish()


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_plots_need_no_temporary_folder(tmp_path, monkeypatch, has_memory_files):
    def fail():
        raise FileNotFoundError("No usable temporary directory")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    if not has_memory_files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this system has no files in memory")
    with PlotProcess() as plots:
        plots.draw("plot_curves", tmp_path / "curves.png", HISTORY)
        plots.draw("plot_curves", tmp_path / "missing" / "curves.png", HISTORY)
        with pytest.raises(OSError, match="missing" if has_memory_files else "ended with status 1"):
            plots.finish()
    assert (tmp_path / "curves.png").exists()


def test_backend_of_a_notebook_does_not_stop_the_process(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "of a notebook")
    with PlotProcess() as plots:
        plots.draw("plot_curves", tmp_path / "curves.png", HISTORY)
        plots.finish()
    assert (tmp_path / "curves.png").exists()


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

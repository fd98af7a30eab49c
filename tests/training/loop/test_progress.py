"""The progress of a run as text."""

from __future__ import annotations

import io
import re
import threading
from itertools import count

import pytest

from training.loop.progress import Progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def drawn(terminal, monkeypatch, columns=80):
    """Return the live lines that a run of a thousand epochs draws."""
    monkeypatch.setattr("training.loop.progress.SECONDS_BETWEEN_DRAWINGS", 0)
    monkeypatch.setattr("training.loop.progress.SECONDS_BEFORE_ESTIMATE", 0)
    monkeypatch.setattr("training.loop.progress._columns", lambda _: columns)
    progress = Progress(terminal)
    progress.begin(430_000, 0)
    for step in (1, 200_000, 430_000):
        progress.step("1000/1000", step, 0.0123, 0.00012)
    progress.stage("drawing images that are not digits")(0.5)
    return terminal.getvalue().split("\r\x1b[2K")[1:]


@pytest.mark.parametrize("columns", [1, 10, 20, 40, 60, 80, 200])
def test_live_line_fits_the_terminal(monkeypatch, columns):
    lines = drawn(Terminal(), monkeypatch, columns)
    assert len(lines) == 5
    assert max(map(len, lines)) < max(columns, 2)
    if columns >= 60:
        assert re.search(r"^epoch 1000/1000  ━+─* 100%  0:00 left", lines[2]), "the most useful parts stay"


@pytest.mark.parametrize("encoding", ["iso-8859-1", "ascii", "no-such-encoding", None])
def test_bar_is_ascii_where_the_terminal_has_no_other_characters(monkeypatch, encoding):
    terminal = Terminal()
    monkeypatch.setattr(Terminal, "encoding", encoding)
    lines = drawn(terminal, monkeypatch)
    assert all(line.isascii() for line in lines)
    assert "#" in lines[2]


def test_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    assert drawn(terminal, monkeypatch) == []
    Progress(terminal).line("epoch 1/2")
    assert terminal.getvalue() == "epoch 1/2\n"


def test_time_left_is_not_told_before_it_can_be_known(monkeypatch):
    terminal = Terminal()
    progress = Progress(terminal)
    progress.begin(1000, 0)
    progress.step("1/8", 1, 1.0, 0.1)
    assert "loss" in terminal.getvalue()
    assert "left" not in terminal.getvalue()


def test_run_goes_on_when_nobody_reads_its_output():
    class Closed(Terminal):
        def write(self, text):
            raise BrokenPipeError

    progress = Progress(Closed())
    progress.begin(10, 5)
    progress.step("1/2", 6, 1.0, 0.1)
    progress.line("epoch 1/2")
    progress.stage("fitting")(0.5)


def test_stage_after_the_last_epoch_is_told_when_it_takes_long(monkeypatch):
    """On a terminal it is drawn with its share. Elsewhere it gets one line, and only after a second."""
    times = iter([0.0, 0.5, 0.9, 1.5, 2.5])
    monkeypatch.setattr("training.loop.progress.time.monotonic", lambda: next(times))
    stream = io.StringIO()
    report = Progress(stream).stage("fitting")
    for share in (0.3, 0.6, 0.9):
        report(share)
    assert stream.getvalue() == "fitting\n"

    terminal = Terminal()
    monkeypatch.undo()
    Progress(terminal).stage("fitting")(0.5)
    assert "fitting" in terminal.getvalue()
    assert " 50%" in terminal.getvalue()


def test_long_stage_is_told_again_where_there_is_no_terminal(monkeypatch):
    """So that whoever reads a log sees that the command still works."""
    monkeypatch.setattr("training.loop.progress.time.monotonic", count().__next__)
    stream = io.StringIO()
    report = Progress(stream).stage("fitting")
    for share in range(10):
        report(share / 10)
    assert stream.getvalue().splitlines() == ["fitting", "fitting  30%", "fitting  60%", "fitting  90%"]


def test_long_stage_of_unknown_length_is_told_again_where_there_is_no_terminal(monkeypatch):
    for name in ("SECONDS_BEFORE_LINE", "SECONDS_BETWEEN_LINES"):
        monkeypatch.setattr(f"training.loop.progress.{name}", 0.001)
    stream, seen = io.StringIO(), threading.Event()
    monkeypatch.setattr(stream, "flush", lambda: stream.getvalue().count("\n") > 2 and seen.set())
    with Progress(stream).waiting("writing ONNX"):
        assert seen.wait(10)
    assert stream.getvalue().startswith("writing ONNX\nwriting ONNX  0 s\nwriting ONNX  0 s\n")


@pytest.mark.parametrize(("stream", "awaited"), [(Terminal, "loading torch  0 s"), (io.StringIO, "loading torch\n")])
def test_stage_of_unknown_length_shows_its_seconds(monkeypatch, stream, awaited):
    """On a terminal its name and its time are drawn, and removed at its end. Elsewhere it gets one line."""
    monkeypatch.setattr("training.loop.progress.SECONDS_BEFORE_LINE", 0.001)
    drawn, seen = stream(), threading.Event()
    monkeypatch.setattr(drawn, "flush", lambda: awaited in drawn.getvalue() and seen.set())
    with Progress(drawn).waiting("loading torch"):
        assert seen.wait(10)
    assert drawn.getvalue().endswith("\r\x1b[2K") if stream is Terminal else drawn.getvalue() == awaited


def test_stage_that_is_over_soon_gets_no_line():
    stream = io.StringIO()
    with Progress(stream).waiting("loading torch"):
        pass
    assert stream.getvalue() == ""

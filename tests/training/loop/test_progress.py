"""The progress of a run as text."""

from __future__ import annotations

import io

from training.loop.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


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

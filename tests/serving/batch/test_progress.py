"""The progress of mnist-predict fits the terminal, and is written as lines where there is none."""

from __future__ import annotations

import io

import pytest

from serving.batch import progress
from serving.batch.progress import Progress, clock, rounded


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self):
        return True

    def text(self):
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def seconds(monkeypatch):
    """Return a clock that a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(stream, seconds, rows=500):
    with Progress(stream) as shown:
        shown.begin(100_000, 20_000)
        for second in (0.5, 10.0):
            seconds[0] = second
            shown.advance(rows)


@pytest.mark.parametrize("columns", [10, 40, 60, 200])
def test_bar_is_never_wider_than_the_terminal(seconds, monkeypatch, columns):
    monkeypatch.setattr(progress, "_columns", lambda stream: columns)
    terminal = Terminal("utf-8")
    run(terminal, seconds)
    drawn = terminal.text().split("\r")
    assert max(map(len, drawn)) < columns
    assert "\x1b" not in terminal.text()
    # The last line is cleared.
    assert not drawn[-2].strip()
    assert not drawn[-1]


def test_bar_shows_rate_and_time_left_of_this_run(seconds):
    terminal = Terminal("utf-8")
    run(terminal, seconds)
    assert "21%  21,000 of 100,000  100/s  13:10 left" in terminal.text()
    assert "━━━━━───" in terminal.text()
    # The time left is not guessed from the first half second.
    assert terminal.text().split("\r")[1].rstrip().endswith("20,500 of 100,000")


def test_bar_is_ascii_where_the_encoding_has_no_lines(seconds):
    terminal = Terminal("iso-8859-1")
    run(terminal, seconds)
    assert "#####..." in terminal.text()


def test_without_a_terminal_a_line_is_written_every_few_seconds(seconds):
    stream = io.StringIO()
    run(stream, seconds)
    assert stream.getvalue() == " 21%  21,000 of 100,000  100/s  13:10 left\n"


def test_closed_stream_does_not_end_the_run(seconds):
    class Closed(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    run(Closed(), seconds)
    run(None, seconds)


def test_slow_run_has_a_rate():
    rates = {0.042: "0.042", 0.5: "0.5", 3.14: "3.1", 9.96: "10", 10.4: "10", 21_799.6: "21,800"}
    assert {rate: rounded(rate) for rate in rates} == rates


def test_clock_has_hours_only_if_needed():
    assert [clock(0), clock(61.9), clock(3600)] == ["0:00", "1:01", "1:00:00"]

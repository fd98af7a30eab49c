"""The progress of a run as text: a live line on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from training.command import abandon_output
from training.reports import Report

SECONDS_BETWEEN_DRAWINGS = 0.1
# The first steps of a run take longer than the others, so the time left is told only after this many seconds.
SECONDS_BEFORE_ESTIMATE = 2.0
# Elsewhere than on a terminal, a stage that takes longer than this gets a line, and then one more line each time that
# this many seconds have passed.
SECONDS_BEFORE_LINE = 1.0
SECONDS_BETWEEN_LINES = 2.0
# A stage that nobody needs to know of gets its line only after this many seconds. Nothing is silent for five.
SECONDS_BEFORE_LATE_LINE = 3.0
BAR_WIDTH, SMALL_BAR_WIDTH = 24, 10
CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """Prints the steps of a run to ``stream``. It prints nothing if ``stream`` is None, or after it was closed."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        # A dumb terminal shows the codes that clear a line as characters.
        self.live = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._full, self._empty = ("━", "─") if _can_print("━─", stream) else ("#", "-")
        self._drawn = 0.0

    def begin(self, total_steps: int, done_steps: int) -> None:
        """Start the clock of a run of ``total_steps`` steps, of which ``done_steps`` were taken before."""
        self.total_steps = total_steps
        self._first_step = done_steps
        self._start = time.monotonic()
        if done_steps:
            self.line(f"resuming after step {done_steps} of {total_steps}")

    def step(self, epoch: str, step: int, loss: float, rate: float) -> None:
        """Report that step number ``step`` is done. On a terminal this draws the live line."""
        if not self.live:
            return
        now = time.monotonic()
        if now - self._drawn < SECONDS_BETWEEN_DRAWINGS:
            return
        self._drawn = now
        spent = now - self._start
        left = spent / max(1, step - self._first_step) * (self.total_steps - step)
        parts = [f"{_clock(left)} left"] if spent >= SECONDS_BEFORE_ESTIMATE else []
        self._draw(f"epoch {epoch}", step / self.total_steps, [*parts, f"loss {loss:.4f}", f"rate {rate:.2g}"])

    def stage(self, name: str) -> Report:
        """Begin a stage whose share is known, and return a function that reports it."""
        due, told = time.monotonic() + SECONDS_BEFORE_LINE, False

        def report(share: float) -> None:
            nonlocal due, told
            if self.live:
                self._draw(name, share, [])
            elif (now := time.monotonic()) > due:
                self.line(f"{name}  {share:.0%}" if told else name)
                due, told = now + SECONDS_BETWEEN_LINES, True

        report(0)
        return report

    @contextmanager
    def waiting(self, name: str, *, late: bool = False) -> Iterator[None]:
        """Show that the block runs, and for how long. It is for a stage that cannot say how much of it is done.

        Args:
            late: elsewhere than on a terminal, print a line only if the block takes unusually long.
        """
        ended = threading.Event()
        wait = SECONDS_BEFORE_LATE_LINE if late and not self.live else SECONDS_BEFORE_LINE
        clock = threading.Thread(target=self._show_seconds, args=(name, ended, wait), daemon=True)
        clock.start()
        try:
            yield
        finally:
            ended.set()
            clock.join()
            self.clear()

    def _show_seconds(self, name: str, ended: threading.Event, wait: float) -> None:
        started = time.monotonic()
        if self.live:
            self._print(f"{CLEAR_LINE}{name}"[: len(CLEAR_LINE) + _columns(self.stream) - 1], nl=False)
        told = self.live
        while not ended.wait(wait):
            line = f"{name}  {time.monotonic() - started:.0f} s" if told else name
            if self.live:
                self._print(CLEAR_LINE + line[: _columns(self.stream) - 1], nl=False)
            else:
                self.line(line)
                wait, told = SECONDS_BETWEEN_LINES, True

    def _draw(self, name: str, share: float, parts: list[str]) -> None:
        """Draw the live line. A narrow terminal gets a smaller bar and fewer parts, the first ones."""
        # Some terminals begin a new line after their last column, so it stays free.
        columns = _columns(self.stream) - 1
        line = f"{name}  {share:4.0%}"
        for width in (BAR_WIDTH, SMALL_BAR_WIDTH):
            bar = (self._full * round(width * share)).ljust(width, self._empty)
            if len(with_bar := f"{name}  {bar} {share:4.0%}") <= columns:
                line = with_bar
                break
        for part in parts:
            if len(line) + len(part) + 2 <= columns:
                line += f"  {part}"
        self._print(CLEAR_LINE + line[:columns], nl=False)

    def clear(self) -> None:
        """Remove the live line, so that other text can follow."""
        if self.live:
            self._print(CLEAR_LINE, nl=False)

    def line(self, text: str) -> None:
        """Print ``text`` as a line. On a terminal it replaces the live line."""
        self._print((CLEAR_LINE if self.live else "") + text)

    def _print(self, text: str, *, nl: bool = True) -> None:
        if self.stream is None:
            return
        try:
            click.echo(text, file=self.stream, nl=nl)
        except OSError:
            # Nobody reads the output any longer, or its disk is full. That is no reason to lose a long run.
            if self.stream is sys.stdout:
                abandon_output()
            self.stream, self.live = None, False


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """Return a row of ``metrics.jsonl`` as a line of readable text."""
    line = f"epoch {row['epoch']}/{epochs}  training loss {row['train_loss']:.4f}"
    if "validation_loss" in row:
        line += f"  validation loss {row['validation_loss']:.4f} accuracy {row['validation_accuracy']:.2%}"
    return f"{line}  {row['seconds']:.1f} s"


def _columns(stream: TextIO | None) -> int:
    """Return the width of a terminal. It may change while the run goes on."""
    try:
        size = os.get_terminal_size(stream.fileno()) if stream else None
    except (OSError, ValueError):
        size = None
    # Some terminals give 0 as their width, for example those of serial lines.
    return size.columns if size and size.columns else shutil.get_terminal_size().columns


def _can_print(text: str, stream: TextIO | None) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

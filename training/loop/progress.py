"""The progress of a run as text: a live line on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TextIO

import click

SECONDS_BETWEEN_DRAWINGS = 0.1
# Elsewhere than on a terminal, a stage that takes longer than this gets a line.
SECONDS_BEFORE_LINE = 1.0
BAR_WIDTH = 24
CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """Prints the steps of a run to ``stream``. It prints nothing if ``stream`` is None."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.live = stream is not None and stream.isatty()
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
        left = (now - self._start) / max(1, step - self._first_step) * (self.total_steps - step)
        text = f"loss {loss:.4f}  rate {rate:.2g}  {_clock(left)} left in this training"
        self._draw(f"epoch {epoch}  {_bar(step / self.total_steps)}  {text}")

    def stage(self, name: str) -> Callable[[float], None]:
        """Begin a stage after the last epoch, and return a function that reports the share of it that is done, 0..1."""
        started, told = time.monotonic(), False

        def report(share: float) -> None:
            nonlocal told
            if self.live:
                self._draw(f"{name}  {_bar(share)}")
            elif not told and time.monotonic() - started > SECONDS_BEFORE_LINE:
                told = True
                self.line(name)

        report(0)
        return report

    def _draw(self, line: str) -> None:
        click.echo(CLEAR_LINE + line, file=self.stream, nl=False)

    def line(self, text: str) -> None:
        """Print ``text`` as a line. On a terminal it replaces the live line."""
        if self.stream:
            click.echo((CLEAR_LINE if self.live else "") + text, file=self.stream)


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """Return a row of ``metrics.jsonl`` as a line of readable text."""
    line = f"epoch {row['epoch']}/{epochs}  training loss {row['train_loss']:.4f}"
    if "validation_loss" in row:
        line += f"  validation loss {row['validation_loss']:.4f} accuracy {row['validation_accuracy']:.2%}"
    return f"{line}  {row['seconds']:.1f} s"


def _bar(share: float) -> str:
    return ("━" * round(BAR_WIDTH * share)).ljust(BAR_WIDTH, "─") + f" {share:4.0%}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

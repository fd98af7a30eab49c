"""What a run says while it goes: a live line on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

import click


class Progress:
    """Reports the steps of a run to ``stream``."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self._shown = 0.0

    def begin(self, total_steps: int, done_steps: int) -> None:
        """A run of ``total_steps`` begins, or goes on after ``done_steps`` of them."""
        self.total_steps = total_steps
        self._first_step = done_steps
        self._start = time.monotonic()
        if done_steps:
            self.line(f"going on after step {done_steps} of {total_steps}")

    def step(self, epoch: str, step: int, loss: float, rate: float) -> None:
        """Step ``step`` of the run is done. Draws at most ten times a second, and only on a terminal."""
        if not self.live:
            return
        now = time.monotonic()
        if now - self._shown < 0.1:
            return
        self._shown = now
        left = (now - self._start) / max(1, step - self._first_step) * (self.total_steps - step)
        share = step / self.total_steps
        bar = ("━" * round(24 * share)).ljust(24, "─")
        line = f"epoch {epoch}  {bar} {share:4.0%}  loss {loss:.4f}  rate {rate:.2g}  {_clock(left)} left"
        click.echo(f"\r\x1b[2K{line}", file=self.stream, nl=False)

    def line(self, text: str) -> None:
        """Say ``text`` on a line of its own, in place of the live one."""
        click.echo(("\r\x1b[2K" if self.live else "") + text, file=self.stream)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

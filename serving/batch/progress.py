"""How far a run is, on standard error: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import os
import time
from typing import Self, TextIO

SECONDS_BETWEEN_DRAWINGS = 0.1
SECONDS_BETWEEN_LINES = 5.0
# The time left is not known well before this.
SECONDS_BEFORE_GUESS = 1.0
BAR_WIDTH = 24


class Progress:
    """Shows how many of ``total`` rows are done. It shows nothing if ``stream`` is None."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._is_live = stream is not None and stream.isatty()
        self._start = self._drawn = time.monotonic()
        self._first = self._done = self._total = 0
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_live and self._width:
            self._write("\r" + " " * self._width + "\r")

    def found(self, number: int) -> None:
        """Report that ``number`` names have been found so far."""
        self._show(f"{number:,} pictures found")

    def begin(self, total: int, done: int) -> None:
        """Start the clock of a run with ``total`` rows, of which ``done`` were there before."""
        self._total, self._first, self._done = total, done, done
        self._start = time.monotonic()

    def advance(self, rows: int) -> None:
        self._done += rows
        self._show("")

    @property
    def rate(self) -> float:
        """Rows per second in this run."""
        return (self._done - self._first) / max(1e-9, time.monotonic() - self._start)

    def _show(self, text: str) -> None:
        now = time.monotonic()
        if now - self._drawn < (SECONDS_BETWEEN_DRAWINGS if self._is_live else SECONDS_BETWEEN_LINES):
            return
        self._drawn = now
        text = text or self._text(now - self._start)
        if not self._is_live:
            self._write(text + "\n")
            return
        room = _columns(self._stream) - 1
        bar = self._bar(min(BAR_WIDTH, room - len(text) - 2))
        self._width = max(self._width, min(room, len(text) + len(bar)))
        self._write("\r" + (bar + text)[:room].ljust(self._width))

    def _text(self, seconds: float) -> str:
        text = f"{self._done / self._total:4.0%}  {self._done:,} of {self._total:,}"
        if seconds > SECONDS_BEFORE_GUESS and self.rate:
            text += f"  {rounded(self.rate)}/s  {clock((self._total - self._done) / self.rate)} left"
        return text

    def _bar(self, width: int) -> str:
        if width < 4 or not self._total:
            return ""
        full = round(width * self._done / self._total)
        done, rest = ("━", "─") if _can_write("━─", self._stream) else ("#", ".")
        return done * full + rest * (width - full) + "  "

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # Nobody reads standard error. The run goes on.
            self._stream = None


def rounded(rate: float) -> str:
    """Return a rate as text. A small one has two digits, because 0 per second would be wrong."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _columns(stream: TextIO | None) -> int:
    try:
        return (os.get_terminal_size(stream.fileno()).columns if stream else 0) or 80
    except (OSError, ValueError):
        return 80


def _can_write(text: str, stream: TextIO | None) -> bool:
    try:
        text.encode((stream and stream.encoding) or "ascii")
    except UnicodeEncodeError:
        return False
    return True
